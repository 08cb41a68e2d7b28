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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from robo_core.errors import ConfigError
from robo_rm.reward_models.baselines.episodes import demonstrations, every_episode
from robo_rm.reward_models.baselines.network import FrameData, FrameNetwork, Samples, look_at, run_network
from robo_rm.reward_models.blocks import FRAMES_PER_BLOCK
from robo_rm.reward_models.card import plain_card
from robo_rm.reward_models.per_frame import InputSpec, PerFrameModel
from robo_rm.reward_models.registry import FitRequest, FitResult, RewardKind
from robo_rm.reward_models.saving import built, fill_weights
from robo_rm.settings import ConvSettings, ImageAugmentation
from robo_rm.training.device import pick_device
from robo_rm.training.fit import Fit
from robo_rm.training.objective import IMAGES, WINDOWS, RewardObjective

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
class GoalDistanceDescription:
    """What, besides the weights, makes the model."""

    stages: list[str]
    priors: list[float]
    cameras: dict[str, tuple[int, int]]
    state_key: str | None
    state_size: int
    fps: float
    start: float
    reward: GoalDistanceSettings
    encoder: ConvSettings

    @property
    def input_spec(self) -> InputSpec:
        """What it reads."""
        cameras = {key: (int(size[0]), int(size[1])) for key, size in self.cameras.items()}
        return InputSpec(self.stages, self.priors, cameras, self.state_key, self.state_size, self.fps)


class GoalDistanceNetwork(FrameNetwork):
    """The space, and where the goal lies in it."""

    goal: torch.Tensor

    def __init__(self, input_spec: InputSpec, encoder: ConvSettings, width: int, out: int) -> None:
        super().__init__(input_spec, encoder, width, out)
        self.register_buffer("goal", torch.zeros(out))


class GoalDistanceModel(PerFrameModel):
    """Nearness to the goal. It knows no uncertainty (0)."""

    type_name = NAME
    network: GoalDistanceNetwork

    def __init__(
        self,
        network: GoalDistanceNetwork,
        description: GoalDistanceDescription,
        provenance: Mapping[str, Any],
        device: str,
    ) -> None:
        super().__init__(description.input_spec, provenance, device)
        self.description = description
        self.network = network.to(device).eval().requires_grad_(False)

    def features(
        self, images: Mapping[str, npt.NDArray[np.uint8]], state: npt.NDArray[np.float32] | None
    ) -> torch.Tensor:
        """Places (n, D) in the space."""
        return run_network(self.network, self.input_spec, images, state, self.device)

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


class GoalDistanceObjective(RewardObjective[Samples, GoalDistanceNetwork]):
    """The regression of distances, and of the goal's place by a running mean."""

    losses: tuple[str, ...] = ("total", "distance", "failure")

    def __init__(self, description: GoalDistanceDescription, data: FrameData, request: FitRequest, device: str) -> None:
        self.description, self.data, self.reward = description, data, description.reward
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(request.seed)
            network = GoalDistanceNetwork(
                description.input_spec, description.encoder, self.reward.width, self.reward.size
            )
        data.set_state_statistics(network)
        super().__init__(network.to(device), request.optimiser, request.seed, device)
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
        with self.half():
            flat = run_network(self.network, self.description.input_spec, batch.images, batch.state, self.device)
        places = flat.float().unflatten(0, batch.frames.shape)
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
        description = GoalDistanceDescription(**{**self.description.__dict__, "start": start})
        return GoalDistanceModel(network, description, provenance, self.device)

    def _places(self, model: GoalDistanceModel, frames: npt.NDArray[np.int64]) -> torch.Tensor:
        """Places of one frame of each demonstration."""
        still = ImageAugmentation(0, 0, 0, 0, 0, 0, 0)
        rows = []
        for begin in range(0, len(self._good), FRAMES_PER_BLOCK):
            part = self._good[begin : begin + FRAMES_PER_BLOCK]
            samples = self.data.gather(part, frames[part][:, None], np.random.default_rng(0), still)
            with torch.inference_mode():
                rows.append(model.features(samples.images, samples.state))
        return torch.cat(rows)


class GoalDistancePlan:
    """See `robo_rm.training.fit.Plan`."""

    def __init__(self, request: FitRequest, train: Sequence[Any]) -> None:
        check(request)
        demonstrations(train)
        self.request, self.train, self.input_spec = request, train, look_at(request, train)
        self.description = GoalDistanceDescription(
            **self.input_spec._asdict(), start=0.0, reward=request.reward, encoder=request.encoder
        )
        self.state_key: str | None = self.input_spec.state_key
        self.labelled, self.notes = False, list[str]()
        self.frames_per_step = request.optimiser.batch * request.reward.frames
        self.provenance: Mapping[str, Any] = {
            "priors": self.input_spec.priors,
            "fps": self.input_spec.fps,
            "encoder": request.encoder.name,
        }

    def objective(self, device: str) -> GoalDistanceObjective:
        """Read the training split and make what is trained."""
        data = FrameData(self.request, self.train, self.input_spec)
        return GoalDistanceObjective(self.description, data, self.request, device)


def check(request: FitRequest) -> None:
    """Refuse settings that make no sense.

    Raises:
        ConfigError: names the setting.
    """
    reward = request.reward
    for name, least in (("width", 1), ("size", 1), ("frames", 2)):
        if getattr(reward, name) < least:
            raise ConfigError(f"reward.{name}={getattr(reward, name)}: give {least} or more")
    if reward.failures < 0:
        raise ConfigError(f"reward.failures={reward.failures}: give a weight of 0 or more")


def fit(request: FitRequest) -> FitResult:
    """Train on the episodes of a store; stage labels are not needed."""
    return Fit(request, GoalDistancePlan, every_episode).run()


def load(folder: Path, described: Mapping[str, Any], provenance: Mapping[str, Any], device: str) -> GoalDistanceModel:
    """Read a saved model.

    Raises:
        ModelError: the folder is damaged.
    """
    description = built(GoalDistanceDescription, described, folder)
    reward = description.reward
    network = GoalDistanceNetwork(description.input_spec, description.encoder, reward.width, reward.size)
    fill_weights(network, folder)
    return GoalDistanceModel(network, description, provenance, pick_device(device))


KIND = RewardKind(NAME, GoalDistanceSettings, fit, load)
