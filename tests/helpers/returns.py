"""Returns over macro-actions, to check rewards against."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def n_step_return(rewards: npt.ArrayLike, steps: npt.ArrayLike, discount: float) -> tuple[float, int]:
    """sum_j g^(steps before j) r_j over macro-actions (n,) in sequence, and the environment steps they took."""
    values, lasted = np.asarray(rewards, dtype=np.float64), np.asarray(steps, dtype=np.int64)
    before = np.concatenate([[0], np.cumsum(lasted)[:-1]])
    return float(np.sum(values * discount**before)), int(lasted.sum())
