"""Progress as the share of time that has passed, learned from demonstrations and their rewound copies.

After ReWiND (arXiv 2505.10911): no stages; frame t of a demonstration of T frames is labelled t / T, a window that
turns back carries its frames' own labels, and failures are not used because nothing says how far they got. The
network, its windows and its augmentation are those of the stage-aware model with one stage, so that a comparison shows
what stages are worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robo_core.errors import ConfigError
from robo_rm.labels.grouping import SINGLE, GroupedStore
from robo_rm.reward_models.base import BaseRewardModel
from robo_rm.reward_models.baselines.episodes import OneStage, demonstrations, every_episode
from robo_rm.reward_models.card import plain_card
from robo_rm.reward_models.placing import place_in_stages, stages_and_priors
from robo_rm.reward_models.prediction import Estimate, Prediction
from robo_rm.reward_models.protocol import Observations
from robo_rm.reward_models.registry import FitRequest, FitResult, RewardKind
from robo_rm.reward_models.stage.model import StageRewardModel
from robo_rm.reward_models.stage.model_type import StagePlan
from robo_rm.reward_models.stage.model_type import load as load_stage_model
from robo_rm.reward_models.stage.network import StageNetwork
from robo_rm.reward_models.stage.trainer import Batch, StageObjective
from robo_rm.settings import StageSettings
from robo_rm.training.fit import Fit
from robo_rm.training.objective import RewardObjective

NAME = "frame_index"


@dataclass(frozen=True)
class FrameIndexSettings(StageSettings):
    """Frame-index progress with rewind."""

    name: str = NAME
    """Which reward model this is."""


class FrameIndexModel(BaseRewardModel):
    """Share of the task's time that has passed. It knows no uncertainty (0); stages are placed by progress."""

    type_name = NAME

    def __init__(self, inner: StageRewardModel, stages: Sequence[str], priors: Sequence[float]) -> None:
        self.inner, self.network, self.priors = inner, inner.network, list(priors)
        super().__init__(stages, inner.cameras, inner.state_key, inner.provenance, inner.device)

    @property
    def frames_encoded(self) -> int:
        """Images put through the encoder."""
        return self.inner.frames_encoded

    @frames_encoded.setter
    def frames_encoded(self, count: int) -> None:
        self.inner.frames_encoded = count

    def predict(self, episode: Observations, task: str | None = None) -> Prediction:
        """Estimates for every frame of one episode."""
        guess = self.inner.predict(episode, task)
        chances = place_in_stages(guess.progress, guess.uncertainty, self.priors)
        return Prediction(guess.progress, chances, guess.uncertainty)

    def stream(self, task: str | None = None) -> FrameIndexStream:
        """Follow an episode frame by frame."""
        return FrameIndexStream(self, task)

    def described(self) -> Mapping[str, Any]:
        """Its own stages and priors, and the model of one stage inside."""
        return {"stages": self.stages, "priors": self.priors, "inner": asdict(self.inner.description)}

    def card(self) -> str:
        """The model card, in Markdown."""
        what = "time passed as a share of the whole, after ReWiND: no stages, labels t / T, rewound windows"
        return plain_card(self, "frame-index progress with rewind", what)


class FrameIndexStream:
    """The stage-aware model's stream, with stages placed by progress."""

    def __init__(self, model: FrameIndexModel, task: str | None) -> None:
        self._model, self._inner = model, model.inner.stream(task)

    def step(self, frames: Mapping[str, Any], state: Any = None) -> Estimate:
        """Estimate for the newest frame."""
        step = self._inner.step(frames, state)
        # In single precision, as in a whole episode.
        progress, spread = np.array([[step.progress], [step.uncertainty]], dtype=np.float32)
        chances = place_in_stages(progress, spread, self._model.priors)
        return Estimate(step.progress, chances[0], step.uncertainty)

    def reset(self) -> None:
        """Begin a new episode."""
        self._inner.reset()


class FrameIndexObjective(RewardObjective[Batch, StageNetwork]):
    """What trains the stage-aware model of one stage; the model that it makes is a frame-index model."""

    def __init__(self, inner: StageObjective, stages: Sequence[str], priors: Sequence[float]) -> None:
        super().__init__(inner.network, inner.settings, inner.seed, inner.device)
        self.losses, self._inner, self._stages, self._priors = inner.losses, inner, stages, priors
        self.batch, self.loss = inner.batch, inner.loss  # type: ignore[method-assign]

    def model(self, provenance: Mapping[str, object]) -> FrameIndexModel:
        """The model of a copy of the weights as they are now."""
        return FrameIndexModel(self._inner.model(provenance), self._stages, self._priors)


class FrameIndexPlan:
    """A plan for one stage over demonstrations; see `robo_rm.training.fit.Plan`."""

    def __init__(self, request: FitRequest, train: Sequence[Any]) -> None:
        if request.reward.sparse is not None:
            raise ConfigError("reward.sparse: the frame index knows one stage only; give it with reward=stage")
        self.stages, self.priors = stages_and_priors(request.store, train)
        one = GroupedStore(request.store, {SINGLE: []})
        self._inner = StagePlan(replace(request, store=one), [OneStage(episode) for episode in train])
        self.frames_per_step: int = self._inner.frames_per_step
        self.state_key: str | None = self._inner.state_key
        self.labelled, self.notes = False, list[str]()
        self.provenance: Mapping[str, Any] = {**self._inner.provenance, "priors": self.priors}

    def objective(self, device: str) -> FrameIndexObjective:
        """Read the demonstrations and make what is trained."""
        return FrameIndexObjective(self._inner.objective(device), self.stages, self.priors)


def fit(request: FitRequest) -> FitResult:
    """Train on the episodes of a store that did not fail; stage labels are not needed."""
    return Fit(request, FrameIndexPlan, every_episode, demonstrations).run()


def load(folder: Path, described: Mapping[str, Any], provenance: Mapping[str, Any], device: str) -> FrameIndexModel:
    """Read a saved model.

    Raises:
        ModelError: the folder is damaged.
    """
    stages, priors, inner = (described.get(key) for key in ("stages", "priors", "inner"))
    model = load_stage_model(folder, inner or {}, provenance, device)
    return FrameIndexModel(model, list(stages or []), list(priors or []))


KIND = RewardKind(NAME, FrameIndexSettings, fit, load)
