"""The protocol that every reward model meets; `check_reward_model` tests an implementation against it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from robo_core.arrays import Array
from robo_rm.reward_models.prediction import Estimate, Prediction

Frame: TypeAlias = int | None


class FrameArray(Protocol):
    """One feature of an episode, (T, ...): an array, or what reads the frames that are asked for."""

    def __len__(self) -> int:
        """T."""

    def __getitem__(self, frames: slice[Frame, Frame, Frame], /) -> Array:
        """Some of the frames."""


class Observations(Protocol):
    """An episode by feature: a stored one (`robo_datasets.Episode`) or a mapping of arrays.

    For example {"observation.images.front": (T, H, W, 3) uint8 RGB, "observation.state": (T, D) float32}. The
    attribute ``task``, where there is one, is the episode's instruction.
    """

    def __contains__(self, key: object, /) -> bool:
        """Whether it has the feature."""

    def __iter__(self) -> Iterator[str]:
        """Its features."""

    def __getitem__(self, key: str, /) -> FrameArray:
        """One feature."""


Said = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Progress (n,), stage probabilities (n, K) and uncertainty (n,)."""


@runtime_checkable
class RewardStream(Protocol):
    """Estimates frame by frame, in the order of time, at the store's rate."""

    def step(self, frames: Mapping[str, npt.NDArray[np.uint8]], state: npt.ArrayLike | None = None) -> Estimate:
        """Estimate for the newest frame; one new encode per camera.

        Args:
            frames: one uint8 RGB image (H, W, 3) per camera key.
            state: joint state (D,), where the model uses one.
        """

    def reset(self) -> None:
        """Begin a new episode."""


@runtime_checkable
class RewardModel(Protocol):
    """A model of task progress.

    What the contract asks: the outputs at frame t do not change, bit for bit, when later frames change; a stream
    equals `predict` to 1e-5; progress lies in [0, 1]; an episode alone equals the same one in a batch; a second call
    gives the same answer; a saved and loaded model is the same model.
    """

    stages: list[str]
    """Names of the K stages."""
    cameras: list[str]
    """Keys of the images it reads, "observation.images.<camera>"."""
    state_key: str | None
    """Key of the state it reads, or None."""
    provenance: Mapping[str, Any]
    """Where it came from: train_uuids, holdout_uuids, store, store_hash, stage priors, code version, ..."""
    frames_encoded: int
    """Images put through an encoder since the model was made; a stream adds one per camera and step."""

    def predict(self, episode: Observations, task: str | None = None) -> Prediction:
        """Estimates for every frame of one episode; ``task`` is the instruction, the episode's own if not given."""

    def predict_batch(self, episodes: Sequence[Observations], task: str | None = None) -> list[Prediction]:
        """Estimates for several episodes, in their order."""

    def stream(self, task: str | None = None) -> RewardStream:
        """Begin to follow one episode frame by frame."""

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model folder that `load_reward_model` reads."""


class TrainedModel(RewardModel, Protocol):
    """A reward model whose folder can also hold the settings it was trained with."""

    def save(self, folder: str | os.PathLike[str], settings: Mapping[str, Any] | None = None) -> None:
        """Write the model folder; ``settings`` are further sections of its config.yaml."""


@runtime_checkable
class ManyStreams(Protocol):
    """Many episodes followed at once; `Streams` is the one of models that look back."""

    def reset(self, which: npt.ArrayLike | None = None) -> None:
        """Begin new episodes: at the indices or the mask given, or all."""

    def step(
        self,
        frames: Mapping[str, npt.NDArray[np.uint8]],
        state: npt.ArrayLike | None = None,
        which: npt.ArrayLike | None = None,
    ) -> Said:
        """Progress (n,), stage probabilities (n, K) and uncertainty (n,) of the newest frames."""


@runtime_checkable
class StreamsMany(Protocol):
    """A model that follows many episodes at once."""

    def streams(self, count: int, task: str | None = None, every: int = 1) -> ManyStreams:
        """Follow ``count`` episodes at once, looking at every so many frames of the store's rate."""
