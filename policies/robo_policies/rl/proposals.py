"""Cloned policies that propose actions to the learner (IBRL, arXiv 2311.02198)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.decisions import ENVIRONMENT_STATE, STATE, ActionMap
from robo_policies.rl.optimisers import FlatAdam
from robo_policies.rl.replay import Floats
from robo_policies.rl.scaling import MOST, scaling_of

BATCH = 256
"""Decisions in a batch of cloning."""
PASSES = 400
"""Times that each decision is cloned at most: after more of them a clone has learnt a few by heart, and does worse."""
FEWEST_STEPS = 200
"""Steps of cloning all the same, for as few decisions as one demonstration has."""


class PolicyProposals:
    """A policy folder's chunks as actions of decisions.

    Args:
        policy: what `robo_policies.load_policy` gives; reads the state, and the environment's state if it wants to.
        actions: how the learner's actions are carried out.

    Raises:
        ConfigError: the policy looks at images, or its chunk is shorter than a decision.
    """

    def __init__(self, policy: Any, actions: ActionMap) -> None:
        seen = [key for key in policy.dims if key.startswith("observation.images.")]
        if getattr(policy, "cameras", None) or seen:
            raise ConfigError(
                "the cloned policy looks at images, which are not rendered for every decision; "
                "train one from the state: robo-rm train-policy policy=act"
            )
        if policy.chunk_size < actions.repeat:
            raise ConfigError(
                f"the cloned policy's chunk of {policy.chunk_size} actions is shorter than a decision of "
                f"{actions.repeat} steps; give a smaller repeat"
            )
        self._policy, self._actions = policy, actions

    def __call__(self, observations: Mapping[str, Floats]) -> Floats:
        """Actions (n, A) for observations {key: (n, D)}."""
        wanted = {key: value for key, value in observations.items() if key in self._policy.dims}
        chunks = np.asarray(self._policy.act(wanted), dtype=np.float32)
        states = observations[STATE]
        return np.stack(
            [self._actions.action(s, c[: self._actions.repeat]) for s, c in zip(states, chunks, strict=True)]
        )


class ClonedDecisions:
    """A small network cloned from the demonstrated decisions: the proposer where no policy folder is given.

    Args:
        observation_size: O, without the potential.
        action_size: A.
        width: of its two hidden layers.
        seed: of the weights and the batches.
        unseen: columns of the observation that it shall not see.
    """

    def __init__(
        self, observation_size: int, action_size: int, width: int, seed: int, unseen: Sequence[int] = ()
    ) -> None:
        self._sizes, self._seed, self._unseen = (observation_size, width, action_size), seed, unseen
        self.network = self._fresh_network()
        self._mean = torch.zeros(observation_size)
        self._scale = torch.ones(observation_size)

    def _fresh_network(self) -> nn.Sequential:
        observation_size, width, action_size = self._sizes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            return nn.Sequential(
                nn.Linear(observation_size, width), nn.LayerNorm(width), nn.ReLU(),
                nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(),
                nn.Linear(width, action_size), nn.Tanh(),
            )  # fmt: skip

    def train(self, observations: Floats, actions: Floats, steps: int, learning_rate: float = 1e-3) -> float:
        """Clone the actions (n, A) taken at the observations (n, O), from scratch.

        Args:
            observations: (n, O).
            actions: (n, A).
            steps: at most; `PASSES` over the decisions, or `FEWEST_STEPS`, are enough.
            learning_rate: at the start; it falls to 0.

        Returns:
            The mean squared error of the last hundred steps.
        """
        self.network = self._fresh_network()
        self._mean, self._scale = (torch.from_numpy(values) for values in scaling_of(observations, self._unseen))
        seen, action = self._scaled(torch.from_numpy(observations)), torch.from_numpy(actions)
        steps = min(steps, max(math.ceil(PASSES * len(seen) / BATCH), FEWEST_STEPS))
        optimiser = FlatAdam(self.network, learning_rate, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser.adam, steps)
        drawn = torch.from_numpy(np.random.default_rng(self._seed).integers(0, len(seen), (steps, BATCH)))
        losses = []
        for rows in drawn:
            loss = (self.network(seen[rows]) - action[rows]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.detach())
        return float(torch.stack(losses[-100:]).mean())

    @torch.no_grad()
    def __call__(self, observations: Mapping[str, Floats]) -> Floats:
        """Actions (n, A) for observations {key: (n, D)}."""
        keys = [key for key in (STATE, ENVIRONMENT_STATE) if key in observations]
        seen = torch.from_numpy(np.concatenate([observations[key] for key in keys], axis=1))
        made: Floats = self.network(self._scaled(seen)).numpy()
        return made

    def _scaled(self, seen: torch.Tensor) -> torch.Tensor:
        return ((seen - self._mean) / self._scale).clamp(-MOST, MOST)

    def state(self) -> dict[str, torch.Tensor]:
        """Its weights by name."""
        held = {f"clone.{name}": value.clone() for name, value in self.network.state_dict().items()}
        return {**held, "clone_mean": self._mean.clone(), "clone_scale": self._scale.clone()}

    def load_state(self, held: Mapping[str, torch.Tensor]) -> None:
        """Take up a `state`.

        Raises:
            ModelError: it is of another clone.
        """
        try:
            mine = {n.removeprefix("clone."): v for n, v in held.items() if n.startswith("clone.")}
            self.network.load_state_dict(mine)
            self._mean, self._scale = held["clone_mean"], held["clone_scale"]
        except (KeyError, RuntimeError) as error:
            raise ModelError(f"the checkpoint holds another cloned policy or none ({error})") from error
