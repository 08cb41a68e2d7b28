"""Soft actor-critic with RLPD's choices and IBRL's behaviour prior, for macro-actions.

RLPD (arXiv 2302.02948): half of each batch from demonstrations, LayerNorm critics, time limits bootstrapped, no
entropy in the target. IBRL (arXiv 2311.02198): a cloned policy acts beside the actor, and whichever action the target
critics prefer is carried out and bootstrapped from. The discount of a macro-action is g^steps.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from robo_core.errors import ModelError
from robo_policies.rl.algorithms.compilation import compiled
from robo_policies.rl.algorithms.sac_losses import actor_loss, critic_loss
from robo_policies.rl.modules.actor_critic import CriticEnsemble, SquashedGaussianActor
from robo_policies.rl.modules.checkpoint import cpu_copies, optimizer_state, restore_optimizer
from robo_policies.rl.modules.flat_adam import FlatAdam, flatten
from robo_policies.rl.modules.normalization import MeanScale, Normalizer
from robo_policies.rl.settings import SacSettings
from robo_policies.rl.storage.replay_buffer import Batch
from robo_policies.rl.types import Floats
from robo_rm.training.checkpoint import under

TENSOR_FIELDS = ("observation", "action", "reward", "bootstrap", "next_observation", "next_prior_action")


class Sac:
    """Actor, critics and their training.

    Args:
        observation_size: O + 1, the potential included.
        action_size: A.
        settings: of the learner.
        seed: of the weights and every random draw.
        use_prior: whether a behaviour prior acts beside the actor.
        device: cpu or cuda.
        scaling: mean and scale (O + 1,) by which the networks' inputs are normalized; None leaves them unmodified.

    Raises:
        MissingPartError: the losses are to be compiled and there is no compiler.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        settings: SacSettings,
        seed: int,
        use_prior: bool = False,
        device: str = "cpu",
        scaling: MeanScale | None = None,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            actor = SquashedGaussianActor(observation_size, action_size, settings.width)
            critics = CriticEnsemble(observation_size, action_size, settings.width, settings.critics)
        self.settings, self.device, self.use_prior = settings, device, use_prior
        self.actor, self.critics = actor.to(device), critics.to(device)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_temperature = torch.tensor(float(np.log(settings.temperature)), device=device, requires_grad=True)
        self._normalized = Normalizer(observation_size, device, scaling)
        self.updates = 0
        self._critic_loss, self._actor_loss = critic_loss, actor_loss
        if settings.compile:
            self._critic_loss, self._actor_loss = compiled(critic_loss, device), compiled(actor_loss, device)
        self._generator = torch.Generator(device=device).manual_seed(seed)
        self._action_size = action_size
        self._target_entropy = settings.target_entropy * action_size
        self._actor_optimizer = FlatAdam(self.actor, settings.learning_rate)
        self._critic_optimizer = FlatAdam(self.critics, settings.learning_rate)
        self._target_values = flatten(self.targets)
        self._temperature_optimizer = torch.optim.Adam([self.log_temperature], settings.learning_rate, fused=True)

    @torch.no_grad()
    def act(
        self, observations: Floats, explore: bool = False, prior_actions: Floats | None = None
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Actions (n, A) for observations (n, O + 1), and which of them (n,) are the behaviour prior's.

        Args:
            observations: the potential last.
            explore: draw from the actor's distribution rather than take its mode.
            prior_actions: (n, A) of the behaviour prior; None for the actor alone.
        """
        inputs = self._normalized(torch.from_numpy(observations).to(self.device))
        own = self.actor(inputs, self._noise(len(inputs)))[0] if explore else self.actor.mode(inputs)
        if prior_actions is None:
            return own.cpu().numpy(), np.zeros(len(inputs), dtype=bool)
        prior = torch.from_numpy(prior_actions).to(self.device)
        better = self._target_value(inputs, prior) > self._target_value(inputs, own)
        return torch.where(better[:, None], prior, own).cpu().numpy(), better.cpu().numpy()

    def update(self, own: Batch, demonstrated: Batch | None) -> dict[str, float]:
        """One update of the critics and, every `policy_delay`-th time, of the actor; returns losses and values.

        Args:
            own: transitions of the learner.
            demonstrated: transitions of demonstrations, or None.

        Raises:
            ModelError: a loss is NaN or infinite.
        """
        batches = [own] if demonstrated is None else [own, demonstrated]
        batch = {
            name: torch.from_numpy(np.concatenate([getattr(one, name) for one in batches])).to(self.device)
            for name in TENSOR_FIELDS
        }
        bounds = [one.bounds for one in batches if one.bounds is not None]
        unbounded = np.tile(np.array([-np.inf, np.inf], np.float32), (len(batch["reward"]), 1))
        limits = np.concatenate(bounds) if len(bounds) == len(batches) else unbounded
        batch["low"], batch["high"] = torch.from_numpy(limits).to(self.device).unbind(dim=1)
        for name in ("observation", "next_observation"):
            batch[name] = self._normalized(batch[name])
        losses = self._update_critics(batch)
        self.updates += 1
        if self.updates % self.settings.policy_delay == 0:
            losses |= self._update_actor(batch["observation"], batch["action"])
        with torch.no_grad():
            # Polyak averaging: target += tau (critics - target), over all parameters as one vector.
            self._target_values.lerp_(self._critic_optimizer.values, self.settings.tau)
        values = {name: float(value) for name, value in losses.items()}
        bad = [name for name, value in values.items() if not np.isfinite(value)]
        if bad:
            raise ModelError(f"learning diverged at update {self.updates}: {bad[0]} is {values[bad[0]]}")
        return values

    def _update_critics(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        noise = self._noise(len(batch["next_observation"]))
        networks = (self.actor, self.critics, self.targets)
        loss, value = self._critic_loss(*networks, batch, noise, self._pair(self.critics.count), self.use_prior)
        self._critic_optimizer.zero_grad()
        loss.backward()
        self._critic_optimizer.step()
        return {"critic_loss": loss.detach(), "value": value}

    def _update_actor(self, observation: torch.Tensor, action: torch.Tensor) -> dict[str, torch.Tensor]:
        self.critics.requires_grad_(False)
        loss, log_density = self._actor_loss(
            self.actor, self._value, observation, action, self._noise(len(observation)),
            self.log_temperature.exp().detach(), self.settings.imitation_weight,
        )  # fmt: skip
        self._actor_optimizer.zero_grad()
        loss.backward()
        self._actor_optimizer.step()
        self.critics.requires_grad_(True)
        # d/d(log t) of log t (H - H_target): the temperature rises while the entropy H is below its target.
        temperature_loss = self.log_temperature * (-log_density - self._target_entropy)
        self._temperature_optimizer.zero_grad(set_to_none=True)
        temperature_loss.backward()
        self._temperature_optimizer.step()
        return {
            "actor_loss": loss.detach(),
            "entropy": -log_density,
            "temperature": self.log_temperature.detach().exp(),
        }

    def rescale(self, scaling: MeanScale) -> None:
        """Normalize inputs by another mean and scale (O + 1,) from now on."""
        self._normalized.set(*(torch.from_numpy(values) for values in scaling))

    def _value(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """(B,) the value that the actor maximizes: the mean of the critics."""
        value: torch.Tensor = self.critics(observation, action).mean(dim=0)
        return value

    def _pair(self, count: int) -> torch.Tensor:
        """(2,) the target critics used this time, of so many."""
        if count <= 2:
            return torch.arange(2, device=self.device) % count
        return torch.randperm(count, generator=self._generator, device=self.device)[:2]

    def _target_value(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """(B,) the value by which prior and actor compete: of all target critics, so that nothing is random."""
        minimum: torch.Tensor = self.targets(observation, action).min(dim=0).values
        return minimum

    def _noise(self, count: int) -> torch.Tensor:
        return torch.randn(count, self._action_size, generator=self._generator, device=self.device)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything the next update depends on, as tensors by name."""
        numbers = {
            "log_temperature": self.log_temperature,
            "updates": torch.tensor(self.updates),
            "mean": self._normalized.mean,
            "scale": self._normalized.scale,
            "generator": self._generator.get_state(),
        }
        tensors = cpu_copies(numbers)
        for name, network in self._networks().items():
            tensors |= cpu_copies(network.state_dict(), f"{name}.")
        for name, optimizer in self._optimizers().items():
            tensors |= optimizer_state(name, optimizer)
        return tensors

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore a `state`.

        Raises:
            ModelError: it is of another learner.
        """
        try:
            for name, network in self._networks().items():
                network.load_state_dict(under(tensors, f"{name}."))
            for name, optimizer in self._optimizers().items():
                restore_optimizer(name, optimizer, tensors)
            with torch.no_grad():
                self.log_temperature.copy_(tensors["log_temperature"])
            self.updates = int(tensors["updates"])
            self._normalized.set(tensors["mean"], tensors["scale"])
            self._generator.set_state(tensors["generator"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"the checkpoint is of another learner or damaged ({error})") from error

    def _networks(self) -> dict[str, torch.nn.Module]:
        return {"actor": self.actor, "critics": self.critics, "targets": self.targets}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "actor_optimizer": self._actor_optimizer.adam,
            "critic_optimizer": self._critic_optimizer.adam,
            "temperature_optimizer": self._temperature_optimizer,
        }
