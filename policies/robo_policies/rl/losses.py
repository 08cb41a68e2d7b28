"""The losses of soft actor-critic as functions of networks and tensors alone.

What is drawn at random comes in as an argument: the noise, and which two critics count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from robo_policies.rl.networks import Actor, Critics


def critic_loss(
    actor: Actor,
    critics: Critics,
    targets: Critics,
    parts: Mapping[str, torch.Tensor],
    noise: torch.Tensor,
    pair: torch.Tensor,
    proposals: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared error of the critics against reward + bootstrap * (least of two target critics), and their mean value.

    Args:
        actor: acts at the next observation.
        critics: learn.
        targets: judge what follows.
        parts: fields of a `Batch` as tensors (B, ...), and ``low`` and ``high`` (B,), between which the value of the
            next observation must lie.
        noise: (B, A) standard normal, for the actor.
        pair: (2,) which target critics count.
        proposals: whether ``next_proposal`` is bootstrapped from where it is worth more (IBRL).
    """
    after = parts["next_observation"]
    with torch.no_grad():
        action, _ = actor(after, noise)
        if proposals:
            # One pass for both: on a CPU the calls cost as much as the products.
            both = targets(after.repeat(2, 1), torch.cat([action, parts["next_proposal"]]), pair)
            value = both.min(dim=0).values.view(2, -1).max(dim=0).values
        else:
            value = targets(after, action, pair).min(dim=0).values
        # A critic that is asked about actions nobody tried claims anything; what cannot be is not learnt from.
        value = torch.minimum(torch.maximum(value, parts["low"]), parts["high"])
        aim = parts["reward"] + parts["bootstrap"] * value
    values = critics(parts["observation"], parts["action"])
    return (values - aim).square().mean(dim=1).sum(), values.detach().mean()


def actor_loss(
    actor: Actor,
    judge: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    seen: torch.Tensor,
    action: torch.Tensor,
    noise: torch.Tensor,
    temperature: torch.Tensor,
    imitation: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Entropy's price less value, plus staying near what was done where that is worth more; and the mean density.

    Critics know the actions that were tried, and may claim anything of others: along their gradient an actor finds the
    claims, beside the action that was tried and found better (the filter of arXiv 1709.10089 and of CRR, arXiv
    2006.15134).

    Args:
        actor: learns.
        judge: value (B,) of observations (B, O + 1) and actions (B, A), by critics that do not learn here.
        seen: (B, O + 1).
        action: (B, A) what was done there, by demonstrators or by the learner.
        noise: (B, A) standard normal.
        temperature: of the entropy.
        imitation: weight of staying near what was done.
    """
    own, density = actor(seen, noise)
    value = judge(seen, own)
    loss = (temperature * density - value).mean()
    if imitation:
        with torch.no_grad():
            better = judge(seen, action) > value
            scale = value.abs().mean()
        near = (own - action).square().mean(dim=-1)
        loss = loss + imitation * scale * (better * near).mean()
    return loss, density.detach().mean()
