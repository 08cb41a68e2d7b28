"""Soft actor-critic with critics for each term of the reward, and a rule by which the actor weights them.

``multi_critic`` (SLIM, arXiv 2501.09905): each term has critics of its own, and the actor follows the sum of their
advantages, each divided by its standard deviation, so that no term dominates the others by its scale,

    A(s, a) = sum_i A_i(s, a) / sigma_i,    A_i = Q_i(s, a) - Q_i(s, a2) with a2 another action of the actor.

``bilevel`` (BARFI, arXiv 2310.19007, section 4): the actor follows a blend whose weights phi and discounts are learned
themselves, so that following it increases the task reward,

    r_phi = phi_1 task + phi_2 auxiliary with the discount g^k + phi_3 auxiliary with the discount 0,
    d J_task / d phi_i  ~  < grad J_task , grad J_i >        (gradients by the actor's weights; each J_i over sigma_i)

This is the paper's implicit outer gradient with the first term of the series for the inverse Hessian, that is for one
step of the actor. The paper's state-dependent weights and free discount are reduced to three numbers that sum to 1; the
ratio of phi_2 and phi_3 takes the place of the discount. The terms' values are divided by their standard deviations as
above: progress summed over an episode is a hundred times the largest task reward, and a weight would mean nothing. The
two gradients come from different halves of the batch, so that the noise of one does not agree with itself.

The auxiliary term is the potential after the macro-action, Phi(h'), paid as a reward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from robo_core.errors import ModelError
from robo_policies.rl.algorithms.sac import Sac
from robo_policies.rl.modules.normalization import MeanScale
from robo_policies.rl.settings import SacSettings
from robo_policies.rl.storage.replay_buffer import Batch
from robo_rm.shaping.settings import LEARNER_MODES

MIN_STD = 0.01
"""Minimum standard deviation of an advantage, so that critics that know nothing yet are not amplified."""
STD_DECAY = 0.99
INITIAL_WEIGHTS = (0.5, 0.25, 0.25)
OUTER_LEARNING_RATE = 0.05
"""Of the blend's logits, at each update of the actor."""


class MultiCriticSac(Sac):
    """Soft actor-critic with critics for each term.

    Args:
        observation_size: O + 1, the potential included.
        action_size: A.
        settings: of the learner; ``critics`` is the number for each term.
        seed: of the weights and every random draw.
        blend: ``multi_critic`` or ``bilevel``.
        use_prior: whether a behaviour prior acts beside the actor.
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
        use_prior: bool = False,
        device: str = "cpu",
        scaling: MeanScale | None = None,
    ) -> None:
        self.blend, self.terms = blend, len(LEARNER_MODES[blend])
        all_critics = replace(settings, critics=settings.critics * self.terms)
        super().__init__(observation_size, action_size, all_critics, seed, use_prior, device, scaling)
        self.settings = settings
        start = np.log(INITIAL_WEIGHTS[: self.terms]) if blend == "bilevel" else np.zeros(self.terms)
        self._logits = torch.from_numpy(start.astype(np.float32)).to(device)
        self._std = torch.ones(self.terms, device=device)
        self._task_reward = torch.zeros(0, device=device)

    @property
    def blend_weights(self) -> torch.Tensor:
        """(terms,) weight of each term's normalized advantage; 1 each for ``multi_critic``."""
        return torch.softmax(self._logits, dim=0) if self.blend == "bilevel" else torch.ones_like(self._std)

    @property
    def value_weights(self) -> torch.Tensor:
        """(terms,) weight of each term's value for the actor."""
        return self.blend_weights / self._std

    def update(self, own: Batch, demonstrated: Batch | None) -> dict[str, float]:
        """As `Sac.update`; the result has each term's weights as well."""
        batches = [own] if demonstrated is None else [own, demonstrated]
        task_reward = np.concatenate([batch.task_reward for batch in batches])
        self._task_reward = torch.from_numpy(task_reward).to(self.device)
        losses = super().update(own, demonstrated)
        terms = LEARNER_MODES[self.blend]
        for name, value_weight, weight in zip(terms, self.value_weights, self.blend_weights, strict=True):
            losses |= {f"value_weight_{name}": float(value_weight), f"blend_weight_{name}": float(weight)}
        return losses

    def _update_critics(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        following, task, bootstrap = batch["next_observation"], self._task_reward, batch["bootstrap"]
        auxiliary, zero = batch["reward"] - task, torch.zeros_like(bootstrap)
        rewards = torch.stack([task, auxiliary, auxiliary][: self.terms])
        # phi_3's term is discounted by 0: its critics predict the immediate reward alone.
        bootstraps = torch.stack([bootstrap, bootstrap, zero][: self.terms])
        with torch.no_grad():
            action, _ = self.actor(following, self._noise(len(following)))
            value = self._minimum(following, action)
            if self.use_prior:
                # One action must be chosen for all terms, so prior and actor compete by the blended value.
                prior = self._minimum(following, batch["next_prior_action"])
                value = torch.where(self._blended(prior) > self._blended(value), prior, value)
            target = rewards + bootstraps * value
        values = self._by_term(self.critics(batch["observation"], batch["action"]))
        loss = (values - target[:, None]).square().mean(dim=2).sum()
        self._critic_optimizer.zero_grad()
        loss.backward()
        self._critic_optimizer.step()
        return {"critic_loss": loss.detach(), "value": values[0].detach().mean()}

    def _update_actor(self, observation: torch.Tensor, action: torch.Tensor) -> dict[str, torch.Tensor]:
        self._update_std(observation)
        if self.blend == "bilevel":
            self._update_blend(observation)
        return super()._update_actor(observation, action)

    def _update_std(self, observation: torch.Tensor) -> None:
        """Follow sigma_i, the standard deviation over the batch of Q_i(s, a) - Q_i(s, a2)."""
        with torch.no_grad():
            pair = [self.actor(observation, self._noise(len(observation)))[0] for _ in range(2)]
            first, second = (self._by_term(self.critics(observation, action)).mean(dim=1) for action in pair)
            std = (first - second).std(dim=1).clamp_min(MIN_STD)
            decay = STD_DECAY if self.updates > self.settings.policy_delay else 0.0
            self._std = decay * self._std + (1 - decay) * std

    def _update_blend(self, observation: torch.Tensor) -> None:
        """One step of the logits z, phi = softmax(z), along the agreement c_i = <grad J_task, grad J_i>.

        The gradient of sum_i phi_i c_i by z_i is phi_i (c_i - sum_j phi_j c_j).
        """
        outer, inner = observation[::2], observation[1::2]
        self.critics.requires_grad_(False)
        task = self._gradients(outer, 1)[0]
        each = self._gradients(inner, self.terms)
        self.critics.requires_grad_(True)
        # Divided by the largest product of norms, c lies in [-1, 1] whatever the scale of the critics.
        size = torch.stack([gradient.norm() for gradient in each]).max() * task.norm()
        agreement = torch.stack([task @ gradient for gradient in each]) / (size + 1e-12)
        weight = torch.softmax(self._logits, dim=0)
        self._logits = self._logits + OUTER_LEARNING_RATE * weight * (agreement - weight @ agreement)

    def _gradients(self, observation: torch.Tensor, terms: int) -> list[torch.Tensor]:
        """grad J_i by the actor's weights for each of the first terms, J_i being the mean value over sigma_i."""
        own, _ = self.actor(observation, self._noise(len(observation)))
        values = self._by_term(self.critics(observation, own)).mean(dim=(1, 2)) / self._std
        parameters = list(self.actor.parameters())
        gradients = []
        for term in range(terms):
            parts = torch.autograd.grad(values[term], parameters, retain_graph=term < terms - 1)
            gradients.append(torch.cat([part.ravel() for part in parts]))
        return gradients

    def _value(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return self._blended(self._by_term(self.critics(observation, action)).mean(dim=1))

    def _target_value(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return self._blended(self._by_term(self.targets(observation, action)).min(dim=1).values)

    def _minimum(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """(terms, B) the minimum of two of each term's target critics."""
        values = self._by_term(self.targets(observation, action))
        if values.shape[1] > 2:
            values = values[:, self._pair(values.shape[1])]
        minimum: torch.Tensor = values.min(dim=1).values
        return minimum

    def _by_term(self, values: torch.Tensor) -> torch.Tensor:
        """(terms, E, B) of all critics' values."""
        return values.view(self.terms, -1, values.shape[-1])

    def _blended(self, values: torch.Tensor) -> torch.Tensor:
        """(B,) of (terms, B)."""
        return self.value_weights @ values

    def state(self) -> dict[str, torch.Tensor]:
        """As `Sac.state`, with the weights of the terms."""
        return {**super().state(), "blend_logits": self._logits.cpu().clone(), "blend_std": self._std.cpu().clone()}

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """As `Sac.load_state`."""
        super().load_state(tensors)
        try:
            self._logits, self._std = (tensors[name].to(self.device) for name in ("blend_logits", "blend_std"))
        except KeyError as error:
            raise ModelError(f"the checkpoint is of another learner or damaged ({error})") from error
