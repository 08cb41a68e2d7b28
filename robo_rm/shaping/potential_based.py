"""Where the potential is subtracted: potential-based shaping, for transitions of any length.

Ng, Harada and Russell (1999, "Policy invariance under reward transformations"), for macro-actions that last k
environment steps and potentials Phi of a history h:

    r = r_task + g^k (1 - terminated) Phi(h') - Phi(h)

The optimal policies stay optimal, whatever Phi is. What has to be right, and is tested by `robo_rm.shaping.checker`:

- At a terminal state the next potential is 0, whatever the model says of that state. Otherwise an agent is paid for
  ending where it looks good.
- A truncated episode (time limit) is not terminal: the potential of its last observation counts, and the critic
  bootstraps from it.
- A macro-action of k steps is discounted by g^k, and its task reward is the discounted sum over its steps. If the end
  of the episode cuts it short, k is the number of steps really taken.
- Over n macro-actions only the potentials at the two ends remain: the sum telescopes.

The critic of the shaped task is the critic of the unshaped task minus Phi(h), so it must observe what Phi depends on.
"""

from __future__ import annotations

from typing import TypeAlias, overload

import numpy as np
import numpy.typing as npt
import torch

from robo_core.errors import ConfigError

Array: TypeAlias = npt.NDArray[np.float64]


@overload
def shaped_reward(
    task_reward: torch.Tensor,
    potential: torch.Tensor,
    next_potential: torch.Tensor,
    terminated: torch.Tensor,
    discount: float,
    steps: torch.Tensor | int = 1,
) -> torch.Tensor: ...


@overload
def shaped_reward(
    task_reward: npt.ArrayLike,
    potential: npt.ArrayLike,
    next_potential: npt.ArrayLike,
    terminated: npt.ArrayLike,
    discount: float,
    steps: npt.ArrayLike = 1,
) -> Array: ...


def shaped_reward(
    task_reward: npt.ArrayLike | torch.Tensor,
    potential: npt.ArrayLike | torch.Tensor,
    next_potential: npt.ArrayLike | torch.Tensor,
    terminated: npt.ArrayLike | torch.Tensor,
    discount: float,
    steps: npt.ArrayLike | torch.Tensor = 1,
) -> Array | torch.Tensor:
    """Task reward plus potential-based shaping.

    Args:
        task_reward: (...) reward of the transition; for a macro-action the discounted sum over its steps
            (`macro_action_reward`).
        potential: (...) Phi(h) where the action was chosen.
        next_potential: (...) Phi(h') where it ended: the *final observation's* for a truncated episode. Ignored where
            ``terminated``.
        terminated: (...) bool; the task ended there. False for a time limit.
        discount: g of the learner for one environment step, in (0, 1].
        steps: (...) environment steps taken, at least 1.

    Returns:
        Array or tensor of the broadcast shape: a tensor if ``task_reward`` is one, else float64.

    Raises:
        ConfigError: a discount outside (0, 1], fewer than one step, or NaN or infinity anywhere that counts.
    """
    check_discount(discount)
    if isinstance(task_reward, torch.Tensor):
        device, dtype = task_reward.device, task_reward.dtype
        taken = torch.as_tensor(steps, device=device)
        before, after = (torch.as_tensor(value, device=device) for value in (potential, next_potential))
        # (1 - terminated) Phi(h') by selection, not by multiplication: 0 * NaN would be NaN.
        after = torch.where(torch.as_tensor(terminated, device=device).to(torch.bool), torch.zeros_like(after), after)
        tensor = task_reward + discount ** taken.to(dtype) * after - before
        _check(bool((taken >= 1).all()), bool(torch.isfinite(tensor).all()))
        return tensor
    lasted = np.asarray(steps)
    next_phi = np.where(np.asarray(terminated, dtype=bool), 0.0, np.asarray(next_potential, dtype=np.float64))
    reward: Array = np.asarray(task_reward, dtype=np.float64) + np.power(float(discount), lasted) * next_phi
    reward = reward - np.asarray(potential, dtype=np.float64)
    _check(bool(np.all(lasted >= 1)), bool(np.isfinite(reward).all()))
    return reward


def macro_action_reward(rewards: npt.ArrayLike, discount: float) -> float:
    """Task reward of a macro-action: sum_i g^i r_i over the rewards (k,) of its steps.

    Raises:
        ConfigError: no step, NaN or infinity, or a discount outside (0, 1].
    """
    check_discount(discount)
    values = np.asarray(rewards, dtype=np.float64).ravel()
    _check(len(values) >= 1, bool(np.isfinite(values).all()))
    return float(np.sum(values * np.power(float(discount), np.arange(len(values)))))


def check_discount(discount: float) -> None:
    """Raise ConfigError unless the discount lies in (0, 1]."""
    if not 0.0 < discount <= 1.0:
        raise ConfigError(f"discount={discount}: give a number above 0, up to 1")


def _check(steps: bool, finite: bool) -> None:
    if not steps:
        raise ConfigError("a macro-action takes at least one environment step; got fewer")
    if not finite:
        raise ConfigError(
            "NaN or infinity in a task reward or a potential, from the reward model or the environment; "
            "learning from it would spoil the policy"
        )
