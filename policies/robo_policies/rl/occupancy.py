"""A penalty on leaving what was demonstrated, in the occupancy of states and actions: ORPO's chi-squared divergence.

ORPO (arXiv 2403.03185, section 5) bounds how much a policy that follows a proxy reward can lose against the reference
policy by their chi-squared divergence of occupancies, and takes it off the reward:

    d minimises E_policy[softplus(-d)] + E_reference[softplus(d)],    so that e^d -> mu_policy / mu_reference
    penalty(s, a) = lambda sigma (e^d(s, a) - 1) / sqrt(X),           X the 1 %-trimmed mean of e^d - 1 on the policy

The paper leaves the constant -1 away, which changes nothing where all episodes are equally long. The division by the
root makes it the gradient of sqrt(chi^2), the form of the paper's bound; sigma is the standard deviation of the reward.
The reference is what was demonstrated, from which the cloned policy was learnt, and the policy's occupancy is that of
the replay, which lags behind the policy of the moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.optimisers import optimiser_state, restore_optimiser
from robo_policies.rl.replay import Batch, Floats
from robo_policies.rl.scaling import MOST, Scaling

# e^d beyond this is cut: a discriminator that is certain must not make the reward meaningless.
MOST_LOG_RATIO = 5.0
TRIMMED = 0.01
# Least root, so that a policy which is where the demonstrations are is not punished for noise.
LEAST_ROOT = 0.1
KEEP = 0.99


class ChiSquared:
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
            self.network = nn.Sequential(
                nn.Linear(size, width), nn.LayerNorm(width), nn.ReLU(),
                nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(),
                nn.Linear(width, 1),
            ).to(device)  # fmt: skip
        self.weight, self.device = weight, device
        self.root = 1.0
        self.spread = 0.0
        self._steps = torch.optim.Adam(self.network.parameters(), learning_rate)

    def update(self, policy: Floats, reference: Floats) -> float:
        """One step of telling (B, size) of the policy from those of the reference; returns the trimmed divergence."""
        ours, theirs = (torch.from_numpy(values).to(self.device) for values in (policy, reference))
        told = self.network(torch.cat([ours, theirs])).squeeze(-1)
        loss = functional.softplus(-told[: len(ours)]).mean() + functional.softplus(told[len(ours) :]).mean()
        self._steps.zero_grad(set_to_none=True)
        loss.backward()
        self._steps.step()
        if not torch.isfinite(loss):
            raise ModelError(f"the discriminator of the occupancy penalty diverged: its loss is {float(loss)}")
        divergence = trimmed_mean(self.excess(policy), TRIMMED)
        self.root = KEEP * self.root + (1 - KEEP) * max(LEAST_ROOT, max(divergence, 0.0) ** 0.5)
        return divergence

    @torch.no_grad()
    def excess(self, pairs: Floats) -> npt.NDArray[np.float64]:
        """e^d - 1 of states and actions (B, size)."""
        told = self.network(torch.from_numpy(pairs).to(self.device)).squeeze(-1).clamp(max=MOST_LOG_RATIO)
        return np.expm1(told.cpu().numpy().astype(np.float64))

    def penalty(self, pairs: Floats) -> Floats:
        """(B,) what is taken off the reward."""
        return (self.weight * self.spread * self.excess(pairs) / self.root).astype(np.float32)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything the next update depends on."""
        held = {f"occupancy.{k}": v.detach().cpu().clone() for k, v in self.network.state_dict().items()}
        scale = torch.tensor([self.root, self.spread], dtype=torch.float64)
        return {**held, **optimiser_state("occupancy_steps", self._steps), "occupancy_scale": scale}

    def load_state(self, held: Mapping[str, torch.Tensor]) -> None:
        """Take up a `state`.

        Raises:
            ModelError: it holds none.
        """
        try:
            mine = {n.removeprefix("occupancy."): v for n, v in held.items() if n.startswith("occupancy.")}
            self.network.load_state_dict(mine)
            restore_optimiser("occupancy_steps", self._steps, held)
            self.root, self.spread = (float(value) for value in held["occupancy_scale"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"the checkpoint is of another learner or damaged ({error})") from error


class PenalisedLearner:
    """A learner whose rewards are less the penalty; all else is the learner's own.

    Args:
        learner: takes batches of its own decisions and of demonstrations.
        penalty: what is taken off.
        scaling: mean and scale (O,) that states are brought to.
    """

    def __init__(self, learner: Any, penalty: ChiSquared, scaling: Scaling) -> None:
        self.acting, self.occupancy, self._scaling = learner, penalty, scaling
        self.settings, self.device = learner.settings, learner.device

    def act(
        self, observations: Floats, explore: bool, proposed: Floats | None = None
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """As the learner's."""
        made: tuple[Floats, npt.NDArray[np.bool_]] = self.acting.act(observations, explore, proposed)
        return made

    def update(self, fresh: Batch, demonstrated: Batch | None) -> dict[str, float]:
        """Update the discriminator, then the learner with what is left of the rewards.

        Raises:
            ConfigError: there are no demonstrations.
            ModelError: as the learner's.
        """
        if demonstrated is None:
            raise ConfigError("shaping.occupancy compares with demonstrations; give store=...")
        divergence = self.occupancy.update(self._pairs(fresh), self._pairs(demonstrated))
        spread = float(np.std(np.concatenate([fresh.reward, demonstrated.reward])))
        kept = self.occupancy.spread
        self.occupancy.spread = KEEP * kept + (1 - KEEP) * spread if kept else spread
        figures = self.acting.update(self._less(fresh), self._less(demonstrated))
        taken = float(self.occupancy.penalty(self._pairs(fresh)).mean())
        return {**figures, "occupancy_divergence": divergence, "occupancy_penalty": taken}

    def state(self) -> dict[str, torch.Tensor]:
        """The learner's and the penalty's."""
        return {**self.acting.state(), **self.occupancy.state()}

    def load_state(self, held: Mapping[str, torch.Tensor]) -> None:
        """Take up a `state`."""
        self.acting.load_state(held)
        self.occupancy.load_state(held)

    def _less(self, batch: Batch) -> Batch:
        return replace(batch, reward=batch.reward - self.occupancy.penalty(self._pairs(batch)))

    def _pairs(self, batch: Batch) -> Floats:
        mean, scale = self._scaling
        # The potential, last in an observation, is no part of the state.
        seen = np.clip((batch.observation[:, :-1] - mean) / scale, -MOST, MOST)
        return np.concatenate([seen, batch.action], axis=1, dtype=np.float32)


def trimmed_mean(values: npt.NDArray[np.float64], share: float) -> float:
    """Mean without the given share of the values at each end."""
    ordered = np.sort(values)
    cut = int(len(ordered) * share)
    return float(ordered[cut : len(ordered) - cut].mean())
