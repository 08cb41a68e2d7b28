"""Types that all rooms share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
BehaviorPrior: TypeAlias = Callable[[Mapping[str, Floats]], Floats]
"""A cloned policy: observations {key: (n, D)} to actions (n, A) in [-1, 1]."""


class TransitionColumns(TypedDict):
    """N transitions, one array (N, ...) for each field that the replay buffer stores.

    Attributes:
        observation: (N, O) without the potential.
        next_observation: (N, O) what it really led to, the last observation of its episode included.
        action: (N, A) in [-1, 1].
        next_prior_action: (N, A) the behaviour prior's action there; zeros without one.
        task_reward: (N,) discounted sum over the macro-action.
        potential: (N,) Phi where it was chosen.
        next_potential: (N,) Phi where it ended; 0 where the task did.
        start_potential: (N,) Phi at the start of its episode.
        terminated: (N,) the task ended.
        truncated: (N,) the time ran out.
        steps: (N,) control steps it took.
        episode: (N,) number that is the same for all transitions of an episode.
    """

    observation: Floats
    next_observation: Floats
    action: Floats
    next_prior_action: Floats
    task_reward: npt.NDArray[np.float64]
    potential: npt.NDArray[np.float64]
    next_potential: npt.NDArray[np.float64]
    start_potential: npt.NDArray[np.float64]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    steps: npt.NDArray[np.int64]
    episode: npt.NDArray[np.int64]
