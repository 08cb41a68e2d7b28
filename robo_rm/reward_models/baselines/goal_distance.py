"""Progress as nearness to the goal in a learned space, where distance is time.

In the family of VIP (arXiv 2210.00030) and LIV: an encoder phi such that the distance to a goal image tells how much
of the task is left. What it is here: phi is the conv encoder, trained on the demonstrations of the store by regression
|phi(o_i) - phi(o_j)| = |i - j| / T for frames i, j of one successful episode, with a hinge that keeps any frame of a
failure away from the ends of successes. (VIP trains the same quantity by its dual value objective over videos of
many tasks; on one task with few episodes the regression is the stronger and simpler of the two.) The goal is the mean
of phi over the last frames of the training successes, and

    progress = 1 - d(o_t, goal) / d(o_0, goal)      clamped to [0, 1], as VIP normalises its rewards

so that it begins at 0. A task that ends where it began has no such distance; the stage-aware model is for those.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from robo_core.errors import ConfigError
from robo_rm.reward_models.base import InputSpec
from robo_rm.reward_models.baselines.episodes import demonstrations, every_episode
from robo_rm.reward_models.baselines.network import (
    FrameData,
    FrameDescription,
    FrameNetwork,
    FrameObjective,
    FramePlan,
    NetworkModel,
    Samples,
)
from robo_rm.reward_models.blocks import FRAMES_PER_BLOCK
from robo_rm.reward_models.card import plain_card
from robo_rm.reward_models.registry import FitRequest, FitResult, RewardKind
from robo_rm.settings import ConvSettings, ImageAugmentation
from robo_rm.training.fit import Fit
from robo_rm.training.objective import IMAGES, WINDOWS

NAME = "goal_distance"
# A start nearer to the goal than this share of an episode cannot be distinguished from it.
NEAREST_START = 0.1


@dataclass(frozen=True)
class GoalDistanceSettings:
    """Nearness to the goal in a learned space."""

    name: str = NAME
    """Which reward model this is."""
    width: int = 128
    """Length of a token."""
    size: int = 32
    """Dimensions of the space."""
    frames: int = 8
    """Frames drawn from an episode at a time; every pair of them is regressed."""
    use_state: bool = True
    """Read observation.state where the store has it."""
    failures: float = 0.5
    """Weight of the hinge that keeps frames of failures away from the goal."""
    augmentation: ImageAugmentation = field(default_factory=ImageAugmentation)
    """Changes of appearance in training."""


@dataclass(frozen=True)
class GoalDistanceDescription(FrameDescription):
    """What, besides the weights, makes the model; ``start`` is how far from the goal episodes begin."""

    start: float
    reward: GoalDistanceSettings

    def network(self) -> GoalDistanceNetwork:
        """A network of this shape with fresh weights, its goal at 0."""
        return GoalDistanceNetwork(self, self.encoder, self.reward.width, self.reward.size)


class GoalDistanceNetwork(FrameNetwork):
    """The space, and where the goal lies in it."""

    goal: torch.Tensor

    def __init__(self, input_spec: InputSpec, encoder: ConvSettings, width: int, out: int) -> None:
        super().__init__(input_spec, encoder, width, out)
        self.register_buffer("goal", torch.zeros(out))


class GoalDistanceModel(NetworkModel[GoalDistanceDescription, GoalDistanceNetwork]):
    """Nearness to the goal. It knows no uncertainty (0)."""

    type_name = NAME

    def read(self, features: torch.Tensor, first: torch.Tensor, task: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Progress (n,) and no uncertainty."""
        left = (features - self.network.goal).norm(dim=-1)
        # An episode that is said to begin at the goal is measured by the usual way, or it would end at once.
        whole = (first - self.network.goal).norm().clamp(min=NEAREST_START * self.description.start)
        progress = (1 - left / whole).clamp(0, 1)
        return progress, torch.zeros_like(progress)

    def card(self) -> str:
        """The model card, in Markdown."""
        return plain_card(self, "goal distance", "nearness to the goal in a space where distance is time, after VIP")


class GoalDistanceObjective(FrameObjective[GoalDistanceDescription, GoalDistanceNetwork]):
    """The regression of distances, and of the goal's place by a running mean."""

    losses: tuple[str, ...] = ("total", "distance", "failure")

    def __init__(self, description: GoalDistanceDescription, data: FrameData, request: FitRequest, device: str) -> None:
        super().__init__(description, data, request, device)
        self._good = np.flatnonzero([outcome is not False for outcome in data.success])
        self._failed = np.flatnonzero([outcome is False for outcome in data.success])

    def batch(self, number: int) -> Samples:
        """Frames of demonstrations, the last always among them, then as many of failures."""
        rng = np.random.default_rng((self.seed, WINDOWS, number))
        good = self._good[self.episodes_of(number, len(self._good))]
        frames = np.stack([rng.integers(self.data.lengths[e], size=self.reward.frames) for e in good])
        frames[:, -1] = self.data.lengths[good] - 1
        if self._failed.size and self.reward.failures:
            bad = rng.choice(self._failed, size=max(1, len(good) // 4))
            shown = np.stack([rng.integers(self.data.lengths[e], size=self.reward.frames) for e in bad])
            good, frames = np.concatenate([good, bad]), np.concatenate([frames, shown])
        return self.data.gather(
            good, frames, np.random.default_rng((self.seed, IMAGES, number)), self.reward.augmentation
        )

    def loss(self, batch: Samples) -> dict[str, torch.Tensor]:
        """Squared error of all distances within a demonstration, and the hinge on failures."""
        places = self.vectors(batch).float().unflatten(0, batch.frames.shape)
        failed = torch.from_numpy(np.isin(batch.episode, self._failed)).to(self.device)
        share = torch.from_numpy(batch.frames / self.data.lengths[batch.episode][:, None]).float().to(self.device)
        good, when = places[~failed], share[~failed]
        apart = torch.linalg.vector_norm(good[:, :, None] - good[:, None, :] + 1e-6, dim=-1)
        distance = F.mse_loss(apart, (when[:, :, None] - when[:, None, :]).abs())
        ends = good[:, -1].mean(dim=0)
        with torch.no_grad():
            self.network.goal.lerp_(ends, 0.02 if self.number else 1.0)
        failure = distance.new_zeros(())
        if bool(failed.any()):
            # How far a failure had still to go is not known; a tenth of the task at least.
            failure = F.relu(0.1 - (places[failed] - ends).norm(dim=-1)).mean()
        return {"total": distance + self.reward.failures * failure, "distance": distance, "failure": failure}

    def model(self, provenance: Mapping[str, Any]) -> GoalDistanceModel:
        """A copy of the network as it is now, its goal measured again on unchanged images."""
        network = copy.deepcopy(self.network)
        model = GoalDistanceModel(network, self.description, provenance, self.device)
        ends = self._places(model, self.data.lengths - 1)
        network.goal.copy_(ends.mean(dim=0))
        start = float((self._places(model, np.zeros_like(self.data.lengths)) - network.goal).norm(dim=-1).median())
        return GoalDistanceModel(network, replace(self.description, start=start), provenance, self.device)

    def _places(self, model: GoalDistanceModel, frames: npt.NDArray[np.int64]) -> torch.Tensor:
        """Places of one frame of each demonstration."""
        parts = np.array_split(self._good, range(FRAMES_PER_BLOCK, len(self._good), FRAMES_PER_BLOCK))
        return torch.cat([self.still(model, part, frames[part][:, None]) for part in parts])


def plan(request: FitRequest, train: Sequence[Any]) -> FramePlan:
    """What the settings make of a store.

    Raises:
        ConfigError: a setting makes no sense; names it.
    """
    reward = request.reward
    for name, least in (("width", 1), ("size", 1), ("frames", 2)):
        if getattr(reward, name) < least:
            raise ConfigError(f"reward.{name}={getattr(reward, name)}: give {least} or more")
    if reward.failures < 0:
        raise ConfigError(f"reward.failures={reward.failures}: give a weight of 0 or more")
    demonstrations(train)
    return FramePlan(request, train, partial(GoalDistanceDescription, start=0.0), GoalDistanceObjective)


def fit(request: FitRequest) -> FitResult:
    """Train on the episodes of a store; stage labels are not needed."""
    return Fit(request, plan, every_episode).run()


KIND = RewardKind(NAME, GoalDistanceSettings, fit, partial(GoalDistanceModel.restore, GoalDistanceDescription))
