"""The replay buffer stores transitions, composes rewards at sampling, relabels all or none and refuses mixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.storage.replay_buffer import ReplayBuffer
from robo_rm import shaped_reward
from robo_rm.shaping.modes import ShapingSettings, Transitions, compose_reward

DISCOUNT = 0.97


def transitions(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    ended = rng.random(count)
    return {
        "observation": rng.normal(size=(count, 3)),
        "next_observation": rng.normal(size=(count, 3)),
        "action": rng.uniform(-1, 1, (count, 2)),
        "next_prior_action": rng.uniform(-1, 1, (count, 2)),
        "task_reward": rng.integers(0, 2, count).astype(float),
        "potential": rng.random(count),
        "next_potential": rng.random(count),
        "start_potential": rng.random(count),
        "terminated": ended < 0.2,
        "truncated": (ended > 0.2) & (ended < 0.4),
        "steps": rng.integers(1, 6, count),
        "episode": np.arange(count) // 4,
    }


def filled(count: int = 50, capacity: int = 64) -> ReplayBuffer:
    replay = ReplayBuffer(capacity, 3, 2, "a")
    replay.add(transitions(count), "a")
    return replay


def test_sampled_rewards_and_bootstraps_are_those_of_the_formula() -> None:
    replay = filled()
    batch = replay.sample(np.random.default_rng(1), 400, ShapingSettings("pbrs", scale=2.0), DISCOUNT)
    given = transitions(50)
    expected = shaped_reward(
        given["task_reward"],
        2 * given["potential"],
        2 * given["next_potential"],
        given["terminated"],
        DISCOUNT,
        given["steps"],
    )
    factor = np.where(given["terminated"], 0, DISCOUNT ** given["steps"])
    for i in range(400):
        row = int(np.flatnonzero(np.abs(given["action"] - batch.action[i]).sum(axis=1) < 1e-5)[0])
        assert batch.reward[i] == pytest.approx(expected[row], abs=1e-5)
        assert batch.bootstrap[i] == pytest.approx(factor[row], abs=1e-6)
        np.testing.assert_allclose(
            batch.observation[i], [*given["observation"][row], given["potential"][row]], atol=1e-6
        )
        after = [*given["next_observation"][row], given["next_potential"][row]]
        np.testing.assert_allclose(batch.next_observation[i], after, atol=1e-6)


def test_values_are_bounded_where_the_task_reward_is_paid_once_and_only_there(tmp_path: Path) -> None:
    rows = transitions(50)
    rows["task_reward"] = 0.9 * rows["terminated"]
    replay = ReplayBuffer(64, 3, 2, "a")
    replay.add(rows, "a")
    batch = replay.sample(np.random.default_rng(1), 20, ShapingSettings("pbrs", scale=2.0), DISCOUNT)
    after = 2 * batch.next_observation[:, -1]
    assert batch.bounds is not None
    np.testing.assert_allclose(batch.bounds, np.stack([-after, 1 - after], axis=1), atol=1e-6)
    assert replay.sample(np.random.default_rng(1), 20, ShapingSettings("additive"), DISCOUNT).bounds is None
    replay.add({**transitions(3), "task_reward": np.array([0.0, 0.0, 0.5]), "terminated": np.zeros(3, bool)}, "a")
    assert replay.sample(np.random.default_rng(1), 20, ShapingSettings("pbrs"), DISCOUNT).bounds is None
    # The transition that paid in between is gone; a resumed run learns as the uninterrupted one would.
    replay.add({key: np.concatenate([values, values]) for key, values in rows.items()}, "a")
    assert not ((replay.floats("task_reward") > 0) & ~replay.flags("terminated")).any()
    replay.save(tmp_path / "r")
    again = ReplayBuffer(64, 3, 2, "a")
    again.load(tmp_path / "r")
    assert not replay.is_bounded
    assert not again.is_bounded


def test_a_split_batch_is_complete_in_equal_parts() -> None:
    rows = transitions(50)
    replay = ReplayBuffer(64, 3, 2, "a")
    replay.add({**rows, "task_reward": 0.9 * rows["terminated"]}, "a")
    batch = replay.sample(np.random.default_rng(1), 12, ShapingSettings("pbrs"), DISCOUNT)
    parts = list(batch.split(4))
    assert [len(one.reward) for one in parts] == [3, 3, 3, 3]
    for name in ("observation", "action", "reward", "next_prior_action", "bounds"):
        together = np.stack([getattr(one, name) for one in parts], axis=1)
        np.testing.assert_array_equal(together.reshape(getattr(batch, name).shape), getattr(batch, name))
    without = filled().sample(np.random.default_rng(1), 12, ShapingSettings("pbrs"), DISCOUNT)
    assert all(one.bounds is None for one in without.split(4))


def test_a_truncated_transition_bootstraps() -> None:
    replay = ReplayBuffer(4, 3, 2, "a")
    one = transitions(1)
    replay.add({**one, "terminated": [False], "truncated": [True], "steps": [2]}, "a")
    batch = replay.sample(np.random.default_rng(0), 1, ShapingSettings(), DISCOUNT)
    assert batch.bootstrap[0] == pytest.approx(DISCOUNT**2)


def test_the_oldest_are_overwritten() -> None:
    replay = ReplayBuffer(10, 3, 2, "a")
    for start in range(0, 28, 4):
        made = transitions(4)
        replay.add({**made, "task_reward": np.arange(start, start + 4)}, "a")
    assert sorted(replay.floats("task_reward").tolist()) == list(range(18, 28))
    replay.add({**transitions(25), "task_reward": np.arange(25)}, "a")
    assert sorted(replay.floats("task_reward").tolist()) == list(range(15, 25))


def test_versions_never_mix_and_relabelling_is_whole() -> None:
    replay = filled()
    with pytest.raises(ConfigError, match="potentials of a and these are of b; relabel"):
        replay.add(transitions(2), "b")
    before = replay.floats("potential").copy()
    with pytest.raises(ConfigError, match="no start_potential"):
        replay.relabel("b", lambda r: {"potential": np.ones(len(r)), "next_potential": np.ones(len(r))})
    np.testing.assert_array_equal(replay.floats("potential"), before)
    assert replay.version == "a"
    replay.relabel(
        "b", lambda r: dict.fromkeys(("potential", "next_potential", "start_potential"), r.floats("observation")[:, 0])
    )
    np.testing.assert_array_equal(replay.floats("potential"), replay.floats("observation")[:, 0])
    replay.add(transitions(2), "b")


def test_saved_and_loaded_it_samples_the_same(tmp_path: Path) -> None:
    replay = filled(80)
    replay.save(tmp_path / "replay.safetensors")
    other = ReplayBuffer(64, 3, 2, "nothing")
    other.load(tmp_path / "replay.safetensors")
    for again in (replay, other):
        again.add(transitions(3, 9), "a")
    first, second = (r.sample(np.random.default_rng(3), 32, ShapingSettings(), DISCOUNT) for r in (replay, other))
    for name in ("observation", "action", "reward", "bootstrap", "next_observation", "next_prior_action"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("damage", ["empty", "cut", "other"])
def test_a_damaged_file_is_told(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "replay.safetensors"
    filled().save(path)
    raw = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": raw[: len(raw) // 2], "other": b"x" * 100}[damage])
    with pytest.raises(ModelError, match="damaged"):
        ReplayBuffer(64, 3, 2, "a").load(path)
    filled().save(path)
    with pytest.raises(ModelError, match="capacity"):
        ReplayBuffer(32, 3, 2, "a").load(path)
    with pytest.raises(ModelError, match="another environment"):
        ReplayBuffer(64, 4, 2, "a").load(path)


@pytest.mark.parametrize("field", ["task_reward", "action", "observation", "next_potential"])
def test_nan_is_not_stored(field: str) -> None:
    replay = filled(5)
    bad = transitions(3)
    bad[field] = np.array(bad[field])
    bad[field][1] = np.nan
    with pytest.raises(ConfigError, match=f"{field} of a transition is NaN"):
        replay.add(bad, "a")
    assert len(replay) == 5


def test_variance_fractions_of_the_terms_sum_to_one() -> None:
    fractions = filled().variance_fractions(ShapingSettings("pbrs"), DISCOUNT)
    assert set(fractions) == {"task", "shaping"}
    assert sum(fractions.values()) == pytest.approx(1)


def test_wrong_use_is_told() -> None:
    with pytest.raises(ConfigError, match="buffer is empty"):
        ReplayBuffer(4, 3, 2, "a").sample(np.random.default_rng(0), 1, ShapingSettings(), DISCOUNT)
    failed = ReplayBuffer(4, 3, 2, "a")
    failed.add(one_episode(0, False), "a")
    with pytest.raises(ConfigError, match="has succeeded yet"):
        failed.sample(np.random.default_rng(0), 2, ShapingSettings(), DISCOUNT, successful=1)
    with pytest.raises(ConfigError, match="lack task_reward"):
        ReplayBuffer(4, 3, 2, "a").add({k: v for k, v in transitions(2).items() if k != "task_reward"}, "a")
    with pytest.raises(ConfigError, match="shape"):
        ReplayBuffer(4, 3, 2, "a").add({**transitions(2), "action": np.zeros((2, 5))}, "a")


def one_episode(number: int, succeeds: bool, count: int = 4) -> dict[str, np.ndarray]:
    last = np.arange(count) == count - 1
    return {
        **transitions(count, seed=number),
        "task_reward": (last & succeeds).astype(float),
        "terminated": last & succeeds,
        "truncated": last & (not succeeds),
        "episode": np.full(count, number),
    }


def test_what_led_to_success_is_known_from_the_first_transition_on(tmp_path: Path) -> None:
    replay = ReplayBuffer(10, 3, 2, "a")
    replay.add(one_episode(0, False), "a")
    assert not len(replay.successful)
    for row in range(4):  # one by one, as a learner adds them
        replay.add({name: values[row : row + 1] for name, values in one_episode(1, True).items()}, "a")
    assert replay.successful.tolist() == [4, 5, 6, 7]
    replay.save(tmp_path / "replay.safetensors")
    again = ReplayBuffer(10, 3, 2, "a")
    again.load(tmp_path / "replay.safetensors")
    assert again.successful.tolist() == [4, 5, 6, 7]
    replay.add(one_episode(2, False), "a")  # takes the places of the oldest
    replay.add(one_episode(3, False), "a")
    assert replay.successful.tolist() == [6, 7]


def test_as_many_as_are_asked_for_come_from_episodes_that_succeeded() -> None:
    replay = ReplayBuffer(1000, 3, 2, "a")
    for number in range(50):
        replay.add(one_episode(number, succeeds=number == 7), "a")
    own = one_episode(7, True)["action"].astype(np.float32)
    batch = replay.sample(np.random.default_rng(0), 400, ShapingSettings(), DISCOUNT, successful=100)
    known = (batch.action[:, None] == own).all(axis=2).any(axis=1)
    assert len(known) == 400
    assert known[300:].all()
    assert known[:300].sum() < 30  # one episode of fifty


def interleaved(
    add: Callable[[int, dict[str, np.ndarray]], None], lengths: tuple[int, ...], seed: int = 0
) -> dict[int, dict[str, np.ndarray]]:
    """Episodes of as many environments, added step by step as a learner does; the first and third succeed."""
    episodes = {
        number: {
            **transitions(length, seed=seed + number),
            "task_reward": (last := np.arange(length) == length - 1) * (number % 2 == 0) * 1.0,
            "terminated": last & (number % 2 == 0),
            "truncated": last & (number % 2 == 1),
            "episode": np.full(length, number),
        }
        for number, length in enumerate(lengths)
    }
    for rows in episodes.values():
        rows["next_potential"][:-1] = rows["potential"][1:]
    for t in range(max(lengths)):
        live = [number for number, length in enumerate(lengths) if t < length]
        add(t, {key: np.concatenate([episodes[n][key][t : t + 1] for n in live]) for key in episodes[0]})
    return episodes


def found(episodes: dict[int, dict[str, np.ndarray]], action: np.ndarray) -> tuple[dict[str, np.ndarray], int]:
    """The episode that a drawn transition is of, and its place there."""
    for rows in episodes.values():
        places = np.flatnonzero(np.abs(rows["action"] - action).sum(axis=1) < 1e-5)
        if len(places):
            return rows, int(places[0])
    raise AssertionError("a transition was drawn that was never added")


@pytest.mark.parametrize("n_step", [1, 2, 5])
@pytest.mark.parametrize("mode", ["sparse", "pbrs", "additive"])
def test_rewards_of_n_steps_are_summed_as_far_as_the_episode_goes(mode: str, n_step: int) -> None:
    replay = ReplayBuffer(64, 3, 2, "a")
    episodes = interleaved(lambda _, rows: replay.add(rows, "a"), (7, 4, 9))
    settings = ShapingSettings(mode)
    batch = replay.sample(np.random.default_rng(3), 300, settings, DISCOUNT, n_step=n_step)
    for i in range(300):
        episode, t = found(episodes, batch.action[i])
        stop = min(t + n_step, len(episode["task_reward"]))
        total, factor = 0.0, 1.0
        for u in range(t, stop):
            fields = (
                "task_reward",
                "potential",
                "next_potential",
                "start_potential",
                "terminated",
                "truncated",
                "steps",
            )
            one = Transitions(*(episode[name][u : u + 1] for name in fields))
            total += factor * float(compose_reward(settings, one, DISCOUNT)[0])
            factor *= DISCOUNT ** int(episode["steps"][u])
        assert batch.reward[i] == pytest.approx(total, abs=1e-5)
        assert batch.bootstrap[i] == pytest.approx(0 if episode["terminated"][stop - 1] else factor, abs=1e-6)
        np.testing.assert_allclose(batch.next_observation[i, :3], episode["next_observation"][stop - 1], atol=1e-6)


@given(st.integers(0, 1000), st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(0, 12))
def test_potentials_cancel_over_the_rest_of_an_episode_also_across_a_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, seed: int, lengths: list[int], saved: int
) -> None:
    path = tmp_path_factory.mktemp("replay") / "replay.safetensors"
    first, second = ReplayBuffer(64, 3, 2, "a"), ReplayBuffer(64, 3, 2, "a")

    def add(t: int, rows: dict[str, np.ndarray]) -> None:
        if t == saved:
            first.save(path)
            second.load(path)
        (first if t < saved else second).add(rows, "a")

    episodes = interleaved(add, tuple(lengths), seed)
    replay = first if saved >= max(lengths) else second
    batch = replay.sample(np.random.default_rng(seed), 64, ShapingSettings("pbrs"), DISCOUNT, n_step=12)
    for i in range(64):
        episode, t = found(episodes, batch.action[i])
        rest = DISCOUNT ** np.cumsum([0, *episode["steps"][t:]])
        task_reward = (rest[:-1] * episode["task_reward"][t:]).sum()
        end = 0.0 if episode["terminated"][-1] else rest[-1] * episode["next_potential"][-1]
        assert batch.reward[i] == pytest.approx(task_reward + end - episode["potential"][t], abs=1e-5)


def test_the_max_future_potential_is_that_of_the_rest_of_an_episode_as_far_as_it_is_stored() -> None:
    rows, other = transitions(8), transitions(8, 1)
    rows["terminated"], rows["task_reward"] = np.arange(8) == 7, 1.0 * (np.arange(8) == 7)
    rows["truncated"] = np.arange(8) == 3
    rows["episode"] = np.arange(8) // 4
    progress = np.array([0.0, 0.1, 0.3, 0.2, 0.4, 0.5, 0.2, 0.6])
    rows |= {"potential": progress, "next_potential": progress + 0.05}
    replay = ReplayBuffer(8, 3, 2, "a")
    replay.add(rows, "a")
    np.testing.assert_allclose(replay.max_future_potential(), [0.35, 0.35, 0.35, 0.25, 1, 1, 1, 1], atol=1e-6)
    # The first half of the first episode is overwritten by a stranger, and the second episode has not ended.
    replay = ReplayBuffer(8, 3, 2, "a")
    replay.add({name: values[:6] for name, values in rows.items()}, "a")
    replay.add({**{name: values[:4] for name, values in other.items()}, "episode": np.full(4, 9)}, "a")
    np.testing.assert_allclose(replay.max_future_potential()[2:6], [0.35, 0.25, 0.55, 0.55], atol=1e-6)
