"""The tabular suite: our core keeps the best policy, and each wrong variant in use is shown to change it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_core.errors import ModelError
from robo_rm import check_shaping, shaped_reward
from robo_rm.metrics import epic_distance, starc_distance
from robo_rm.shaping.modes import MODES, ShapingSettings, Transitions, compose_reward, value_bounds
from robo_rm.shaping.tabular import ADVANCE, GIVE_UP, HOVER, TabularTask, hover_task, random_task


def keeps_terminal_potential(task_reward: Any, now: Any, after: Any, ended: Any, g: float, steps: Any) -> Any:
    return task_reward + g**steps * after - now


def undiscounted_difference(task_reward: Any, now: Any, after: Any, ended: Any, g: float, steps: Any) -> Any:
    return task_reward + after - now


def progress_as_reward(task_reward: Any, now: Any, after: Any, ended: Any, g: float, steps: Any) -> Any:
    return task_reward + after


def forgets_the_steps(task_reward: Any, now: Any, after: Any, ended: Any, g: float, steps: Any) -> Any:
    return task_reward + g * np.where(ended, 0.0, after) - now


def drops_time_limits(task_reward: Any, now: Any, after: Any, ended: Any, g: float, steps: Any) -> Any:
    """Takes the last action of an episode for terminal, although the time ran out."""
    done = np.array(ended)
    if done.ndim == 1:
        done[-1] = True
    return shaped_reward(task_reward, now, after, done, g, steps)


def clipped(task_reward: Any, now: Any, after: Any, ended: Any, g: float, steps: Any) -> Any:
    return np.clip(shaped_reward(task_reward, now, after, ended, g, steps), -0.05, 1.0)


WRONG = [
    keeps_terminal_potential,
    undiscounted_difference,
    progress_as_reward,
    forgets_the_steps,
    drops_time_limits,
    clipped,
]


def test_our_core_passes_every_clause() -> None:
    assert all(clause.passed for clause in check_shaping(shaped_reward))


@pytest.mark.parametrize("rule", WRONG, ids=lambda rule: rule.__name__)
def test_a_wrong_variant_is_caught(rule: Any) -> None:
    with pytest.raises(ModelError, match="the shaping changes the optimal policy"):
        check_shaping(rule)


@pytest.mark.parametrize("success", [0.005, 0.01, 0.02])
def test_what_each_variant_makes_of_the_trap(success: float) -> None:
    task = hover_task(success)

    def choices(rule: Any) -> set[int]:
        return set(task.shaped(rule).action_values().argmax(axis=1)[~task.terminal].tolist())

    assert set(task.action_values().argmax(axis=1)[~task.terminal].tolist()) == {ADVANCE}
    assert choices(shaped_reward) == {ADVANCE}
    assert GIVE_UP in choices(keeps_terminal_potential)
    assert HOVER in choices(undiscounted_difference)
    assert HOVER in choices(progress_as_reward)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 5]), st.floats(0.5, 0.98))
@settings(max_examples=25)
def test_optimal_and_soft_policies_of_random_tasks_stay(seed: int, steps: int, discount: float) -> None:
    task = random_task(np.random.default_rng(seed), discount=discount, steps=steps)
    shaped = task.shaped(shaped_reward)
    assert np.array_equal(task.best_actions(), shaped.best_actions())
    np.testing.assert_allclose(task.soft_policy(0.5), shaped.soft_policy(0.5), atol=1e-6)
    # The critic of the shaped task is that of the unshaped task, moved by -Phi.
    live = ~task.terminal
    moved = task.action_values() - task.potential[:, None]
    np.testing.assert_allclose(shaped.action_values()[live], moved[live], atol=1e-8)


def _as_rule(mode: str) -> Any:
    def rule(task_reward: Any, now: Any, after: Any, ended: Any, g: float, steps: Any) -> Any:
        shape = np.broadcast_shapes(*map(np.shape, (task_reward, now, after, ended, steps)))
        task_reward, now, after, ended, steps = (
            np.broadcast_to(x, shape).ravel() for x in (task_reward, now, after, ended, steps)
        )
        start, never = np.zeros_like(task_reward), np.zeros(task_reward.shape, dtype=bool)
        transitions = Transitions(task_reward, now, after, start, ended, never, steps)
        return compose_reward(ShapingSettings(mode), transitions, g).reshape(shape)

    return rule


@pytest.mark.parametrize("mode", sorted(MODES))
def test_which_modes_keep_the_best_policy(mode: str) -> None:
    clauses = {clause.name: clause.passed for clause in check_shaping(_as_rule(mode), raise_on_failure=False)}
    policies_stay = clauses["advances"] and clauses["optimal actions"] and clauses["soft policies"]
    assert policies_stay == (mode in ("sparse", "pbrs", "pbrs_centred"))


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 5]), st.sampled_from(["sparse", "pbrs", "pbrs_centred"]))
@settings(max_examples=25)
def test_the_bounds_of_a_value_hold_for_the_best_and_for_any_policy(seed: int, steps: int, mode: str) -> None:
    """Where the task reward is paid once, at the end: every value lies between the bounds, the optimal one as well."""
    rng = np.random.default_rng(seed)
    task = random_task(rng, steps=steps)
    task = TabularTask(
        task.transition, task.terminal[None, None, :] * rng.random(task.reward.shape) * ~task.terminal[:, None, None],
        task.terminal, task.discount, task.potential, steps,
    )  # fmt: skip
    shaped = task.shaped(_as_rule(mode))
    bounds = value_bounds(ShapingSettings(mode), task.potential)
    assert bounds is not None
    live = ~task.terminal
    best = shaped.action_values().max(axis=1)
    choice = rng.dirichlet(np.ones(3), size=len(live))
    follow = np.einsum("sa,sat->st", choice, task.transition) * task.discount**steps * live
    gain = np.einsum("sa,sat,sat->s", choice, task.transition, shaped.reward)
    any_policy = np.linalg.solve(np.eye(len(live)) - follow, gain)
    for value in (best, any_policy):
        assert (value[live] >= bounds[0][live] - 1e-6).all()
        assert (value[live] <= bounds[1][live] + 1e-6).all()


@pytest.mark.parametrize("mode", sorted(set(MODES) - {"sparse", "pbrs", "pbrs_centred"}))
def test_modes_that_pay_otherwise_have_no_bounds(mode: str) -> None:
    assert value_bounds(ShapingSettings(mode), [0.5]) is None
    assert value_bounds(ShapingSettings("pbrs", occupancy=0.1), [0.5]) is None


def _distances(rule: Any, seed: int, steps: int) -> tuple[float, float]:
    """EPIC and STARC distance between task reward and shaped on a random task with terminal states."""
    task = random_task(np.random.default_rng(seed), steps=steps)
    shaped = task.shaped(rule)
    discount = task.discount**steps
    return (
        float(epic_distance(task.reward, shaped.reward, discount, terminal=task.terminal)),
        float(starc_distance(task.reward, shaped.reward, task.transition, discount, terminal=task.terminal)),
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("steps", [1, 5])
def test_reward_distances_to_task_reward_vanish_for_the_right_shaping_only(seed: int, steps: int) -> None:
    epic, starc = _distances(shaped_reward, seed, steps)
    assert epic < 1e-3
    assert starc < 1e-3
    for wrong in (keeps_terminal_potential, progress_as_reward):
        epic, starc = _distances(wrong, seed, steps)
        assert epic > 0.01
        assert starc > 0.01
