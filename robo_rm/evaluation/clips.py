"""Probe clips: a stored episode's frames in another order, read frame by frame as asked for.

A model that looks at the image follows a clip wherever it goes; a model that counts frames sees progress in a paused
video, and one that only expects progress sees it in a video that turns back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from robo_datasets import Episode
    from robo_datasets.store.episode import EpisodeArray

IMAGES = "observation.images."


class Clip:
    """An episode whose frame t is the source's frame ``order[t]``; a reward model reads it like any episode.

    ``images`` (T,) is the order of the cameras' frames where it is another, as of a camera that has frozen.
    """

    def __init__(
        self, episode: Episode, order: npt.ArrayLike, keys: Sequence[str], images: npt.ArrayLike | None = None
    ) -> None:
        self.order: npt.NDArray[np.int64] = np.asarray(order, dtype=np.int64)
        self.images = self.order if images is None else np.asarray(images, dtype=np.int64)
        self.length = len(self.order)
        self.task = getattr(episode, "task", None)
        self._episode, self._keys = episode, list(keys)

    def __contains__(self, key: object) -> bool:
        """Whether the clip has this key."""
        return key in self._keys and key in self._episode

    def __iter__(self) -> Iterator[str]:
        """The clip's keys."""
        return iter(self._keys)

    def __len__(self) -> int:
        """Frames."""
        return self.length

    def __getitem__(self, key: str) -> ClipArray:
        """One feature in the clip's order."""
        return ClipArray(self._episode[key], self.images if key.startswith(IMAGES) else self.order)

    def frames(self, key: str, indices: Iterable[int], size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
        """Frames (n, h, w, 3) of a camera, as `robo_datasets` episodes give them."""
        order = self.images if key.startswith(IMAGES) else self.order
        unique, place = np.unique(order[np.asarray(list(indices), dtype=np.int64)], return_inverse=True)
        found: npt.NDArray[np.uint8] = self._episode.frames(key, [int(i) for i in unique], size=size)
        return found[place]


class ClipArray:
    """Rows of a source array in a clip's order: index it by int, slice or list."""

    def __init__(self, source: EpisodeArray, order: npt.NDArray[np.int64]) -> None:
        self._source, self._order = source, order

    def __len__(self) -> int:
        """Frames."""
        return len(self._order)

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, ...)."""
        return (len(self._order), *self._source.shape[1:])

    def __getitem__(self, index: int | slice | Sequence[int]) -> npt.NDArray[np.generic]:
        """Rows at ``index``."""
        picked = self._order[index]
        if np.ndim(picked) == 0:
            return np.asarray(self._source[int(picked)])
        # Each frame of the source is read once, however often the clip shows it.
        unique, place = np.unique(picked, return_inverse=True)
        return np.asarray(self._source[[int(i) for i in unique]])[place]


def backwards(length: int) -> npt.NDArray[np.int64]:
    """Order of a video played backwards."""
    return np.arange(length)[::-1].copy()


def paused(length: int, at: float = 0.5) -> npt.NDArray[np.int64]:
    """Order of a video that stands still from the fraction ``at`` of its length on."""
    return np.minimum(np.arange(length), max(int(length * at) - 1, 0))


def rewound(length: int, at: float = 0.6) -> npt.NDArray[np.int64]:
    """Order of a video that turns at the fraction ``at`` of its length and runs back."""
    turn = max(int(length * at) - 1, 0)
    return np.maximum(turn - np.abs(np.arange(length) - turn), 0)


def hovering(length: int, at: int, reach: int) -> npt.NDArray[np.int64]:
    """Order of a video that comes up to frame ``at`` and then goes to and fro over the ``reach`` frames before it."""
    reach = max(1, min(reach, at))
    swing = np.abs((np.arange(length) - at) % (2 * reach) - reach)
    return np.where(np.arange(length) <= at, np.arange(length), at - reach + swing)


def shuffled(length: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Order of a video whose frames after the first come at random."""
    return np.concatenate([[0], 1 + np.random.default_rng(seed).permutation(length - 1)])[:length]
