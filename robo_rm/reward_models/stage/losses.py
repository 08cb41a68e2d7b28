"""The masked losses of the stage-aware model: a frame trains only what is known of it, padding trains nothing."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from robo_rm.reward_models.stage.network import Heads, compose
from robo_rm.settings import LossSettings


class Targets(NamedTuple):
    """Labels of B windows of S slots, (B, S) each; see `robo_rm.labels.plan.Windows`."""

    supervised: torch.Tensor
    stage: torch.Tensor
    within: torch.Tensor
    progress: torch.Tensor
    complete: torch.Tensor


def stage_loss(
    heads: Heads, targets: Targets, cumulative: torch.Tensor, settings: LossSettings
) -> dict[str, torch.Tensor]:
    """Mean losses over the frames that each may train on; ``total`` is their weighted sum.

    The stage trains on every supervised frame. The share within the stage and the progress train only where the
    segment was finished: how far a stage had got when a failure cut it off is not known. With ``settings.unfinished``
    they are held to the stage's beginning there, with that weight.
    """
    seen = targets.supervised
    known = seen * torch.where(targets.complete, 1.0, settings.unfinished)
    stage = targets.stage.clamp(min=0)
    entropy = F.cross_entropy(heads.logits.flatten(0, 1), stage.flatten(), reduction="none").view_as(seen)
    share = heads.within.gather(-1, stage[..., None])[..., 0]
    progress = compose(heads, cumulative)[0]
    terms = {
        "stage": _mean(entropy, seen),
        "within": _mean((share - targets.within).square(), known),
        "progress": _mean((progress - targets.progress.nan_to_num()).square(), known),
    }
    total = sum(getattr(settings, name) * term for name, term in terms.items())
    return {"total": torch.as_tensor(total), **terms}


def _mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean; 0 where nothing counts."""
    weight = weight.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1)
