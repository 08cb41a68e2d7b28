"""Potential-based shaping that leaves the best policy what it is, for transitions of any length.

Ng, Harada and Russell (1999, "Policy invariance under reward transformations"), for decisions that last k environment
steps and potentials of a history h:

    r_shaped = r_gold + g^k (1 - terminated) F(h') - F(h)

What has to be right, and is tested in `robo_rm.shaping.checker`:

- at a terminal state the next potential is 0, whatever the model says of that state; otherwise an agent is paid for
  ending where it looks good;
- a truncated episode (time limit) is not a terminal state: the potential of its last observation counts, and the
  critic bootstraps from it;
- a decision of k steps discounts by g^k, and its gold is the discounted sum within the decision; a decision cut short
  by the end of the episode counts the steps that it really took;
- over n decisions only the endpoints' potentials are left (they telescope).

The critic of the shaped task is the critic of the gold task minus F(h), so it must see what F depends on.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch

from robo_core.errors import ConfigError

Array = npt.NDArray[np.float64]


@overload
def shaped_reward(
    gold: torch.Tensor,
    potential: torch.Tensor,
    next_potential: torch.Tensor,
    terminated: torch.Tensor,
    discount: float,
    steps: torch.Tensor | int = 1,
) -> torch.Tensor: ...


@overload
def shaped_reward(
    gold: npt.ArrayLike,
    potential: npt.ArrayLike,
    next_potential: npt.ArrayLike,
    terminated: npt.ArrayLike,
    discount: float,
    steps: npt.ArrayLike = 1,
) -> Array: ...


def shaped_reward(
    gold: Any, potential: Any, next_potential: Any, terminated: Any, discount: float, steps: Any = 1
) -> Any:
    """Gold reward plus potential-based shaping.

    Args:
        gold: (...) reward of the transition; over a decision of several steps, their discounted sum
            (`decision_gold`).
        potential: (...) F(h) where the decision was taken.
        next_potential: (...) F(h') where it ended: the *final observation's* for a truncated episode. Ignored where
            ``terminated``.
        terminated: (...) bool; the task ended there. False for a time limit.
        discount: g of the learner for one environment step, in (0, 1].
        steps: (...) environment steps that the decision took, at least 1.

    Returns:
        Array or tensor of the broadcast shape. Torch in, torch out; else float64.

    Raises:
        ConfigError: a discount outside (0, 1], fewer than one step, NaN or infinity anywhere that counts.
    """
    check_discount(discount)
    if isinstance(gold, torch.Tensor):
        return _shaped_tensor(gold, potential, next_potential, terminated, discount, steps)
    lasted = np.asarray(steps)
    after = np.where(np.asarray(terminated, dtype=bool), 0.0, np.asarray(next_potential, dtype=np.float64))
    reward = np.asarray(gold, dtype=np.float64) + np.power(float(discount), lasted) * after
    reward = reward - np.asarray(potential, dtype=np.float64)
    _check(bool(np.all(lasted >= 1)), bool(np.isfinite(reward).all()))
    return reward


def _shaped_tensor(
    gold: torch.Tensor,
    potential: torch.Tensor,
    next_potential: torch.Tensor,
    terminated: Any,
    discount: float,
    steps: Any,
) -> torch.Tensor:
    lasted = torch.as_tensor(steps, device=gold.device)
    after = torch.where(terminated.to(torch.bool), torch.zeros_like(next_potential), next_potential)
    reward = gold + discount ** lasted.to(gold.dtype) * after - potential
    _check(bool((lasted >= 1).all()), bool(torch.isfinite(reward).all()))
    return reward


def decision_gold(rewards: npt.ArrayLike, discount: float) -> float:
    """Discounted sum of the gold rewards within one decision: sum_i g^i r_i over its steps (k,).

    Raises:
        ConfigError: no step, NaN or infinity, or a discount outside (0, 1].
    """
    check_discount(discount)
    values = np.asarray(rewards, dtype=np.float64).ravel()
    _check(len(values) >= 1, bool(np.isfinite(values).all()))
    return float(np.sum(values * np.power(float(discount), np.arange(len(values)))))


def n_step_return(rewards: npt.ArrayLike, steps: npt.ArrayLike, discount: float) -> tuple[float, int]:
    """Return over n decisions that follow each other, and the environment steps they took.

    Args:
        rewards: (n,) rewards of the decisions, shaped or not; of shaped ones only the endpoints' potentials are left.
        steps: (n,) environment steps of each.
        discount: g for one environment step.

    Returns:
        sum_j g^(steps before j) r_j, and the exponent of g for the bootstrap.

    Raises:
        ConfigError: as `shaped_reward`; or the lengths differ.
    """
    check_discount(discount)
    values, lasted = np.asarray(rewards, dtype=np.float64), np.asarray(steps, dtype=np.int64)
    if values.shape != lasted.shape or values.ndim != 1:
        raise ConfigError(f"rewards {values.shape} and steps {lasted.shape} must be of one length (n,)")
    _check(len(values) >= 1 and bool(np.all(lasted >= 1)), bool(np.isfinite(values).all()))
    before = np.concatenate([[0], np.cumsum(lasted)[:-1]])
    return float(np.sum(values * np.power(float(discount), before))), int(lasted.sum())


def check_discount(discount: float) -> None:
    """Raise ConfigError unless the discount lies in (0, 1]."""
    if not 0.0 < discount <= 1.0:
        raise ConfigError(f"discount={discount}: give a number above 0, up to 1")


def _check(steps: bool, finite: bool) -> None:
    if not steps:
        raise ConfigError("a decision takes at least one environment step; steps below 1 were given")
    if not finite:
        raise ConfigError(
            "NaN or infinity in a gold reward or a potential; the reward model or the environment made it, "
            "and learning from it would spoil the policy"
        )
