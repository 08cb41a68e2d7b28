"""The shaping checker: tests any shaping rule on tasks that can be solved exactly.

    from robo_rm import shaped_reward
    from robo_rm.shaping.checker import check_shaping
    check_shaping(shaped_reward)

A rule that passes preserves the optimal policy on every task it was tried on. Wrong variants that are in use (the
potential of terminal states included, differences without the discount, progress added as a reward, g instead of g^k)
each fail a clause; tests check that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from robo_core.errors import ModelError
from robo_rm.shaping.tabular import ADVANCE, GIVE_UP, HOVER, ShapingRule, hover_task, random_task

TASKS = 20
TOLERANCE = 1e-6
TEMPERATURE = 0.3
SUCCESS_RATES = (0.005, 0.01, 0.02)


class Clause(NamedTuple):
    """One clause and whether the rule satisfies it."""

    name: str
    passed: bool
    detail: str


def check_shaping(rule: ShapingRule, *, seed: int = 0, raise_on_failure: bool = True) -> list[Clause]:
    """Test ``rule(task_reward, potential, next_potential, terminated, discount, steps)``, arrays in, array out.

    The clauses: the agent advances where the last step rarely works and a failure looks nearly done, neither hovering
    nor giving up; optimal actions of random tasks stay, at every state, with actions of 1 and 5 steps; their
    maximum-entropy policies stay too; over an episode only the endpoints' potentials are left, at a terminal state and
    at a time limit.

    Raises:
        ModelError: clauses are broken (all are named), unless ``raise_on_failure`` is False.
    """
    clauses = list(_clauses(rule, np.random.default_rng(seed)))
    broken = [clause for clause in clauses if not clause.passed]
    if broken and raise_on_failure:
        raise ModelError(
            "the shaping changes the optimal policy: " + "; ".join(f"{c.name}: {c.detail}" for c in broken)
        )
    return clauses


def _clauses(rule: ShapingRule, rng: np.random.Generator) -> Iterator[Clause]:
    tried: list[tuple[str, Callable[[], str]]] = [
        ("advances", lambda: _advances(rule)),
        ("optimal actions", lambda: _same_best_actions(rule, rng)),
        ("soft policies", lambda: _same_soft_policies(rule, rng)),
        ("telescopes to a terminal state", lambda: _telescopes(rule, rng, terminal=True)),
        ("telescopes to a time limit", lambda: _telescopes(rule, rng, terminal=False)),
    ]
    for name, try_it in tried:
        fault = try_it()
        yield Clause(name, not fault, fault or "satisfied")


def _advances(rule: ShapingRule) -> str:
    for success in SUCCESS_RATES:
        task = hover_task(success)
        best = task.shaped(rule).action_values().argmax(axis=1)[~task.terminal]
        wrong = {HOVER: "hovers", GIVE_UP: "gives up for a failure that looks good"}
        for state, action in enumerate(best.tolist()):
            if action != ADVANCE:
                return f"with {success:.1%} success at the last step, the best policy {wrong[action]} in state {state}"
    return ""


def _same_best_actions(rule: ShapingRule, rng: np.random.Generator) -> str:
    for number in range(TASKS):
        task = random_task(rng, steps=1 if number % 2 else 5)
        shaped = task.shaped(rule)
        if not np.array_equal(task.best_actions(), shaped.best_actions()):
            where = np.argwhere(task.best_actions() != shaped.best_actions())[0]
            return f"random task {number} (actions of {task.steps} steps): another action is best in state {where[0]}"
    return ""


def _same_soft_policies(rule: ShapingRule, rng: np.random.Generator) -> str:
    for number in range(TASKS):
        task = random_task(rng, steps=1 if number % 2 else 5)
        change = np.abs(task.soft_policy(TEMPERATURE) - task.shaped(rule).soft_policy(TEMPERATURE)).max()
        if change > TOLERANCE:
            return f"random task {number}: an action's probability moves by {change:.2g}"
    return ""


def _telescopes(rule: ShapingRule, rng: np.random.Generator, terminal: bool) -> str:
    discount = 0.97
    for _ in range(TASKS):
        count = int(rng.integers(1, 30))
        steps = rng.integers(1, 6, count)
        potential = rng.uniform(0, 1, count + 1)
        ended = np.zeros(count, dtype=bool)
        ended[-1] = terminal
        made = np.asarray(rule(np.zeros(count), potential[:-1], potential[1:], ended, discount, steps))
        before = np.concatenate([[0], np.cumsum(steps)[:-1]])
        total = float(np.sum(made * discount**before))
        expected = -potential[0] + (0.0 if terminal else discount ** float(steps.sum()) * potential[-1])
        if abs(total - expected) > TOLERANCE:
            return f"an episode of {count} actions sums to {total:.4f}, its endpoints alone give {expected:.4f}"
    return ""
