"""Small Markov decision processes that can be solved exactly: what shaping is tested on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]

# rule(task_reward, potential, next_potential, terminated, discount, steps) -> reward: the signature of `shaped_reward`.
ShapingRule: TypeAlias = Callable[
    [
        npt.NDArray[np.float64],
        npt.NDArray[np.float64],
        npt.NDArray[np.float64],
        npt.NDArray[np.bool_],
        float,
        npt.ArrayLike,
    ],
    npt.ArrayLike,
]

HOVER, ADVANCE, GIVE_UP = 0, 1, 2


@dataclass(frozen=True)
class TabularTask:
    """A Markov decision process with terminal states.

    Attributes:
        transition: (S, A, S) probabilities.
        reward: (S, A, S), gained on the transition.
        terminal: (S,) bool; nothing is gained after them.
        discount: g.
        potential: (S,) what a reward model says of each state, terminal ones included.
        steps: environment steps that each action lasts, for g^k.
    """

    transition: Array
    reward: Array
    terminal: npt.NDArray[np.bool_]
    discount: float
    potential: Array
    steps: int = 1

    def shaped(self, rule: ShapingRule) -> TabularTask:
        """The same task with its reward put through ``rule`` and this potential."""
        shape = self.reward.shape
        before = np.broadcast_to(self.potential[:, None, None], shape)
        after = np.broadcast_to(self.potential[None, None, :], shape)
        ended = np.broadcast_to(self.terminal[None, None, :], shape)
        made = np.asarray(rule(self.reward, before, after, ended, self.discount, self.steps), dtype=np.float64)
        return replace(self, reward=made)

    def action_values(self, temperature: float = 0.0, tolerance: float = 1e-12) -> Array:
        """(S, A) optimal action values; with a temperature those of the maximum-entropy ("soft") problem.

        Hard: V = max_a Q. Soft: V = temperature * logsumexp(Q / temperature). Value iteration until no value moves by
        more than ``tolerance``.
        """
        keep = self.discount**self.steps * ~self.terminal
        gain = (self.transition * self.reward).sum(axis=2)
        value = np.zeros(len(self.terminal))
        while True:
            q = gain + self.transition @ (keep * value)
            top = q.max(axis=1)
            new = top
            if temperature > 0:
                new = top + temperature * np.log(np.exp((q - top[:, None]) / temperature).sum(axis=1))
            if np.abs(new - value).max() < tolerance:
                return np.asarray(q, dtype=np.float64)
            value = new

    def best_actions(self, margin: float = 1e-8) -> npt.NDArray[np.bool_]:
        """(S, A) which actions are optimal, ties within ``margin`` included; all False in terminal states."""
        q = self.action_values()
        best: npt.NDArray[np.bool_] = (q >= q.max(axis=1, keepdims=True) - margin) & ~self.terminal[:, None]
        return best

    def soft_policy(self, temperature: float) -> Array:
        """(S, A) optimal maximum-entropy policy, softmax(Q / temperature); rows of terminal states are uniform."""
        q = self.action_values(temperature) / temperature
        weight = np.exp(q - q.max(axis=1, keepdims=True))
        weight[self.terminal] = 1.0
        return np.asarray(weight / weight.sum(axis=1, keepdims=True), dtype=np.float64)


def hover_task(success: float = 0.01, length: int = 10, discount: float = 0.99, steps: int = 1) -> TabularTask:
    """The trap of progress rewards: the last step rarely works, and a failure looks nearly done.

    States 0 .. length - 1 advance one by one and look from 0 to 95 % done. From the last one, advancing succeeds with
    the given probability (task reward 1, looks done) and otherwise ends in a failure that looks 90 % done. Hovering
    stays in place; giving up, possible anywhere, ends in that failure at once. Only advancing ever gains task reward.
    """
    goal, failed = length, length + 1
    count = length + 2
    transition = np.zeros((count, 3, count))
    for state in range(length):
        transition[state, HOVER, state] = 1.0
        transition[state, GIVE_UP, failed] = 1.0
        if state < length - 1:
            transition[state, ADVANCE, state + 1] = 1.0
    transition[length - 1, ADVANCE, goal] = success
    transition[length - 1, ADVANCE, failed] = 1.0 - success
    for state in (goal, failed):
        transition[state, :, state] = 1.0
    reward = np.zeros((count, 3, count))
    reward[:length, :, goal] = 1.0
    potential = np.concatenate([np.linspace(0.0, 0.95, length), [1.0, 0.9]])
    terminal = np.arange(count) >= length
    return TabularTask(transition, reward, terminal, discount, potential, steps)


def random_task(
    rng: np.random.Generator, states: int = 7, actions: int = 3, discount: float = 0.95, steps: int = 1
) -> TabularTask:
    """A random task with one terminal state at least, random task reward and a potential from [-2, 2] everywhere."""
    transition = rng.dirichlet(np.full(states, 0.5), size=(states, actions))
    terminal = rng.random(states) < 0.25
    terminal[-1] = True
    terminal[0] = False
    transition[terminal] = np.eye(states)[terminal][:, None, :]
    reward = rng.normal(size=(states, actions, states))
    reward[terminal] = 0.0
    return TabularTask(transition, reward, terminal, discount, rng.uniform(-2, 2, states), steps)
