"""A penalty on leaving the occupancy of states and actions of the demonstrations: ORPO's chi-squared divergence.

ORPO (arXiv 2403.03185, section 5) bounds how much a policy that follows a proxy reward can lose against the reference
policy by their chi-squared divergence of occupancies, and subtracts it from the reward:

    d minimizes E_policy[softplus(-d)] + E_reference[softplus(d)],    so that e^d -> mu_policy / mu_reference
    penalty(s, a) = lambda sigma (e^d(s, a) - 1) / sqrt(X),           X the 1 %-trimmed mean of e^d - 1 on the policy

The paper leaves out the constant -1, which changes nothing where all episodes are equally long. The division by the
root makes it the gradient of sqrt(chi^2), the form of the paper's bound; sigma is the standard deviation of the reward.
The reference is the demonstrations, which the behaviour prior was cloned from, and the policy's occupancy is that of
the replay buffer, which lags behind the current policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.algorithms.sac import Sac
from robo_policies.rl.modules.actor_critic import layer_norm_mlp
from robo_policies.rl.modules.checkpoint import cpu_copies, optimizer_state, restore_optimizer
from robo_policies.rl.modules.normalization import MAX_INPUT, MeanScale
from robo_policies.rl.storage.replay_buffer import Batch
from robo_policies.rl.types import Floats
from robo_rm.training.checkpoint import under

MAX_LOG_RATIO = 5.0
"""d is clipped here: a discriminator that is certain must not make the reward meaningless."""
TRIMMED = 0.01
MIN_ROOT = 0.1
"""Minimum of sqrt(X), so that a policy that stays with the demonstrations is not punished for noise."""
DECAY = 0.99


class ChiSquaredPenalty:
    """The discriminator and the penalty that follows from it.

    Args:
        size: of state and action together.
        weight: lambda.
        width: of the discriminator's two hidden layers.
        learning_rate: of the discriminator.
        seed: of its weights.
        device: cpu or cuda.

    Raises:
        ConfigError: a weight that is not above 0.
    """

    def __init__(
        self, size: int, weight: float, width: int, learning_rate: float, seed: int, device: str = "cpu"
    ) -> None:
        if not weight > 0:
            raise ConfigError(f"shaping.occupancy={weight}: give a weight above 0, or 0 for no penalty")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = layer_norm_mlp(size, width, 1).to(device)
        self.weight, self.device = weight, device
        self.root = 1.0
        self.reward_std = 0.0
        self._optimizer = torch.optim.Adam(self.network.parameters(), learning_rate)

    def update(self, policy: Floats, reference: Floats) -> float:
        """One step of the discriminator, on (B, size) of the policy and of the reference; returns the divergence X."""
        ours, theirs = (torch.from_numpy(values).to(self.device) for values in (policy, reference))
        logits = self.network(torch.cat([ours, theirs])).squeeze(-1)
        loss = functional.softplus(-logits[: len(ours)]).mean() + functional.softplus(logits[len(ours) :]).mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        if not torch.isfinite(loss):
            raise ModelError(f"the discriminator of the occupancy penalty diverged: its loss is {float(loss)}")
        divergence = trimmed_mean(self.excess(policy), TRIMMED)
        self.root = DECAY * self.root + (1 - DECAY) * max(MIN_ROOT, max(divergence, 0.0) ** 0.5)
        return divergence

    @torch.no_grad()
    def excess(self, pairs: Floats) -> npt.NDArray[np.float64]:
        """e^d - 1 of states and actions (B, size)."""
        logits = self.network(torch.from_numpy(pairs).to(self.device)).squeeze(-1).clamp(max=MAX_LOG_RATIO)
        return np.expm1(logits.cpu().numpy().astype(np.float64))

    def penalty(self, pairs: Floats) -> Floats:
        """(B,) the amount subtracted from the reward."""
        return (self.weight * self.reward_std * self.excess(pairs) / self.root).astype(np.float32)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything the next update depends on."""
        tensors = cpu_copies(self.network.state_dict(), "occupancy.")
        numbers = torch.tensor([self.root, self.reward_std], dtype=torch.float64)
        return {**tensors, **optimizer_state("occupancy_optimizer", self._optimizer), "occupancy_numbers": numbers}

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore a `state`.

        Raises:
            ModelError: it has none.
        """
        try:
            self.network.load_state_dict(under(tensors, "occupancy."))
            restore_optimizer("occupancy_optimizer", self._optimizer, tensors)
            self.root, self.reward_std = tensors["occupancy_numbers"].tolist()
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"the checkpoint is of another learner or damaged ({error})") from error


class PenalizedSac:
    """Soft actor-critic whose rewards are reduced by the penalty; all else is the learner's own.

    Args:
        sac: the learner.
        penalty: subtracted from its rewards.
        scaling: mean and scale (O,) by which states are normalized.
    """

    def __init__(self, sac: Sac, penalty: ChiSquaredPenalty, scaling: MeanScale) -> None:
        self.policy, self.penalty, self._scaling = sac, penalty, scaling
        self.settings, self.device = sac.settings, sac.device

    def act(
        self, observations: Floats, explore: bool = False, prior_actions: Floats | None = None
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """As `Sac.act`."""
        return self.policy.act(observations, explore, prior_actions)

    def update(self, own: Batch, demonstrated: Batch | None) -> dict[str, float]:
        """Update the discriminator, then the learner with the reduced rewards.

        Raises:
            ConfigError: there are no demonstrations.
            ModelError: as `Sac.update`.
        """
        if demonstrated is None:
            raise ConfigError("shaping.occupancy compares with demonstrations; give store=...")
        divergence = self.penalty.update(self._pairs(own), self._pairs(demonstrated))
        std = float(np.std(np.concatenate([own.reward, demonstrated.reward])))
        before = self.penalty.reward_std
        self.penalty.reward_std = DECAY * before + (1 - DECAY) * std if before else std
        losses = self.policy.update(self._reduced(own), self._reduced(demonstrated))
        subtracted = float(self.penalty.penalty(self._pairs(own)).mean())
        return {**losses, "occupancy_divergence": divergence, "occupancy_penalty": subtracted}

    def state(self) -> dict[str, torch.Tensor]:
        """The learner's and the penalty's."""
        return {**self.policy.state(), **self.penalty.state()}

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore a `state`."""
        self.policy.load_state(tensors)
        self.penalty.load_state(tensors)

    def _reduced(self, batch: Batch) -> Batch:
        return replace(batch, reward=batch.reward - self.penalty.penalty(self._pairs(batch)))

    def _pairs(self, batch: Batch) -> Floats:
        mean, scale = self._scaling
        # The potential, last in an observation, is not part of the state.
        states = np.clip((batch.observation[:, :-1] - mean) / scale, -MAX_INPUT, MAX_INPUT)
        return np.concatenate([states, batch.action], axis=1, dtype=np.float32)


def trimmed_mean(values: npt.NDArray[np.float64], fraction: float) -> float:
    """Mean without the given fraction of the values at each end."""
    ordered = np.sort(values)
    cut = int(len(ordered) * fraction)
    return float(ordered[cut : len(ordered) - cut].mean())
