"""Episodes as training reads them: labels and states in memory, images decoded once as far as a budget allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robo_rm.encoders.stored import StoredFeatures
from robo_rm.labels.progress import ProgressLabels, stored_labels
from robo_rm.reward_models.frames import Size

DECODE_BLOCK = 256


@dataclass
class TrainingData:
    """E episodes, ready to have windows gathered from them.

    Images of the first episodes are kept as uint8 at the encoder's size until ``budget`` bytes are used; the others
    are decoded from the store each time, so that memory does not grow with the number of episodes. With ``features``
    (of a frozen encoder) the same holds of float16 features, which take the place of images.
    """

    labels: list[ProgressLabels]
    states: list[npt.NDArray[np.float32]] | None
    tasks: list[str]
    cameras: dict[str, Size]
    _episodes: list[Any]
    _cached: list[dict[str, npt.NDArray[Any]]]
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
        done: Callable[[int], None] = lambda frames: None,
        features: StoredFeatures | None = None,
        task_priors: Mapping[str, Sequence[float]] | None = None,
    ) -> TrainingData:
        """Read stored episodes.

        Args:
            episodes: of a `DemoStore`.
            priors: (K,) of the training split.
            cameras: key -> (height, width) of the encoder.
            state_key: key of the state, or None.
            budget: bytes of images to keep in memory.
            done: called with the number of frames decoded, now and then.
            features: of the frozen encoder, made already; they are read instead of images.
            task_priors: (K,) by instruction, for tasks that have priors of their own.
        """
        labels = frame_labels(episodes, priors, task_priors or {})
        states = None
        if state_key is not None:
            states = [np.asarray(e[state_key][:], dtype=np.float32) for e in episodes]
        cached: list[dict[str, npt.NDArray[Any]]] = []
        used = 0.0
        row_bytes = features.row_bytes if features is not None else sum(h * w * 3 for h, w in cameras.values())
        for episode in episodes:
            used += episode.length * row_bytes
            if used > budget:
                cached.append({})
            elif features is None:
                cached.append({key: _decode(episode, key, size, done) for key, size in cameras.items()})
            else:
                cached.append({key: features.read(episode.uuid, key) for key in cameras})
        tasks = [episode.task or "" for episode in episodes]
        return cls(labels, states, tasks, dict(cameras), list(episodes), cached, features)

    def images(self, episode: int, key: str, frames: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Images (S, h, w, 3) uint8, or features (S, F) float16, of the frames of an episode, given by its place in
        the list."""
        kept = self._cached[episode].get(key)
        if kept is not None:
            return kept[frames]
        if self.features is not None:
            return self.features.read(self._episodes[episode].uuid, key)[frames]
        # A window that pauses or turns back names a frame more than once; decode it once.
        distinct, place = np.unique(frames, return_inverse=True)
        decoded: npt.NDArray[np.uint8] = self._episodes[episode].frames(key, distinct, size=self.cameras[key])
        return decoded[place]

    def __len__(self) -> int:
        return len(self.labels)


def frame_labels(
    episodes: Sequence[Any], priors: npt.ArrayLike, task_priors: Mapping[str, Sequence[float]]
) -> list[ProgressLabels]:
    """Labels of stored episodes; arguments as in `TrainingData.load`."""
    return [stored_labels(episode, task_priors.get(episode.task or "", priors)) for episode in episodes]


def _decode(episode: Any, key: str, size: Size, done: Callable[[int], None]) -> npt.NDArray[np.uint8]:
    images = np.empty((episode.length, *size, 3), dtype=np.uint8)
    for start in range(0, episode.length, DECODE_BLOCK):
        stop = min(start + DECODE_BLOCK, episode.length)
        images[start:stop] = episode.frames(key, range(start, stop), size=size)
        done(stop - start)
    return images
