"""From perspectives to progress: the three-way fusion and the consistency gate of Robo-Dopamine (arXiv 2512.23703).

    incremental  F_I(t) = F(t-1) + (1 - F(t-1)) H  if H >= 0,  else  F(t-1) + F(t-1) H
    forward      F_F(t) = H(start, t)              backward   F_B(t) = 1 + H(goal, t)
    mean         F = (F_I + F_F + F_B) / 3
    gated        Fm = (F_F + F_B) / 2,  d = |F_B - F_F| / (Fm + e),  w = exp(-alpha d^2)
                 F(t) = F(t-1) + (w / 2) (Fm - F(t-1) + dF_I),  dF_I = F_I(t) - F(t-1)

All are clamped to [0, 1]. "t-1" is the moment one gap earlier: hops between neighbouring video frames are smaller than
what a model can tell. Incremental hops alone add up their errors without end; the forward and the backward perspective
look at the references only, and hold that drift. Where those two disagree, the picture is unlike anything trained on,
and the gate keeps the progress where it was.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from robo_rm.reward_models.grm.settings import HopSettings


class Perspectives(NamedTuple):
    """What the network says of a moment: expected values, and their variances."""

    hop: float
    """H from the moment one gap earlier."""
    forward: float
    """F_F = H(start, t), not clamped."""
    backward: float
    """F_B = 1 + H(goal, t), not clamped."""
    hop_variance: float = 0.0
    forward_variance: float = 0.0
    backward_variance: float = 0.0
    stage: tuple[float, ...] | None = None
    """(K,) probabilities of the stages, from a model with a stage head."""


class Fused(NamedTuple):
    """Progress in [0, 1], its uncertainty (a standard deviation), and the perspectives it was made of, clamped."""

    progress: float
    uncertainty: float
    incremental: float
    forward: float
    backward: float
    weight: float
    """w of the gate, in (0, 1]."""


def fuse(seen: Perspectives, before: float | None, settings: HopSettings) -> Fused:
    """Progress of a moment.

    Args:
        seen: what the network says of it.
        before: F at the moment one gap earlier; None at the first frame, where there is no hop.
        settings: fusion, alpha and epsilon are read.
    """
    forward, backward = _clamp(seen.forward), _clamp(seen.backward)
    middle = (forward + backward) / 2
    apart = abs(backward - forward) / (middle + settings.epsilon)
    weight = math.exp(-settings.alpha * apart * apart)
    if before is None:
        incremental, way = (forward if settings.fusion == "incremental" else middle), 0.0
    else:
        way = 1 - before if seen.hop >= 0 else before
        incremental = _clamp(before + way * seen.hop)
    variances = {
        "incremental": way * way * seen.hop_variance,
        "forward": seen.forward_variance,
        "backward": seen.backward_variance,
    }
    values = {"incremental": incremental, "forward": forward, "backward": backward}
    if settings.fusion in values:
        progress, variance = values[settings.fusion], variances[settings.fusion]
    else:
        if settings.fusion == "mean" or before is None:
            progress = (incremental + forward + backward) / 3
        else:
            progress = before + weight / 2 * (middle - before + incremental - before)
        average = sum(values.values()) / 3
        variance = sum(variances.values()) / 3 + sum((value - average) ** 2 for value in values.values()) / 3
    return Fused(_clamp(progress), math.sqrt(variance), incremental, forward, backward, weight)


def _clamp(value: float) -> float:
    return min(max(value, 0.0), 1.0)
