"""The learning rate over a training: a linear warm-up times a cosine, as factors for `torch.optim.lr_scheduler`."""

from __future__ import annotations

import math


def warmup_cosine(fraction: float, warmed: float, floor: float) -> float:
    """Fraction of the peak learning rate.

    Args:
        fraction: how much of the training is done; 1 and more at its end.
        warmed: how much of the warm-up is done; above 1 it is over.
        floor: what the cosine falls to.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * min(max(fraction, 0.0), 1.0)))
    return min(1.0, warmed) * (floor + (1 - floor) * cosine)
