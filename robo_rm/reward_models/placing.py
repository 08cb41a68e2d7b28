"""Stages for models that only know progress, so that they are evaluated by the same figures.

A model without stages carries the stage names and priors of its training split, and a progress y lies in the stage k
with P_k <= y < P_(k+1). With a little softness that gives stage probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from robo_core.errors import LabelError
from robo_rm.labels.progress import cumulative_priors, training_priors

# Standard deviation of progress for a model that claims none; small beside any stage.
SOFTNESS = 0.02
WHOLE_TASK = "the whole task"


def place_in_stages(progress: npt.ArrayLike, spread: npt.ArrayLike, priors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Stage probabilities (T, K): the mass of a normal distribution about the progress between P_k and P_(k+1).

    Args:
        progress: (T,) in [0, 1].
        spread: (T,), its standard deviation; `SOFTNESS` at least.
        priors: (K,) shares of the stages.
    """
    inner = cumulative_priors(priors)[1:-1]
    centre = np.asarray(progress, dtype=np.float64)[:, None]
    width = np.maximum(np.asarray(spread, dtype=np.float64), SOFTNESS)[:, None]
    below = ndtr((inner[None, :] - centre) / width)
    edges = np.concatenate([np.zeros_like(centre), below, np.ones_like(centre)], axis=1)
    return np.maximum(np.diff(edges, axis=1), 0).astype(np.float32)


def stages_and_priors(store: Any, train: Sequence[Any]) -> tuple[list[str], list[float]]:
    """Stage names and priors to place progress by: of the training split, or one stage where nothing is labelled."""
    stages = list(store.stages)
    if len(stages) > 1:
        try:
            return stages, training_priors(train, len(stages)).tolist()
        except LabelError:
            # Names without labels: equal shares are as good as any.
            return stages, [1 / len(stages)] * len(stages)
    return stages or [WHOLE_TASK], [1.0]
