"""Macro-actions: commands and back, environments in step, demonstrations as transitions."""

from __future__ import annotations

import functools
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from line_env import LineEnv
from returns import n_step_return
from rl_runs import vector_env

from robo_core.errors import ConfigError, ModelError, StoreError
from robo_policies import make_env
from robo_policies.rl.envs.macro_action import action_map
from robo_policies.rl.envs.vector_env import MacroActionVectorEnv, make_vector_env
from robo_policies.rl.storage.demonstrations import demonstrated_reach, demonstrated_transitions
from robo_policies.rl.storage.replay_buffer import ReplayBuffer
from robo_rm.shaping.potential import NoPotential
from robo_rm.shaping.potential_based import shaped_reward

DISCOUNT = 0.98
BOX = spaces.Box(np.array([-2, -2, 0], np.float32), np.array([2, 2, 1], np.float32))
REACH = (0.2, 0.4, np.inf)

units = st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3).map(lambda v: np.array(v, np.float32))


@given(units, units, st.integers(1, 6), st.booleans())
def test_an_action_and_its_commands_agree(state: Any, action: Any, repeat: int, held: bool) -> None:
    mapping = action_map(BOX, repeat, None if held else REACH)
    commands = mapping.commands(state, action)
    assert commands.shape == (repeat, 3)
    assert BOX.contains(commands[0])
    np.testing.assert_allclose(mapping.action(state, commands), action, atol=1e-5)


def test_targets_move_evenly_and_grippers_at_once() -> None:
    commands = action_map(BOX, 4, REACH).commands(np.zeros(3, np.float32), np.array([1.0, -0.5, 1.0], np.float32))
    np.testing.assert_allclose(commands[:, 0], [0.05, 0.10, 0.15, 0.20], atol=1e-6)
    np.testing.assert_allclose(commands[:, 1], [-0.05, -0.10, -0.15, -0.20], atol=1e-6)
    np.testing.assert_allclose(commands[:, 2], 1.0)


def test_an_action_space_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="bounded vector"):
        action_map(spaces.Box(-np.inf, np.inf, (2,)), 2)
    with pytest.raises(ConfigError, match="3 numbers above 0"):
        action_map(BOX, 2, (1.0,))
    with pytest.raises(ConfigError, match="1 control step or more"):
        action_map(BOX, 0)


def drawers(count: int, max_steps: int = 20, seed: int = 3) -> MacroActionVectorEnv:
    make = functools.partial(make_env, "tidy_drawer", max_steps=max_steps)
    actions = action_map(make().action_space, 4, (0.2,) * 6 + (np.inf,))
    return vector_env(make, count, actions, seed, discount=DISCOUNT)


def test_environments_in_step_do_what_each_does_alone() -> None:
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (12, 2, 7)).astype(np.float32)
    together = drawers(2)
    together.reset()
    results = [together.step(action) for action in actions]
    assert results[4].transitions["truncated"].all()
    for place, seeds in ((0, [3, 5, 7]), (1, [4, 6, 8])):
        for episode, seed in enumerate(seeds):
            alone = drawers(1, seed=seed)
            alone.reset()
            for t in range(5 * episode, min(5 * episode + 5, 12)):
                rows = alone.step(actions[t, [place]]).transitions
                for name, values in rows.items():
                    np.testing.assert_array_equal(values[0], results[t].transitions[name][place], err_msg=f"{name} {t}")


def test_transitions_go_into_the_replay_buffer_and_telescope() -> None:
    envs = drawers(1)
    envs.reset()
    replay = ReplayBuffer(100, envs.observations().shape[1] - 1, 7, "simulator")
    rng = np.random.default_rng(1)
    rows = [envs.step(rng.uniform(-1, 1, (1, 7)).astype(np.float32)).transitions for _ in range(5)]
    for row in rows:
        replay.add(row, "simulator")
    parts = [
        [float(row[name][0]) for row in rows] for name in ("task_reward", "potential", "next_potential", "terminated")
    ]
    steps = [int(row["steps"][0]) for row in rows]
    shaped = [shaped_reward(g, f, n, bool(e), DISCOUNT, k) for g, f, n, e, k in zip(*parts, steps, strict=True)]
    total, lasted = n_step_return(shaped, steps, DISCOUNT)
    plain, _ = n_step_return(parts[0], steps, DISCOUNT)
    assert total == pytest.approx(plain + DISCOUNT**lasted * parts[2][-1] - parts[1][0], abs=1e-6)


def test_an_action_that_is_not_finite_stops() -> None:
    envs = drawers(2)
    envs.reset()
    with pytest.raises(ModelError, match="action for environment 1"):
        envs.step(np.array([[0.0] * 7, [np.nan] * 7], np.float32))


class Stored(SimpleNamespace):
    """An episode as far as demonstrations read it."""

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def __getitem__(self, key: str) -> Any:
        return self.arrays[key]


def stored(length: int, success: bool | None) -> Stored:
    state = np.linspace(0, 1, length)[:, None] * np.array([[1.0, -1.0, 0.5]])
    arrays = {"observation.state": state.astype(np.float32), "action": (state + 0.01).astype(np.float32)}
    return Stored(uuid="e", length=length, success=success, arrays=arrays)


@pytest.mark.parametrize("success", [True, False])
def test_a_demonstration_ends_the_task_only_by_success(success: bool) -> None:
    """A demonstration cut off by time is not terminal: the learner bootstraps there."""
    mapping = action_map(BOX, 4, REACH)
    potential = np.linspace(0, 0.9, 11)
    (rows,) = demonstrated_transitions([stored(11, success)], mapping, DISCOUNT, [potential])
    assert rows["steps"].tolist() == [4, 4, 2]
    assert rows["terminated"].tolist() == [False, False, success]
    assert rows["truncated"].tolist() == [False, False, not success]
    assert rows["task_reward"].tolist() == pytest.approx([0, 0, DISCOUNT if success else 0])
    np.testing.assert_allclose(rows["next_potential"], potential[[4, 8, 10]])
    np.testing.assert_array_equal(rows["next_observation"][:-1], rows["observation"][1:])
    # The gripper's command in the last frame of each macro-action, from [0, 1] to [-1, 1].
    np.testing.assert_allclose(rows["action"][:, 2], 2 * (0.05 * np.array([3, 7, 9]) + 0.01) - 1, atol=1e-6)


def test_the_reach_covers_what_was_demonstrated() -> None:
    reach = demonstrated_reach([stored(101, True)], 4, absolute=[2])
    assert reach[:2] == pytest.approx([0.04, 0.03], abs=0.011)
    assert np.isinf(reach[2])
    with pytest.raises(StoreError, match="longer than a macro-action"):
        demonstrated_reach([stored(3, True)], 4, absolute=[])


def test_demonstrations_that_do_not_say_enough_are_refused() -> None:
    mapping = action_map(BOX, 4, REACH)
    with pytest.raises(StoreError, match="does not say whether it succeeded"):
        list(demonstrated_transitions([stored(9, None)], mapping, DISCOUNT))
    with pytest.raises(ConfigError, match="has shape"):
        list(demonstrated_transitions([stored(9, True)], mapping, DISCOUNT, [np.zeros(8)]))
    lacking = stored(9, True)
    del lacking.arrays["action"]
    with pytest.raises(StoreError, match="has no action"):
        list(demonstrated_transitions([lacking], mapping, DISCOUNT))
    with pytest.raises(ConfigError, match="0 environments"):
        make_vector_env(LineEnv, 0, mapping, NoPotential())


def test_environments_resume_from_a_snapshot_bit_exactly() -> None:
    rng = np.random.default_rng(2)
    actions = rng.uniform(-1, 1, (9, 2, 7)).astype(np.float32)
    first = drawers(2)
    first.reset()
    for action in actions[:7]:
        first.step(action)
    again = drawers(2)
    again.restore(json.loads(json.dumps(first.snapshot())))
    np.testing.assert_array_equal(again.observations(), first.observations())
    for action in actions[7:]:
        one, other = first.step(action), again.step(action)
        for name, values in one.transitions.items():
            np.testing.assert_array_equal(values, other.transitions[name], err_msg=name)
        assert one.seeds.tolist() == other.seeds.tolist()


def test_a_demonstration_ends_where_the_environment_would_have_ended() -> None:
    """Recordings run on for a few frames after success; the environment does not."""
    mapping = action_map(BOX, 4, REACH)
    episode = stored(15, True)
    episode.arrays["simulator.progress"] = np.minimum(np.arange(15) / 10, 1.0).astype(np.float32)[:, None]
    (rows,) = demonstrated_transitions([episode], mapping, DISCOUNT)
    assert rows["steps"].tolist() == [4, 4, 2]
    assert rows["terminated"].tolist() == [False, False, True]
    episode.success = False
    (rows,) = demonstrated_transitions([episode], mapping, DISCOUNT)
    assert rows["steps"].tolist() == [4, 4, 4, 2]


def lines(count: int, patience: int) -> MacroActionVectorEnv:
    actions = action_map(LineEnv().action_space, 2)
    return vector_env(LineEnv, count, actions, 3, discount=DISCOUNT, patience=patience)


def goal_of(envs: MacroActionVectorEnv) -> float:
    """Direction of the first environment's goal."""
    return float(np.sign(envs.envs.envs[0].unwrapped.goal))  # type: ignore[union-attr]


def test_an_episode_without_progress_is_truncated_and_not_terminated() -> None:
    """Two macro-actions towards the goal, then rest: truncated after three without progress, its potential counts."""
    envs = lines(1, patience=3)
    envs.reset()
    goal = goal_of(envs)
    rows = [envs.step(np.full((1, 1), goal if number < 2 else 0.0, np.float32)).transitions for number in range(5)]
    assert [bool(row["truncated"][0]) for row in rows] == [False] * 4 + [True]
    assert not any(row["terminated"][0] for row in rows)
    assert rows[-1]["next_potential"][0] == rows[1]["next_potential"][0] > 0.1
    assert rows[-1]["next_observation"][0].tolist() == rows[1]["next_observation"][0].tolist()
    assert rows[-1]["steps"][0] == 2
    assert envs.seeds.tolist() == [4]


def test_going_back_is_no_progress_and_a_little_is_none_either() -> None:
    envs = lines(1, patience=3)
    envs.reset()
    goal = goal_of(envs)
    for fraction, over in ((1.0, False), (-1.0, False), (1.04, False), (0.04, True)):
        assert bool(envs.step(np.full((1, 1), fraction * goal, np.float32)).done[0]) is over


@pytest.mark.parametrize("patience", [0, 100])
def test_an_episode_goes_on_without_patience_or_with_much(patience: int) -> None:
    envs = lines(2, patience)
    envs.reset()
    ended = [envs.step(np.zeros((2, 1), np.float32)).done for _ in range(20)]
    assert [bool(one.all()) for one in ended] == [False] * 19 + [True]


def test_a_restored_episode_has_waited_as_long() -> None:
    envs, again = lines(2, patience=4), lines(2, patience=4)
    envs.reset()
    still = np.zeros((2, 1), np.float32)
    for _ in range(6):
        envs.step(still)
    again.restore(json.loads(json.dumps(envs.snapshot())))
    for expected in (False, True):
        assert envs.step(still).done.tolist() == again.step(still).done.tolist() == [expected] * 2


def test_a_patience_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="patience=-1"):
        lines(1, patience=-1)
