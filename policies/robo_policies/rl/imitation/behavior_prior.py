"""Behaviour priors: cloned policies that act beside the learner (IBRL, arXiv 2311.02198)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.envs.macro_action import ENVIRONMENT_STATE, IMAGES, STATE, ActionMap
from robo_policies.rl.modules.actor_critic import layer_norm_mlp
from robo_policies.rl.modules.checkpoint import cpu_copies
from robo_policies.rl.modules.flat_adam import FlatAdam
from robo_policies.rl.modules.normalization import Normalizer, mean_and_scale
from robo_policies.rl.types import Floats
from robo_rm.training.checkpoint import under

BATCH_SIZE = 256
"""Transitions in a batch of cloning."""
MAX_EPOCHS = 400
"""Maximum passes over the transitions: beyond that, a clone of few of them overfits and does worse."""
MIN_STEPS = 200
"""Minimum training steps, for the few transitions of a single demonstration."""


class ChunkPolicy(Protocol):
    """A policy that returns chunks of commands (`robo_policies.load_policy`)."""

    @property
    def dims(self) -> Mapping[str, int]:
        """key -> D of each vector that it reads, and of ``action``."""

    @property
    def cameras(self) -> Mapping[str, tuple[int, int]]:
        """key -> (height, width) of each image that it reads."""

    @property
    def chunk_size(self) -> int:
        """Commands in a chunk."""

    def act(self, observation: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Commands (n, H, A) for observations {key: (n, D)}."""


class PolicyPrior:
    """The chunks of a policy folder as macro-actions.

    Args:
        policy: reads the state, and the environment's state if it wants to.
        actions: how the learner's actions are carried out.

    Raises:
        ConfigError: the policy reads images, or its chunk is shorter than a macro-action.
    """

    def __init__(self, policy: ChunkPolicy, actions: ActionMap) -> None:
        if policy.cameras or any(key.startswith(IMAGES) for key in policy.dims):
            raise ConfigError(
                "the behaviour prior reads images, which are not rendered for every macro-action; "
                "train one from the state: robo-rm train-policy policy=act"
            )
        if policy.chunk_size < actions.action_repeat:
            raise ConfigError(
                f"the behaviour prior's chunk of {policy.chunk_size} actions is shorter than a macro-action of "
                f"{actions.action_repeat} steps; give a smaller learning.action_repeat"
            )
        self._policy, self._actions = policy, actions

    def __call__(self, observations: Mapping[str, Floats]) -> Floats:
        """Actions (n, A) for observations {key: (n, D)}."""
        inputs = {key: value for key, value in observations.items() if key in self._policy.dims}
        chunks = np.asarray(self._policy.act(inputs), dtype=np.float32)[:, : self._actions.action_repeat]
        pairs = zip(observations[STATE], chunks, strict=True)
        return np.stack([self._actions.action(state, chunk) for state, chunk in pairs])


class ClonedPrior:
    """A small network cloned from demonstrated transitions: the behaviour prior where no policy folder is given.

    Args:
        observation_size: O, without the potential.
        action_size: A.
        width: of its two hidden layers.
        seed: of the weights and the batches.
        ignored: columns of the observation hidden from it.
    """

    def __init__(
        self, observation_size: int, action_size: int, width: int, seed: int, ignored: Sequence[int] = ()
    ) -> None:
        self._sizes, self._seed, self._ignored = (observation_size, width, action_size), seed, ignored
        self.network = self._fresh_network()
        self._normalized = Normalizer(observation_size)

    def _fresh_network(self) -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            return layer_norm_mlp(*self._sizes).append(nn.Tanh())

    def train(self, observations: Floats, actions: Floats, steps: int, learning_rate: float = 1e-3) -> float:
        """Clone the actions (n, A) taken at the observations (n, O), from scratch.

        Args:
            observations: (n, O).
            actions: (n, A).
            steps: maximum; `MAX_EPOCHS` over the transitions, or `MIN_STEPS`, are enough.
            learning_rate: at the start; it decays to 0.

        Returns:
            The mean squared error of the last hundred steps.
        """
        self.network = self._fresh_network()
        self._normalized = Normalizer(observations.shape[1], scaling=mean_and_scale(observations, self._ignored))
        inputs, target = self._normalized(torch.from_numpy(observations)), torch.from_numpy(actions)
        steps = min(steps, max(math.ceil(MAX_EPOCHS * len(inputs) / BATCH_SIZE), MIN_STEPS))
        optimizer = FlatAdam(self.network, learning_rate, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer.adam, steps)
        indices = np.random.default_rng(self._seed).integers(0, len(inputs), (steps, BATCH_SIZE))
        losses = []
        for rows in torch.from_numpy(indices):
            loss = (self.network(inputs[rows]) - target[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        return float(torch.stack(losses[-100:]).mean())

    @torch.no_grad()
    def __call__(self, observations: Mapping[str, Floats]) -> Floats:
        """Actions (n, A) for observations {key: (n, D)}."""
        keys = [key for key in (STATE, ENVIRONMENT_STATE) if key in observations]
        return self.act(np.concatenate([observations[key] for key in keys], axis=1))

    @torch.no_grad()
    def act(self, observations: Floats) -> Floats:
        """Actions (n, A) for flat observations (n, O)."""
        action: Floats = self.network(self._normalized(torch.from_numpy(observations))).numpy()
        return action

    def state(self) -> dict[str, torch.Tensor]:
        """Its weights by name."""
        weights = cpu_copies(self.network.state_dict(), "prior.")
        return weights | cpu_copies({"mean": self._normalized.mean, "scale": self._normalized.scale}, "prior_")

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore a `state`.

        Raises:
            ModelError: it is of another behaviour prior.
        """
        try:
            self.network.load_state_dict(under(tensors, "prior."))
            self._normalized.set(tensors["prior_mean"], tensors["prior_scale"])
        except (KeyError, RuntimeError) as error:
            raise ModelError(f"the checkpoint has another behaviour prior or none ({error})") from error
