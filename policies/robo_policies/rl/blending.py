"""One critic for each term of the reward, and how the actor weighs them.

``multi_critic`` (SLIM, arXiv 2501.09905): each term has critics of its own, and the actor follows the sum of their
advantages, each divided by its spread, so that no term drowns the others by its scale,

    A(s, a) = sum_i A_i(s, a) / sigma_i,    A_i = Q_i(s, a) - Q_i(s, a2) with a2 another action of the actor.

``bilevel`` (BARFI, arXiv 2310.19007, section 4): the actor follows a blend whose weights phi and
discounts are learnt themselves, so that following it gains gold,

    r_phi = phi_1 gold + phi_2 auxiliary with the discount g^k + phi_3 auxiliary with the discount 0,
    d J_gold / d phi_i  ~  < grad J_gold , grad J_i >        (gradients by the actor's weights; each J_i over sigma_i)

This is the paper's implicit outer gradient with the first term of the series that stands for the inverse Hessian, that
is for one step of the actor; the paper's state-dependent weights and free discount are reduced to three numbers that
sum to 1, the share between phi_2 and phi_3 taking the place of the discount. The terms' values are divided by their
spreads as above: progress summed over an episode is a hundred times what gold can be, and a share would mean nothing.
The two gradients come from different halves of the batch, so that their noise does not agree with itself.

The auxiliary term is the potential after the decision, F(h'), paid as a reward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from robo_policies.rl.replay import Batch
from robo_policies.rl.sac import Sac
from robo_policies.rl.scaling import Scaling
from robo_policies.rl.settings import SacSettings
from robo_rm.shaping.settings import LEARNER_MODES

# Least spread of an advantage that counts, so that critics which know nothing yet are not blown up.
LEAST_SPREAD = 0.01
KEEP_SPREAD = 0.99
START = (0.5, 0.25, 0.25)
# Of the blend's logits, at each update of the actor.
OUTER_RATE = 0.05


class BlendedSac(Sac):
    """Soft actor-critic with critics for each term.

    Args:
        observation_size: O + 1, the potential included.
        action_size: A.
        settings: of the learner; its critics are those of each term.
        seed: of the weights and every draw.
        blend: ``multi_critic`` or ``bilevel``.
        proposals: whether a cloned policy proposes actions.
        device: cpu or cuda.
        scaling: as `Sac`.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        settings: SacSettings,
        seed: int,
        blend: str,
        proposals: bool = False,
        device: str = "cpu",
        scaling: Scaling | None = None,
    ) -> None:
        self.blend, self.terms = blend, len(LEARNER_MODES[blend])
        many = replace(settings, critics=settings.critics * self.terms)
        super().__init__(observation_size, action_size, many, seed, proposals, device, scaling)
        self.settings = settings
        start = np.log(START[: self.terms]) if blend == "bilevel" else np.zeros(self.terms)
        self._logits = torch.from_numpy(start.astype(np.float32)).to(device)
        self._spread = torch.ones(self.terms, device=device)
        self._gold = torch.zeros(0, device=device)

    @property
    def shares(self) -> torch.Tensor:
        """(terms,) what a spread of each term's advantage counts for the actor; 1 each for ``multi_critic``."""
        return torch.softmax(self._logits, dim=0) if self.blend == "bilevel" else torch.ones_like(self._spread)

    @property
    def weights(self) -> torch.Tensor:
        """(terms,) what a unit of each term's value counts for the actor."""
        return self.shares / self._spread

    def update(self, fresh: Batch, demonstrated: Batch | None) -> dict[str, float]:
        """As `Sac.update`; the figures have each term's weight and share as well."""
        batches = [fresh] if demonstrated is None else [fresh, demonstrated]
        self._gold = torch.from_numpy(np.concatenate([batch.gold for batch in batches])).to(self.device)
        figures = super().update(fresh, demonstrated)
        for name, weight, share in zip(LEARNER_MODES[self.blend], self.weights, self.shares, strict=True):
            figures |= {f"weight_{name}": float(weight), f"share_{name}": float(share)}
        return figures

    def _update_critics(self, parts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        after, gold, bootstrap = parts["next_observation"], self._gold, parts["bootstrap"]
        rest, none = parts["reward"] - gold, torch.zeros_like(bootstrap)
        rewards = torch.stack([gold, rest, rest][: self.terms])
        bootstraps = torch.stack([bootstrap, bootstrap, none][: self.terms])
        with torch.no_grad():
            following, _ = self.actor(after, self._noise(len(after)))
            value = self._least(after, following)
            if self.proposals:
                offered = self._least(after, parts["next_proposal"])
                better = self._weighed(offered) > self._weighed(value)
                value = torch.where(better, offered, value)
            aim = rewards + bootstraps * value
        values = self._by_term(self.critics(parts["observation"], parts["action"]))
        loss = (values - aim[:, None]).square().mean(dim=2).sum()
        self._critic_steps.zero_grad()
        loss.backward()
        self._critic_steps.step()
        return {"critic_loss": loss.detach(), "value": values[0].detach().mean()}

    def _update_actor(self, seen: torch.Tensor, action: torch.Tensor) -> dict[str, torch.Tensor]:
        self._measure_spread(seen)
        if self.blend == "bilevel":
            self._improve_blend(seen)
        return super()._update_actor(seen, action)

    def _measure_spread(self, seen: torch.Tensor) -> None:
        with torch.no_grad():
            pair = [self.actor(seen, self._noise(len(seen)))[0] for _ in range(2)]
            first, second = (self._by_term(self.critics(seen, chosen)).mean(dim=1) for chosen in pair)
            spread = (first - second).std(dim=1).clamp_min(LEAST_SPREAD)
            keep = KEEP_SPREAD if self.updates > self.settings.actor_every else 0.0
            self._spread = keep * self._spread + (1 - keep) * spread

    def _improve_blend(self, seen: torch.Tensor) -> None:
        outer, inner = seen[::2], seen[1::2]
        self.critics.requires_grad_(False)
        gold = self._gradients(outer, 1)[0]
        each = self._gradients(inner, self.terms)
        self.critics.requires_grad_(True)
        size = torch.stack([gradient.norm() for gradient in each]).max() * gold.norm()
        agreement = torch.stack([gold @ gradient for gradient in each]) / (size + 1e-12)
        share = torch.softmax(self._logits, dim=0)
        self._logits = self._logits + OUTER_RATE * share * (agreement - share @ agreement)

    def _gradients(self, seen: torch.Tensor, terms: int) -> list[torch.Tensor]:
        """By the actor's weights, of the mean value of its actions after each of the first terms."""
        own, _ = self.actor(seen, self._noise(len(seen)))
        values = self._by_term(self.critics(seen, own)).mean(dim=(1, 2)) / self._spread
        parameters = list(self.actor.parameters())
        found = []
        for term in range(terms):
            parts = torch.autograd.grad(values[term], parameters, retain_graph=term < terms - 1)
            found.append(torch.cat([part.ravel() for part in parts]))
        return found

    def _judge(self, seen: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return self._weighed(self._by_term(self.critics(seen, action)).mean(dim=1))

    def _worth(self, seen: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return self._weighed(self._by_term(self.targets(seen, action)).min(dim=1).values)

    def _least(self, seen: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """(terms, B) the least of two of each term's target critics."""
        values = self._by_term(self.targets(seen, action))
        if values.shape[1] > 2:
            values = values[:, self._pair(values.shape[1])]
        least: torch.Tensor = values.min(dim=1).values
        return least

    def _by_term(self, values: torch.Tensor) -> torch.Tensor:
        """(terms, E, B) of all critics' values."""
        return values.view(self.terms, -1, values.shape[-1])

    def _weighed(self, values: torch.Tensor) -> torch.Tensor:
        """(B,) of (terms, B)."""
        return self.weights @ values

    def state(self) -> dict[str, torch.Tensor]:
        """As `Sac.state`, with the weights of the terms."""
        return {
            **super().state(),
            "blend_logits": self._logits.cpu().clone(),
            "blend_spread": self._spread.cpu().clone(),
        }

    def load_state(self, held: Mapping[str, torch.Tensor]) -> None:
        """As `Sac.load_state`."""
        super().load_state(held)
        self._logits, self._spread = (held[name].to(self.device) for name in ("blend_logits", "blend_spread"))
