"""The losses of soft actor-critic as functions of networks and tensors alone.

Random draws come in as arguments: the noise, and which two target critics are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from robo_policies.rl.modules.actor_critic import CriticEnsemble, SquashedGaussianActor


def critic_loss(
    actor: SquashedGaussianActor,
    critics: CriticEnsemble,
    targets: CriticEnsemble,
    batch: Mapping[str, torch.Tensor],
    noise: torch.Tensor,
    pair: torch.Tensor,
    use_prior: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared error of the critics against the Bellman target, and the critics' mean value.

    With a' of the actor, a_p of the behaviour prior, and min over two target critics,

        V(s') = max(min Q_target(s', a'), min Q_target(s', a_p))         (IBRL; the first alone without a prior)
        y = r + bootstrap * clip(V(s'), low, high)
        loss = sum over critics of mean (Q(s, a) - y)^2

    There is no entropy in the target (RLPD, arXiv 2302.02948).

    Args:
        actor: acts at the next observation.
        critics: learn.
        targets: evaluate what follows.
        batch: fields of a `Batch` as tensors (B, ...), and ``low`` and ``high`` (B,), the bounds on the value of the
            next observation.
        noise: (B, A) standard normal, for the actor.
        pair: (2,) the target critics used.
        use_prior: whether ``next_prior_action`` is bootstrapped from where it is worth more.
    """
    following = batch["next_observation"]
    with torch.no_grad():
        action, _ = actor(following, noise)
        if use_prior:
            # One pass for both: on a CPU the calls cost as much as the products.
            both = targets(following.repeat(2, 1), torch.cat([action, batch["next_prior_action"]]), pair)
            value = both.min(dim=0).values.view(2, -1).max(dim=0).values
        else:
            value = targets(following, action, pair).min(dim=0).values
        # Critics extrapolate freely for untried actions; what no policy can reach must not enter the target.
        value = torch.minimum(torch.maximum(value, batch["low"]), batch["high"])
        target = batch["reward"] + batch["bootstrap"] * value
    values = critics(batch["observation"], batch["action"])
    return (values - target).square().mean(dim=1).sum(), values.detach().mean()


def actor_loss(
    actor: SquashedGaussianActor,
    value_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    observation: torch.Tensor,
    action: torch.Tensor,
    noise: torch.Tensor,
    temperature: torch.Tensor,
    imitation_weight: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of the actor, and the mean log-density of its actions.

    With a_pi of the actor, a the action of the batch, w the imitation weight and 1[.] the Q-filter,

        loss = mean(temperature log pi(a_pi) - Q(s, a_pi)) + w mean|Q| mean(1[Q(s, a) > Q(s, a_pi)] (a_pi - a)^2)

    Critics know the actions that were tried, and may claim anything of others: along their gradient an actor finds
    such claims, next to an action that was tried and is better (the filter of arXiv 1709.10089 and of CRR, arXiv
    2006.15134). mean|Q| makes the weight independent of the scale of the rewards.

    Args:
        actor: learns.
        value_of: value (B,) of observations (B, O + 1) and actions (B, A), by critics that do not learn here.
        observation: (B, O + 1).
        action: (B, A) the demonstrators' or the learner's own.
        noise: (B, A) standard normal.
        temperature: of the entropy.
        imitation_weight: w.
    """
    own, log_density = actor(observation, noise)
    value = value_of(observation, own)
    loss = (temperature * log_density - value).mean()
    if imitation_weight:
        with torch.no_grad():
            better = value_of(observation, action) > value
            scale = value.abs().mean()
        distance = (own - action).square().mean(dim=-1)
        loss = loss + imitation_weight * scale * (better * distance).mean()
    return loss, log_density.detach().mean()
