"""Implicit Q-learning: a policy from a scored store alone, without taking a step in the world.

IQL (arXiv 2110.06169, equations 5 to 7). With expectile e, critics Q, state value V and u = Q_target(s, a) - V(s):

    V       minimises |e - 1[u < 0]| u^2
    Q       minimises (r + g^k V(s') - Q(s, a))^2, without V(s') where the task ended
    policy  clones the store's actions with weight min(exp(b u / sigma), 100), b the inverse temperature

sigma, the spread of u, is followed over the updates. The paper scales its rewards to the range of the returns instead;
without either, the advantages of a reward between 0 and 1 are so small that every weight is 1.

No action outside the store is ever judged. The policy does not look at the potential, so it needs no reward model when
it runs; critics and value do, since the shaped reward depends on it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.actors import ActorShape, PlainActor
from robo_policies.rl.networks import Critics
from robo_policies.rl.optimisers import optimiser_state, restore_optimiser
from robo_policies.rl.replay import Batch, Floats
from robo_policies.rl.scaling import MOST, Scaling
from robo_policies.rl.settings import IqlSettings

# The weight of an action is cut here, as in the paper's own experiments, so that single actions do not rule a batch.
MOST_WEIGHT = 100.0
KEEP_SPREAD = 0.99
LEAST_SPREAD = 1e-6


class Iql:
    """Critics, value and policy, and their training.

    Args:
        observation_size: O + 1, the potential included.
        action_size: A.
        settings: of the learner.
        seed: of the weights.
        device: cpu or cuda.
        scaling: mean and scale (O + 1,) that the networks' inputs are brought to; None leaves them as they are.

    Raises:
        ConfigError: an expectile outside [0.5, 1) or an inverse temperature below 0.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        settings: IqlSettings,
        seed: int,
        device: str = "cpu",
        scaling: Scaling | None = None,
    ) -> None:
        if not 0.5 <= settings.expectile < 1 or settings.inverse_temperature < 0:
            raise ConfigError(
                f"learner.expectile={settings.expectile} learner.inverse_temperature={settings.inverse_temperature}: "
                "give an expectile from 0.5 to below 1 and an inverse temperature of 0 or more"
            )
        width = settings.width
        shape = ActorShape(observation_size - 1, action_size, (width, width), "relu", True, True, False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.critics = Critics(observation_size, action_size, width, 2).to(device)
            self.value = nn.Sequential(
                nn.Linear(observation_size, width), nn.LayerNorm(width), nn.ReLU(),
                nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(),
                nn.Linear(width, 1),
            ).to(device)  # fmt: skip
            without = None if scaling is None else (scaling[0][:-1], scaling[1][:-1])
            self.policy = PlainActor(shape, settings, device, without)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        mean, scale = scaling or (np.zeros(observation_size, np.float32), np.ones(observation_size, np.float32))
        self._mean, self._scale = torch.from_numpy(mean).to(device), torch.from_numpy(scale).to(device)
        self.settings, self.device, self.updates = settings, device, 0
        self._spread = 0.0
        parameters = [*self.critics.parameters(), *self.value.parameters(), *self.policy.parameters()]
        self._steps = torch.optim.Adam(parameters, settings.learning_rate, fused=True)

    def act(
        self, observations: Floats, explore: bool = False, proposed: Floats | None = None
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Actions (n, A) of the policy for observations (n, O + 1)."""
        return self.policy.act(observations)

    def update(self, demonstrated: Batch) -> dict[str, float]:
        """One update of critics, value and policy from stored decisions.

        Returns:
            Losses, and the share of the batch that the weights leave in effect.

        Raises:
            ModelError: a loss is NaN or infinite.
        """
        seen, action, reward, bootstrap, after = (
            torch.from_numpy(getattr(demonstrated, name)).to(self.device)
            for name in ("observation", "action", "reward", "bootstrap", "next_observation")
        )
        shown = seen[:, :-1]
        seen, after = (((x - self._mean) / self._scale).clamp(-MOST, MOST) for x in (seen, after))
        with torch.no_grad():
            taken = self.targets(seen, action).min(dim=0).values
            aim = reward + bootstrap * self.value(after).squeeze(-1)
        gap = taken - self.value(seen).squeeze(-1)
        value_loss = expectile_loss(gap, self.settings.expectile)
        critic_loss = (self.critics(seen, action) - aim).square().mean(dim=1).sum()
        spread = float(gap.detach().std())
        self._spread = KEEP_SPREAD * self._spread + (1 - KEEP_SPREAD) * spread if self.updates else spread
        scaled = gap.detach() / max(self._spread, LEAST_SPREAD)
        weight = torch.exp(self.settings.inverse_temperature * scaled).clamp(max=MOST_WEIGHT)
        policy_loss = (weight * (self.policy(shown) - action).square().mean(dim=-1)).mean()
        self._steps.zero_grad(set_to_none=True)
        (value_loss + critic_loss + policy_loss).backward()
        self._steps.step()
        self.updates += 1
        with torch.no_grad():
            torch._foreach_lerp_(list(self.targets.parameters()), list(self.critics.parameters()), self.settings.tau)
        figures = {
            "value_loss": float(value_loss.detach()),
            "critic_loss": float(critic_loss.detach()),
            "policy_loss": float(policy_loss.detach()),
            "effective_share": float(weight.sum().square() / weight.square().sum() / len(weight)),
        }
        bad = [name for name, number in figures.items() if not np.isfinite(number)]
        if bad:
            raise ModelError(f"learning diverged at update {self.updates}: {bad[0]} is {figures[bad[0]]}")
        return figures

    def state(self) -> dict[str, torch.Tensor]:
        """Everything the next update depends on, as tensors by name."""
        held = {
            f"{part}.{name}": value.detach().cpu().contiguous().clone()
            for part, network in self._parts().items()
            for name, value in network.state_dict().items()
        }
        numbers = {"updates": torch.tensor(self.updates), "spread": torch.tensor(self._spread, dtype=torch.float64)}
        return {**held, **optimiser_state("steps", self._steps), **numbers}

    def load_state(self, held: Mapping[str, torch.Tensor]) -> None:
        """Take up a `state`.

        Raises:
            ModelError: it is of another learner.
        """
        try:
            for part, network in self._parts().items():
                mine = {n.removeprefix(f"{part}."): v for n, v in held.items() if n.startswith(f"{part}.")}
                network.load_state_dict(mine)
            restore_optimiser("steps", self._steps, held)
            self.updates, self._spread = int(held["updates"]), float(held["spread"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"the checkpoint is of another learner or damaged ({error})") from error

    def _parts(self) -> dict[str, nn.Module]:
        return {"critics": self.critics, "targets": self.targets, "value": self.value, "policy": self.policy}


def expectile_loss(gap: torch.Tensor, expectile: float) -> torch.Tensor:
    """mean |e - 1[u < 0]| u^2 over gaps u (B,); where it is least, u's e-expectile is 0."""
    share = torch.where(gap > 0, expectile, 1 - expectile)
    return (share * gap.square()).mean()
