"""Progress that another program predicted for a LeRobot dataset's episodes, evaluated and used like a reward model.

LeRobot's SARM, Robometer and TOPReward write a file with the progress of every frame, `robo_datasets.lerobot_progress`.
``robo-rm train-reward reward=recorded reward.file=DIR/robometer_progress.parquet store=demos.zarr out=rm_robometer``
makes a model folder of it; eval-reward, leaderboard and score take that as any other. It knows those episodes and no
others: it cannot follow a robot, and no probe clips are made for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robo_core.errors import ConfigError, ModelError
from robo_datasets.lerobot_progress import SPARSE, ProgressFile
from robo_rm.labels.split import store_split
from robo_rm.reward_models.base import BaseRewardModel
from robo_rm.reward_models.baselines.episodes import every_episode
from robo_rm.reward_models.card import plain_card
from robo_rm.reward_models.placing import place_in_stages, stages_and_priors
from robo_rm.reward_models.prediction import Prediction
from robo_rm.reward_models.protocol import Observations, RewardStream
from robo_rm.reward_models.registry import FitRequest, FitResult, RewardKind
from robo_rm.reward_models.saving import built, read_tensors
from robo_rm.training.held_out import held_out_figures

NAME = "recorded"


@dataclass(frozen=True)
class RecordedSettings:
    """Progress from a file that LeRobot's SARM, Robometer or TOPReward wrote."""

    name: str = NAME
    """Which reward model this is."""
    file: str = ""
    """The file, in the folder of the LeRobot dataset that it is of, such as DIR/robometer_progress.parquet."""
    column: str = SPARSE
    """progress_sparse or progress_dense."""


@dataclass(frozen=True)
class RecordedDescription:
    """What makes the model, besides the progress itself."""

    stages: list[str]
    priors: list[float]
    column: str
    file_sha256: str


class RecordedModel(BaseRewardModel):
    """The progress (T,) of each episode by uuid; stages are placed by progress, and uncertainty is unknown (0)."""

    type_name = NAME

    def __init__(
        self,
        recorded: Mapping[str, npt.NDArray[np.float32]],
        description: RecordedDescription,
        provenance: Mapping[str, Any],
    ) -> None:
        super().__init__(description.stages, [], None, provenance)
        self.recorded, self.description, self.priors = dict(recorded), description, description.priors

    def predict(self, episode: Observations, task: str | None = None) -> Prediction:
        """The recorded progress.

        Raises:
            ModelError: there is none for this episode.
        """
        uuid = getattr(episode, "uuid", None)
        progress = self.recorded.get(str(uuid))
        if progress is None or len(progress) != getattr(episode, "length", None):
            raise ModelError(
                f"no progress was recorded for episode {uuid}: this model holds what another program predicted for "
                f"{len(self.recorded)} episodes, and knows no others"
            )
        nothing = np.zeros_like(progress)
        return Prediction(progress, place_in_stages(progress, nothing, self.priors), nothing)

    def stream(self, task: str | None = None) -> RewardStream:
        """Not possible.

        Raises:
            ModelError: always.
        """
        raise ModelError("recorded progress cannot follow an episode frame by frame; train a reward model for that")

    def card(self) -> str:
        """The model card, in Markdown."""
        return plain_card(self, NAME, "the progress of stored episodes as another program predicted it")

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The progress by uuid."""
        return {uuid: torch.tensor(values) for uuid, values in self.recorded.items()}


def fit(request: FitRequest) -> FitResult:
    """Read the file and write the folder; nothing is trained.

    Raises:
        ConfigError: there is no such file or column.
        ModelError: the folder holds a model already, or a value is not in [0, 1].
        StoreError: the file lacks an episode of the store, or a frame of one.
    """
    from robo_rm import __version__

    reward, store = request.reward, request.store
    path = Path(reward.file)
    if not reward.file or not path.is_file():
        raise ConfigError(f"reward.file={reward.file!r}: give a progress file of LeRobot's, DIR/sarm_progress.parquet")
    file = ProgressFile(path)
    if reward.column not in file.columns:
        raise ConfigError(f"reward.column={reward.column!r}: {path} has {', '.join(file.columns)}")
    if (request.folder / "config.yaml").exists() and not request.overwrite:
        raise ModelError(f"{request.folder} holds a model already; give another out=, or overwrite=true")
    recorded = {episode.uuid: _checked(file.progress(episode, reward.column), episode.uuid, path) for episode in store}
    train, held_out = store_split(store, every_episode(store), request.holdout, request.seed)
    stages, priors = stages_and_priors(store, train)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    provenance: dict[str, Any] = {
        # Whatever it was trained on, it was not trained here.
        "train_uuids": [],
        "holdout_uuids": [episode.uuid for episode in held_out],
        "store": str(store.path),
        "store_hash": store.content_hash(),
        "priors": priors,
        "fps": float(store.fps),
        "file": path.name,
        "code_version": __version__,
    }
    model = RecordedModel(recorded, RecordedDescription(stages, priors, reward.column, checksum), provenance)
    figures = held_out_figures(model, held_out) if held_out else {}
    metrics = {**figures, "train_episodes": 0, "holdout_episodes": len(held_out)}
    model.provenance = {**provenance, "figures": {k: v if np.isfinite(v) else None for k, v in metrics.items()}}
    model.save(request.folder, request.config)
    return FitResult(model, metrics)


def _checked(values: npt.NDArray[np.float32], uuid: str, path: Path) -> npt.NDArray[np.float32]:
    outside = (values < 0) | (values > 1)
    if outside.any():
        frame = int(np.argmax(outside))
        raise ModelError(f"{path}: the progress of episode {uuid} is {values[frame]:g} at frame {frame}, not in [0, 1]")
    return values


def load(folder: Path, described: Mapping[str, Any], provenance: Mapping[str, Any], device: str) -> RecordedModel:
    """Read a saved model.

    Raises:
        ModelError: the folder is damaged.
    """
    description = built(RecordedDescription, described, folder)
    recorded = {uuid: tensor.numpy() for uuid, tensor in read_tensors(folder).items()}
    return RecordedModel(recorded, description, provenance)


KIND = RewardKind(NAME, RecordedSettings, fit, load)
