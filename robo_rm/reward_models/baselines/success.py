"""Progress as the probability that the task is done: a success classifier on single frames.

The usual reward of robot learning from images. Frames at the end of successes are positive, earlier ones and all of
failures are negative, drawn evenly. Its probabilities are calibrated (Platt: a scale and an offset of the logit) on
training episodes that the network does not learn from. It says nothing of the way to success, which the figures show.
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

from robo_core.errors import ConfigError, LabelError
from robo_rm.labels.outcomes import HOW_TO_MARK
from robo_rm.reward_models.baselines.episodes import every_episode, known_outcomes
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
from robo_rm.settings import ImageAugmentation
from robo_rm.training.fit import Fit
from robo_rm.training.objective import IMAGES, WINDOWS

NAME = "success"


@dataclass(frozen=True)
class SuccessSettings:
    """Success classifier."""

    name: str = NAME
    """Which reward model this is."""
    width: int = 128
    """Length of a token."""
    end_seconds: float = 0.5
    """How much of a success's end shows the task done; as much before it is left out."""
    frames: int = 8
    """Frames drawn from an episode at a time."""
    use_state: bool = True
    """Read observation.state where the store has it."""
    calibration: float = 0.15
    """Share of the training episodes that only calibrate; 0 for no calibration."""
    augmentation: ImageAugmentation = field(default_factory=ImageAugmentation)
    """Changes of appearance in training."""


@dataclass(frozen=True)
class SuccessDescription(FrameDescription):
    """What, besides the weights, makes the model; ``scale`` and ``offset`` calibrate its logit."""

    scale: float
    offset: float
    reward: SuccessSettings


class SuccessModel(NetworkModel[SuccessDescription, FrameNetwork]):
    """Probability of success as progress p, from logits (n, 1); the uncertainty is that of a coin with it,
    sqrt(p (1 - p))."""

    type_name = NAME

    def read(self, features: torch.Tensor, first: torch.Tensor, task: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Probability (n,) and its uncertainty (n,)."""
        chance = torch.sigmoid(self.description.scale * features[:, 0] + self.description.offset)
        return chance, (chance * (1 - chance)).sqrt()

    def card(self) -> str:
        """The model card, in Markdown."""
        return plain_card(self, "success classifier", "the probability that the picture shows the task done")


class SuccessObjective(FrameObjective[SuccessDescription, FrameNetwork]):
    """Binary cross-entropy on frames, half of them positive."""

    def __init__(self, description: SuccessDescription, data: FrameData, request: FitRequest, device: str) -> None:
        super().__init__(description, data, request, device)
        self._end = max(1, round(self.reward.end_seconds * description.fps))
        good = np.flatnonzero([outcome is True for outcome in data.success])
        failed = np.flatnonzero([outcome is False for outcome in data.success])
        self._good, good_aside = _set_aside(good, self.reward.calibration, request.seed)
        self._failed, failed_aside = _set_aside(failed, self.reward.calibration, request.seed)
        self._aside = [*good_aside.tolist(), *failed_aside.tolist()]
        self._learned = np.concatenate([self._good, self._failed])

    def batch(self, number: int) -> Samples:
        """Rows of one episode: of successes half the frames from the end, of failures any."""
        rng = np.random.default_rng((self.seed, WINDOWS, number))
        chosen = self._learned[self.episodes_of(number, len(self._learned))]
        frames = np.stack([self._draw(rng, int(episode)) for episode in chosen])
        rng = np.random.default_rng((self.seed, IMAGES, number))
        return self.data.gather(chosen, frames, rng, self.reward.augmentation)

    def loss(self, batch: Samples) -> dict[str, torch.Tensor]:
        """Cross-entropy, both outcomes weighing the same."""
        logit = self.vectors(batch)
        truth = torch.from_numpy(self._truth(batch.episode, batch.frames)).float().flatten().to(self.device)
        positive = truth.mean().clamp(0.05, 0.95)
        weight = torch.where(truth > 0, 0.5 / positive, 0.5 / (1 - positive))
        return {"total": F.binary_cross_entropy_with_logits(logit.float()[:, 0], truth, weight)}

    def model(self, provenance: Mapping[str, Any]) -> SuccessModel:
        """A copy of the network as it is now, calibrated."""
        network = copy.deepcopy(self.network)
        model = SuccessModel(network, self.description, provenance, self.device)
        if not self._aside:
            return model
        logits, truth = self._look_aside(model)
        scale, offset = platt(logits, truth)
        return SuccessModel(network, replace(self.description, scale=scale, offset=offset), provenance, self.device)

    def _draw(self, rng: np.random.Generator, episode: int) -> npt.NDArray[np.int64]:
        length, count = int(self.data.lengths[episode]), self.reward.frames
        if self.data.success[episode] is not True:
            return rng.integers(length, size=count)
        end = min(self._end, length)
        late = rng.integers(length - end, length, size=count // 2)
        early = rng.integers(max(length - 2 * end, 1), size=count - count // 2)
        return np.concatenate([early, late])

    def _truth(self, episode: npt.NDArray[np.int64], frames: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        good = np.array([self.data.success[number] is True for number in episode])
        return np.asarray(good[:, None] & (frames >= (self.data.lengths[episode] - self._end)[:, None]))

    def _look_aside(self, model: SuccessModel) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Logits and truth of every fourth frame of the episodes set aside."""
        logits, truth = [], []
        for episode in self._aside:
            every = np.arange(0, self.data.lengths[episode], 4)
            for begin in range(0, len(every), FRAMES_PER_BLOCK):
                one, frames = np.array([episode]), every[None, begin : begin + FRAMES_PER_BLOCK]
                logits.append(self.still(model, one, frames)[:, 0].cpu().numpy())
                truth.append(self._truth(one, frames)[0])
        return np.concatenate(logits).astype(np.float64), np.concatenate(truth).astype(np.float64)


def platt(logits: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Scale and offset of the logit with the highest likelihood (Platt 1999), pulled a little towards (1, 0)."""
    from scipy.optimize import minimize

    def cost(parameters: npt.NDArray[np.float64]) -> float:
        z = parameters[0] * logits + parameters[1]
        pull = (parameters[0] - 1) ** 2 + 0.01 * parameters[1] ** 2
        return float((np.logaddexp(0, z) - truth * z).sum() + pull)

    found = minimize(cost, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(0.01, 20.0), (-20.0, 20.0)])
    return float(found.x[0]), float(found.x[1])


def _set_aside(episodes: npt.NDArray[np.int64], share: float, seed: int) -> tuple[npt.NDArray[np.int64], ...]:
    """(learned from, only calibrating): none is set aside of fewer than four."""
    count = round(share * len(episodes)) if len(episodes) >= 4 else 0
    order = np.random.default_rng((seed, 7)).permutation(episodes)
    return np.sort(order[count:]), np.sort(order[:count])


def plan(request: FitRequest, train: Sequence[Any]) -> FramePlan:
    """What the settings make of a store.

    Raises:
        ConfigError, LabelError: a setting makes no sense, or no episode is a success.
    """
    reward = request.reward
    if reward.width < 1 or reward.frames < 2 or reward.end_seconds <= 0 or not 0 <= reward.calibration < 0.5:
        raise ConfigError(
            f"reward.width={reward.width} reward.frames={reward.frames} reward.end_seconds={reward.end_seconds} "
            f"reward.calibration={reward.calibration}: need 1 or more, 2 or more, above 0, and 0 to below 0.5"
        )
    if not any(episode.success is True for episode in train):
        raise LabelError(f"no training episode of {request.store.path} is marked as a success; {HOW_TO_MARK}")
    return FramePlan(request, train, partial(SuccessDescription, scale=1.0, offset=0.0), SuccessObjective)


def fit(request: FitRequest) -> FitResult:
    """Train on the episodes of a store whose outcome is known; stage labels are not needed."""
    return Fit(request, plan, every_episode, known_outcomes).run()


KIND = RewardKind(NAME, SuccessSettings, fit, partial(SuccessModel.restore, SuccessDescription))
