from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_datasets import DemoStore
from robo_datasets.errors import StoreError
from robo_datasets.testing import FRONT
from robo_datasets.windows import BlockShuffle, WindowPlan, read_window


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A store whose every value tells its own episode and frame: 100 * episode + frame."""
    features = {"action": {"shape": (1,), "dtype": "float32"}, FRONT: {"shape": (8, 8, 3), "dtype": "uint8"}}
    store = DemoStore.create(
        tmp_path_factory.mktemp("w") / "a.zarr", features, fps=10, stages=["a", "b"], codec="lossless"
    )
    for number, length in enumerate((5, 1, 8)):
        with store.writer() as writer:
            for frame in range(length):
                image = np.full((8, 8, 3), 100 * number + frame, np.uint8)
                writer.add({"action": np.float32([100 * number + frame]), FRONT: image}, stage=frame % 2)
    return store


@given(
    times=st.lists(st.integers(-12, 12), min_size=1, max_size=5),
    every=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_every_key_of_a_window_holds_the_frames_it_should(numbered, times, every):
    offsets = [time / 10 for time in times]
    plan = WindowPlan(numbered, {"action": offsets, FRONT: offsets, "stage": offsets}, every=every)
    assert len(plan) == sum(-(-length // every) for length in (5, 1, 8))
    for number in range(len(plan)):
        window = plan[number]
        episode, length = plan.uuids.index(window.uuid), numbered.lengths[window.uuid]
        arrays = read_window(numbered, window)
        wanted = window.anchor + np.array(times)
        inside = wanted.clip(0, length - 1)
        np.testing.assert_array_equal(arrays["action"][:, 0], 100 * episode + inside)
        np.testing.assert_array_equal(arrays[FRONT][:, 0, 0, 0], 100 * episode + inside)
        np.testing.assert_array_equal(arrays["stage"], inside % 2)
        for key in ("action", FRONT, "stage"):
            np.testing.assert_array_equal(arrays[key + "_is_pad"], inside != wanted)


@pytest.mark.parametrize("block", [1, 2, 10])
def test_a_shuffle_visits_every_window_once_and_follows_seed_and_epoch(numbered, block):
    plan = WindowPlan(numbered, {"action": [0.0]})
    order = BlockShuffle(plan, seed=3, block=block)
    first = list(order)
    assert sorted(first) == list(range(14))
    assert list(order) == first
    order.epoch = 1
    assert list(order) != first
    uuids = [plan[number].uuid for number in first]
    if block == 1:  # an episode is left when it is done, not before
        assert sum(a != b for a, b in itertools.pairwise(uuids)) == len(plan.uuids) - 1


def test_impossible_plans_say_why(numbered):
    for settings_, message in (
        ({"deltas": {"nothing": [0.0]}}, "no feature 'nothing'"),
        ({"deltas": {"action": [0.05]}}, "not whole frames"),
        ({"deltas": {"action": []}}, "not whole frames"),
        ({"deltas": {}}, "give the keys"),
        ({"deltas": {"action": [0.0]}, "uuids": ["nobody"]}, "no episode nobody"),
        ({"deltas": {"action": [0.0]}, "uuids": []}, "no episodes"),
        ({"deltas": {"action": [0.0]}, "every": 0}, "every=0"),
    ):
        with pytest.raises(StoreError, match=message):
            WindowPlan(numbered, **settings_)
    with pytest.raises(IndexError):
        WindowPlan(numbered, {"action": [0.0]})[14]
