"""Soft actor-critic with RLPD's choices and IBRL's proposals, for decisions of several steps.

RLPD (arXiv 2302.02948): half of each batch from demonstrations, LayerNorm critics, time limits bootstrapped, no
entropy in the backup. IBRL (arXiv 2311.02198): a cloned policy proposes an action beside the actor's, and whichever the
target critics prefer is carried out and bootstrapped from. The discount of a decision is g^steps.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from robo_core.errors import ModelError
from robo_policies.rl.compiling import compiled
from robo_policies.rl.losses import actor_loss, critic_loss
from robo_policies.rl.networks import Actor, Critics
from robo_policies.rl.optimisers import FlatAdam, flatten, optimiser_state, restore_optimiser
from robo_policies.rl.replay import Batch, Floats
from robo_policies.rl.scaling import MOST, Scaling
from robo_policies.rl.settings import SacSettings


class Sac:
    """Actor, critics and their training.

    Args:
        observation_size: O + 1, the potential included.
        action_size: A.
        settings: of the learner.
        seed: of the weights and every draw.
        proposals: whether a cloned policy proposes actions beside the actor's.
        device: cpu or cuda.
        scaling: mean and scale (O + 1,) that the networks' inputs are brought to; None leaves them as they are.

    Raises:
        MissingPartError: the losses are to be compiled and there is no compiler.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        settings: SacSettings,
        seed: int,
        proposals: bool = False,
        device: str = "cpu",
        scaling: Scaling | None = None,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            actor = Actor(observation_size, action_size, settings.width)
            critics = Critics(observation_size, action_size, settings.width, settings.critics)
        self.settings, self.device, self.proposals = settings, device, proposals
        self.actor, self.critics = actor.to(device), critics.to(device)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_temperature = torch.tensor(float(np.log(settings.temperature)), device=device, requires_grad=True)
        mean, scale = scaling or (np.zeros(observation_size, np.float32), np.ones(observation_size, np.float32))
        self._mean, self._scale = torch.from_numpy(mean).to(device), torch.from_numpy(scale).to(device)
        self.updates = 0
        self._critic_loss, self._actor_loss = critic_loss, actor_loss
        if settings.compile:
            self._critic_loss, self._actor_loss = compiled(critic_loss, device), compiled(actor_loss, device)
        self._generator = torch.Generator(device=device).manual_seed(seed)
        self._action_size = action_size
        self._entropy = settings.entropy_per_action * action_size
        self._actor_steps = FlatAdam(self.actor, settings.learning_rate)
        self._critic_steps = FlatAdam(self.critics, settings.learning_rate)
        self._target_values = flatten(self.targets)
        self._temperature_steps = torch.optim.Adam([self.log_temperature], settings.learning_rate, fused=True)

    @torch.no_grad()
    def act(
        self, observations: Floats, explore: bool, proposed: Floats | None = None
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Actions (n, A) for observations (n, O + 1), and which of them (n,) the cloned policy proposed.

        Args:
            observations: what is seen.
            explore: draw from the actor's distribution rather than take its middle.
            proposed: (n, A) of the cloned policy; None for the actor alone.
        """
        seen = self._scaled(torch.from_numpy(observations).to(self.device))
        own = self.actor(seen, self._noise(len(seen)))[0] if explore else self.actor.best(seen)
        if proposed is None:
            return own.cpu().numpy(), np.zeros(len(seen), dtype=bool)
        offered = torch.from_numpy(proposed).to(self.device)
        better = self._worth(seen, offered) > self._worth(seen, own)
        return torch.where(better[:, None], offered, own).cpu().numpy(), better.cpu().numpy()

    def update(self, fresh: Batch, demonstrated: Batch | None) -> dict[str, float]:
        """One update of the critics and, every so often, of the actor; returns losses and values.

        Args:
            fresh: decisions of the learner's own.
            demonstrated: decisions of demonstrations, or None.

        Raises:
            ModelError: a loss is NaN or infinite.
        """
        batches = [fresh] if demonstrated is None else [fresh, demonstrated]
        parts = {
            name: torch.from_numpy(np.concatenate([getattr(b, name) for b in batches])).to(self.device)
            for name in ("observation", "action", "reward", "bootstrap", "next_observation", "next_proposal")
        }
        known = [b.bounds for b in batches if b.bounds is not None]
        free = np.tile(np.array([-np.inf, np.inf], np.float32), (len(parts["reward"]), 1))
        bounds = np.concatenate(known) if len(known) == len(batches) else free
        parts["low"], parts["high"] = torch.from_numpy(bounds).to(self.device).unbind(dim=1)
        for name in ("observation", "next_observation"):
            parts[name] = self._scaled(parts[name])
        figures = self._update_critics(parts)
        self.updates += 1
        if self.updates % self.settings.actor_every == 0:
            figures |= self._update_actor(parts["observation"], parts["action"])
        with torch.no_grad():
            self._target_values.lerp_(self._critic_steps.values, self.settings.tau)
        values = {name: float(value) for name, value in figures.items()}
        bad = [name for name, value in values.items() if not np.isfinite(value)]
        if bad:
            raise ModelError(f"learning diverged at update {self.updates}: {bad[0]} is {values[bad[0]]}")
        return values

    def _update_critics(self, parts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        noise = self._noise(len(parts["next_observation"]))
        networks = (self.actor, self.critics, self.targets)
        loss, value = self._critic_loss(*networks, parts, noise, self._pair(), self.proposals)
        self._critic_steps.zero_grad()
        loss.backward()
        self._critic_steps.step()
        return {"critic_loss": loss.detach(), "value": value}

    def _update_actor(self, seen: torch.Tensor, action: torch.Tensor) -> dict[str, torch.Tensor]:
        self.critics.requires_grad_(False)
        loss, density = self._actor_loss(
            self.actor, self._judge, seen, action, self._noise(len(seen)), self.log_temperature.exp().detach(),
            self.settings.imitation,
        )  # fmt: skip
        self._actor_steps.zero_grad()
        loss.backward()
        self._actor_steps.step()
        self.critics.requires_grad_(True)
        heat = self.log_temperature * (-density - self._entropy)
        self._temperature_steps.zero_grad(set_to_none=True)
        heat.backward()
        self._temperature_steps.step()
        return {
            "actor_loss": loss.detach(),
            "entropy": -density,
            "temperature": self.log_temperature.detach().exp(),
        }

    def rescale(self, scaling: Scaling) -> None:
        """Bring what is seen from now on to another mean and scale (O + 1,)."""
        self._mean, self._scale = (torch.from_numpy(values).to(self.device) for values in scaling)

    def _judge(self, seen: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """(B,) what the actor goes by."""
        value: torch.Tensor = self.critics(seen, action).mean(dim=0)
        return value

    def _pair(self, count: int | None = None) -> torch.Tensor:
        """(2,) the critics that count this time."""
        many = self.critics.count if count is None else count
        if many <= 2:
            return torch.arange(2, device=self.device) % many
        return torch.randperm(many, generator=self._generator, device=self.device)[:2]

    def _worth(self, seen: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """(B,) by which a proposal and the actor's own action are told apart: nothing random, or a policy would be."""
        least: torch.Tensor = self.targets(seen, action).min(dim=0).values
        return least

    def _scaled(self, seen: torch.Tensor) -> torch.Tensor:
        # What lies far outside what was seen so far must not drown everything else.
        return ((seen - self._mean) / self._scale).clamp(-MOST, MOST)

    def _noise(self, count: int) -> torch.Tensor:
        return torch.randn(count, self._action_size, generator=self._generator, device=self.device)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything the next update depends on, as tensors by name."""
        held = {f"actor.{k}": v for k, v in self.actor.state_dict().items()}
        held |= {f"critics.{k}": v for k, v in self.critics.state_dict().items()}
        held |= {f"targets.{k}": v for k, v in self.targets.state_dict().items()}
        for name, steps in self._optimisers().items():
            held |= optimiser_state(name, steps)
        held["log_temperature"] = self.log_temperature.detach()
        held["updates"] = torch.tensor(self.updates)
        held["mean"], held["scale"] = self._mean, self._scale
        held["generator"] = self._generator.get_state()
        return {name: value.detach().cpu().contiguous().clone() for name, value in held.items()}

    def load_state(self, held: Mapping[str, torch.Tensor]) -> None:
        """Take up a `state`.

        Raises:
            ModelError: it is of another learner.
        """
        try:
            self.actor.load_state_dict(_under(held, "actor."))
            self.critics.load_state_dict(_under(held, "critics."))
            self.targets.load_state_dict(_under(held, "targets."))
            for name, steps in self._optimisers().items():
                restore_optimiser(name, steps, held)
            with torch.no_grad():
                self.log_temperature.copy_(held["log_temperature"])
            self.updates = int(held["updates"])
            self._mean, self._scale = held["mean"].to(self.device), held["scale"].to(self.device)
            self._generator.set_state(held["generator"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"the checkpoint is of another learner or damaged ({error})") from error

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "actor_steps": self._actor_steps.adam,
            "critic_steps": self._critic_steps.adam,
            "temperature_steps": self._temperature_steps,
        }


def _under(held: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
