from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_core.errors import ModelError, StoreError
from robo_datasets import DemoStore
from robo_policies.cloning.windows import Demonstrations, Span, Windows, load_demonstrations, normalisation


def numbered(lengths: list[int]) -> Demonstrations:
    """Episodes whose action is (episode, frame) and whose observations are the same."""
    rows = np.array([(episode, frame) for episode, n in enumerate(lengths) for frame in range(n)], np.float32).reshape(
        -1, 2
    )
    keys = ("observation.state", "observation.environment_state", "action")
    return Demonstrations(
        arrays={key: rows.copy() for key in keys},
        uuids=tuple(str(index) for index in range(len(lengths))),
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        success=np.array([True] * len(lengths), dtype=object),
        fps=10.0,
        task="count",
        content_hash="none",
    )


def plain(demonstrations: Demonstrations) -> dict[str, dict[str, np.ndarray]]:
    """Statistics that leave values as they are."""
    zero, one = np.zeros(2, np.float32), np.ones(2, np.float32)
    return {key: {"mean": zero, "std": one} for key in demonstrations.arrays}


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    chunk=st.integers(1, 7),
    step=st.integers(0, 50),
    seed=st.integers(0, 3),
)
def test_a_chunk_starts_at_its_observation_and_never_leaves_its_episode(lengths, chunk, step, seed):
    demonstrations = numbered(lengths)
    windows = Windows(demonstrations, np.ones(sum(lengths), np.float32), Span(chunk), plain(demonstrations))
    batch = windows.batch(step, 6, seed)
    for state, actions, padded in zip(batch["observation.state"], batch["action"], batch["action_is_pad"], strict=True):
        episode, frame = int(state[0]), int(state[1])
        real = actions[~padded]
        assert len(real) == min(chunk, lengths[episode] - frame)
        assert (real[:, 0] == episode).all()
        assert real[:, 1].tolist() == list(range(frame, frame + len(real)))


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 13), seed=st.integers(0, 5))
def test_an_epoch_holds_every_weighted_frame_once_and_no_other(count, size, seed):
    demonstrations = numbered([count])
    weights = (np.arange(count) % 3 > 0).astype(np.float32)
    weights[0] = 0.5
    windows = Windows(demonstrations, weights, Span(3), plain(demonstrations))
    drawn = np.concatenate(
        [windows.batch(step, size, seed)["observation.state"][:, 1] for step in range(2 * len(windows))]
    )
    for epoch in range(2 * size):
        part = drawn[epoch * len(windows) : (epoch + 1) * len(windows)]
        assert sorted(part) == np.flatnonzero(weights).tolist()


def test_batches_depend_on_seed_and_step_alone():
    demonstrations = numbered([30])
    weights = np.ones(30, np.float32)
    one = Windows(demonstrations, weights, Span(3), plain(demonstrations))
    other = Windows(demonstrations, weights, Span(3), plain(demonstrations))
    for step in range(9):
        one.batch(step, 7, 0)
    assert (one.batch(9, 7, 0)["action"] == other.batch(9, 7, 0)["action"]).all()
    assert not (one.batch(9, 7, 0)["action"] == other.batch(9, 7, 1)["action"]).all()


def test_weights_have_a_mean_of_one_over_the_data_set():
    demonstrations = numbered([4])
    windows = Windows(demonstrations, np.array([0, 1, 2, 6], np.float32), Span(1), plain(demonstrations))
    batch = windows.batch(0, 3, 0)
    assert dict(zip(batch["observation.state"][:, 1].tolist(), batch["weight"].tolist(), strict=True)) == pytest.approx(
        {1.0: 1 / 3, 2.0: 2 / 3, 3.0: 2.0}
    )


def test_statistics_ignore_frames_of_weight_zero_and_leave_constant_dimensions_alone():
    demonstrations = numbered([3, 5])
    weights = np.array([2, 1, 1, 0, 0, 0, 0, 0], np.float32)
    statistics = normalisation(demonstrations, weights)["action"]
    np.testing.assert_allclose(statistics["mean"], [0, 1])
    np.testing.assert_allclose(statistics["std"], [1, np.sqrt(2 / 3)], rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones(3, np.float32), "one a frame"),
        (np.zeros(4, np.float32), "every weight is zero"),
        (np.array([1, -1, 1, 1], np.float32), "not negative"),
        (np.array([1, np.nan, 1, 1], np.float32), "finite"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights, words):
    demonstrations = numbered([4])
    with pytest.raises(ModelError, match=words):
        Windows(demonstrations, weights, Span(2), plain(demonstrations))


def test_a_store_is_read_whole(point_store):
    demonstrations = load_demonstrations(point_store)
    assert demonstrations.uuids == tuple(point_store.uuids)
    assert demonstrations.fps == 10
    assert demonstrations.task == "go to the goal"
    first = point_store[0]["action"][:]
    np.testing.assert_array_equal(demonstrations.arrays["action"][: len(first)], first)


def test_a_store_without_episodes_or_without_a_key_is_refused(new_store, tmp_path):
    with pytest.raises(StoreError, match="holds no episodes"):
        load_demonstrations(new_store(good=0))
    features = {"observation.environment_state": {"shape": (2,), "dtype": "float32"}}
    store = DemoStore.create(tmp_path / "other.zarr", features=features, fps=10)
    with store.writer(task="none") as episode:
        episode.add({"observation.environment_state": np.zeros(2, np.float32)})
    with pytest.raises(StoreError, match=r"has no 'action'"):
        load_demonstrations(store)


def test_a_value_that_is_not_finite_names_episode_and_frame(new_store, point_store):
    store = new_store(good=0)
    arrays = {key: point_store[0][key][:] for key in ("observation.state", "observation.environment_state", "action")}
    arrays["action"][2] = np.nan
    with store.writer(task="broken") as episode:
        episode.extend(arrays)
    with pytest.raises(StoreError, match=rf"{episode.uuid}, frame 2: action\[0\] is nan"):
        load_demonstrations(store)
