"""Implicit Q-learning: a policy from a scored store alone, without a step in the environment.

IQL (arXiv 2110.06169, equations 5 to 7). With expectile e, critics Q, state value V and u = Q_target(s, a) - V(s):

    V       minimizes |e - 1[u < 0]| u^2
    Q       minimizes (r + g^k V(s') - Q(s, a))^2, without V(s') where the task ended
    policy  clones the store's actions with weight min(exp(b u / sigma), 100), b the inverse temperature

sigma, the standard deviation of u, is tracked over the updates. The paper scales its rewards to the range of the
returns instead; without either, the advantages of a reward between 0 and 1 are so small that every weight is 1.

No action outside the store is ever evaluated. The policy does not read the potential, so it needs no reward model when
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
from robo_policies.rl.modules.actor_critic import CriticEnsemble, layer_norm_mlp
from robo_policies.rl.modules.checkpoint import cpu_copies, optimizer_state, restore_optimizer
from robo_policies.rl.modules.mlp_actor import ActorShape, MlpActor
from robo_policies.rl.modules.normalization import MeanScale, Normalizer
from robo_policies.rl.settings import IqlSettings
from robo_policies.rl.storage.replay_buffer import Batch
from robo_policies.rl.types import Floats
from robo_rm.training.checkpoint import under

MAX_WEIGHT = 100.0
"""Weights of actions are clipped here, as in the paper's own experiments, so that no action dominates a batch."""
STD_DECAY = 0.99
MIN_STD = 1e-6


class Iql:
    """Critics, value and policy, and their training.

    Args:
        observation_size: O + 1, the potential included.
        action_size: A.
        settings: of the learner.
        seed: of the weights.
        device: cpu or cuda.
        scaling: mean and scale (O + 1,) by which the networks' inputs are normalized; None leaves them unmodified.

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
        scaling: MeanScale | None = None,
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
            self.critics = CriticEnsemble(observation_size, action_size, width, 2).to(device)
            self.value = layer_norm_mlp(observation_size, width, 1).to(device)
            without_potential = None if scaling is None else (scaling[0][:-1], scaling[1][:-1])
            self.policy = MlpActor(shape, settings, device, without_potential)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self._normalized = Normalizer(observation_size, device, scaling)
        self.settings, self.device, self.updates = settings, device, 0
        self._std = 0.0
        parameters = [*self.critics.parameters(), *self.value.parameters(), *self.policy.parameters()]
        self._optimizer = torch.optim.Adam(parameters, settings.learning_rate, fused=True)

    def act(
        self, observations: Floats, explore: bool = False, prior_actions: Floats | None = None
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Actions (n, A) of the policy for observations (n, O + 1)."""
        return self.policy.act(observations)

    def update(self, batch: Batch) -> dict[str, float]:
        """One update of critics, value and policy from stored transitions.

        Returns:
            Losses, and the effective fraction of the batch, (sum w)^2 / (B sum w^2) of the weights w.

        Raises:
            ModelError: a loss is NaN or infinite.
        """
        observation, action, reward, bootstrap, following = (
            torch.from_numpy(values).to(self.device)
            for values in (batch.observation, batch.action, batch.reward, batch.bootstrap, batch.next_observation)
        )
        policy_input = observation[:, :-1]
        observation, following = self._normalized(observation), self._normalized(following)
        with torch.no_grad():
            q_target = self.targets(observation, action).min(dim=0).values
            target = reward + bootstrap * self.value(following).squeeze(-1)
        advantage = q_target - self.value(observation).squeeze(-1)
        value_loss = expectile_loss(advantage, self.settings.expectile)
        critic_loss = (self.critics(observation, action) - target).square().mean(dim=1).sum()
        std = float(advantage.detach().std())
        self._std = STD_DECAY * self._std + (1 - STD_DECAY) * std if self.updates else std
        scaled = advantage.detach() / max(self._std, MIN_STD)
        weight = torch.exp(self.settings.inverse_temperature * scaled).clamp(max=MAX_WEIGHT)
        policy_loss = (weight * (self.policy(policy_input) - action).square().mean(dim=-1)).mean()
        # One backward pass serves all three: no loss reaches another's network (q_target, target and weight are
        # constants here).
        self._optimizer.zero_grad(set_to_none=True)
        (value_loss + critic_loss + policy_loss).backward()
        self._optimizer.step()
        self.updates += 1
        with torch.no_grad():
            torch._foreach_lerp_(list(self.targets.parameters()), list(self.critics.parameters()), self.settings.tau)
        losses = {
            "value_loss": float(value_loss.detach()),
            "critic_loss": float(critic_loss.detach()),
            "policy_loss": float(policy_loss.detach()),
            "effective_fraction": float(weight.sum().square() / weight.square().sum() / len(weight)),
        }
        bad = [name for name, number in losses.items() if not np.isfinite(number)]
        if bad:
            raise ModelError(f"learning diverged at update {self.updates}: {bad[0]} is {losses[bad[0]]}")
        return losses

    def state(self) -> dict[str, torch.Tensor]:
        """Everything the next update depends on, as tensors by name."""
        tensors = {"updates": torch.tensor(self.updates), "std": torch.tensor(self._std, dtype=torch.float64)}
        for part, network in self._networks().items():
            tensors |= cpu_copies(network.state_dict(), f"{part}.")
        return {**tensors, **optimizer_state("optimizer", self._optimizer)}

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore a `state`.

        Raises:
            ModelError: it is of another learner.
        """
        try:
            for part, network in self._networks().items():
                network.load_state_dict(under(tensors, f"{part}."))
            restore_optimizer("optimizer", self._optimizer, tensors)
            self.updates, self._std = int(tensors["updates"]), float(tensors["std"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"the checkpoint is of another learner or damaged ({error})") from error

    def _networks(self) -> dict[str, nn.Module]:
        return {"critics": self.critics, "targets": self.targets, "value": self.value, "policy": self.policy}


def expectile_loss(error: torch.Tensor, expectile: float) -> torch.Tensor:
    """mean |e - 1[u < 0]| u^2 over errors u (B,): at its minimum the e-expectile of u is 0.

    With e = 0.5 that is half the squared error; with e near 1 negative errors hardly count, and V approaches the
    maximum of Q over the actions in the store.
    """
    weight = torch.where(error > 0, expectile, 1 - expectile)
    return (weight * error.square()).mean()
