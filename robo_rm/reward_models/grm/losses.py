"""The losses of the hop model: of hops that are known, and of hops that are only known to lie in an interval."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from robo_rm.reward_models.grm.network import Compared, HopNetwork
from robo_rm.reward_models.grm.settings import HopLoss


def hop_loss(
    network: HopNetwork,
    seen: Compared,
    low: torch.Tensor,
    high: torch.Tensor,
    stage: torch.Tensor,
    settings: HopLoss,
) -> dict[str, torch.Tensor]:
    """Losses of B hops that are known to lie in [low, high], (B,) each, and of the ``stage`` (B,) where they lead.

    A known hop (low = high) has the cross-entropy against the two neighbouring points whose mean it is. One in an
    interval has the negative logarithm of all the chance that lies there, and no loss at all once everything does.
    ``value`` is the squared distance of the expected hop from the interval. ``stage`` is the cross-entropy of the stage
    head, where there is one, over the hops whose stage is not -1.
    """
    logits = seen.hop
    points = network.points
    step = points[1] - points[0]
    # Weight of each point: 1 inside, falling to 0 over one step outside. For low = high that is the two-point target.
    outside = torch.maximum(low[:, None] - points, points - high[:, None]).clamp(min=0)
    weight = (1 - outside / step).clamp(min=0)
    logs = logits.log_softmax(-1)
    known = low >= high
    entropy = -(weight * logs).sum(-1)
    inside = -torch.logsumexp(logs + weight.clamp(min=1e-12).log(), dim=-1)
    expected = network.expected(logits).value
    distance = (low - expected).clamp(min=0) + (expected - high).clamp(min=0)
    terms = {
        "distribution": torch.where(known, entropy, inside).mean(),
        "value": distance.square().mean(),
        "stage": logits.new_zeros(()),
    }
    labelled = stage >= 0
    if seen.stage is not None and bool(labelled.any()):
        terms["stage"] = cross_entropy(seen.stage[labelled], stage[labelled])
    total = sum(getattr(settings, name) * term for name, term in terms.items())
    return {"total": torch.as_tensor(total), **terms}
