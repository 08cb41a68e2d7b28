"""Episodes as training reads them: labels and states in memory, images decoded once as far as a budget allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from robo_core.console import progress_bar
from robo_datasets.store.decoded_frames import DecodedFrames
from robo_datasets.store.windows import read_columns
from robo_rm.encoders.stored import CachedFeatures, StoredFeatures
from robo_rm.labels.progress import ProgressLabels, stored_labels
from robo_rm.reward_models.frames import Size


class ImageReader(Protocol):
    """Gives the images of episodes, or features in their place."""

    def read(self, episode: int, key: str, frames: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Images (S, h, w, 3) uint8, or features (S, F) float16, of the frames of an episode, given by its place."""


@dataclass
class TrainingData:
    """E episodes, ready to have windows gathered from them."""

    labels: list[ProgressLabels]
    states: list[npt.NDArray[np.float32]] | None
    tasks: list[str]
    cameras: dict[str, Size]
    reader: ImageReader
    features: StoredFeatures | None = None
    sparse: list[ProgressLabels] | None = None
    """Labels by the sparse stages, where both are learned."""

    @classmethod
    def load(
        cls,
        episodes: Sequence[Any],
        priors: npt.ArrayLike,
        cameras: Mapping[str, Size],
        state_key: str | None,
        budget: float,
        features: StoredFeatures | None = None,
        task_priors: Mapping[str, Sequence[float]] | None = None,
    ) -> TrainingData:
        """Read stored episodes.

        Args:
            episodes: of a `DemoStore`.
            priors: (K,) of the training split.
            cameras: key -> (height, width) of the encoder.
            state_key: key of the state, or None.
            budget: bytes of images, or features, to keep in memory.
            features: of the frozen encoder, made already; they are read instead of images.
            task_priors: (K,) by instruction, for tasks that have priors of their own.
        """
        labels = frame_labels(episodes, priors, task_priors or {})
        states = None
        if state_key is not None:
            states = read_columns(episodes, [state_key]).by_episode(state_key)
        tasks = [episode.task or "" for episode in episodes]
        if features is not None:
            reader: ImageReader = CachedFeatures(features, [episode.uuid for episode in episodes], budget)
        else:
            frames = DecodedFrames(episodes, cameras, budget)
            total = sum(episode.length for episode in episodes) * len(cameras)
            with progress_bar("read images", total, "frames") as bar:
                frames.load(bar.advance)
            reader = frames
        return cls(labels, states, tasks, dict(cameras), reader, features)

    def __len__(self) -> int:
        return len(self.labels)


def frame_labels(
    episodes: Sequence[Any], priors: npt.ArrayLike, task_priors: Mapping[str, Sequence[float]]
) -> list[ProgressLabels]:
    """Labels of stored episodes; arguments as in `TrainingData.load`."""
    return [stored_labels(episode, task_priors.get(episode.task or "", priors)) for episode in episodes]
