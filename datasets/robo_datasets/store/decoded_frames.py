"""Frames that training reads again and again, decoded once as far as memory allows.

Reward models and policies read their images here. Those of the first episodes stay in memory until a budget is used
up; the others are decoded from the store each time, so that memory does not grow with the number of episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

BLOCK = 256
Size = tuple[int, int]


class Source(Protocol):
    """What is needed of a stored episode."""

    @property
    def length(self) -> int:
        """Number of frames."""

    def frames(self, key: str, indices: Sequence[int] | npt.NDArray[np.int64], size: Size) -> npt.NDArray[np.uint8]:
        """Frames (n, h, w, 3) of a camera, brought to a size."""


class DecodedFrames:
    """The frames of some cameras of some episodes.

    Args:
        episodes: where they are.
        cameras: key -> (height, width) to bring them to.
        budget: bytes of memory for decoded frames.
    """

    def __init__(self, episodes: Sequence[Source], cameras: Mapping[str, Size], budget: float) -> None:
        self.cameras = dict(cameras)
        self._episodes = list(episodes)
        per_frame = sum(height * width * 3 for height, width in cameras.values())
        ends = np.cumsum([episode.length * per_frame for episode in episodes])
        # Pages are only taken when a frame is written to them.
        self._stored = [
            {key: np.empty((episode.length, *size, 3), np.uint8) for key, size in cameras.items()}
            for episode in self._episodes[: int(np.searchsorted(ends, budget, side="right"))]
        ]
        self._known = [{key: np.zeros(len(rows), bool) for key, rows in stored.items()} for stored in self._stored]

    def load(self, done: Callable[[int], None] = lambda frames: None) -> None:
        """Decode what fits into memory; ``done`` is told the number of frames decoded, now and then."""
        for number, stored in enumerate(self._stored):
            for key, rows in stored.items():
                for start in range(0, len(rows), BLOCK):
                    block = np.arange(start, min(start + BLOCK, len(rows)))
                    self._fill(number, key, block)
                    done(len(block))

    def read(self, episode: int, key: str, frames: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Frames (n, h, w, 3) uint8 of a camera of an episode, given by its place.

        Raises:
            CorruptionError: stored bytes are damaged.
        """
        if episode >= len(self._stored):
            # A window that pauses or turns back names a frame more than once; decode it once.
            distinct, place = np.unique(frames, return_inverse=True)
            return self._decode(episode, key, distinct)[place]
        missing = frames[~self._known[episode][key][frames]]
        if len(missing):
            self._fill(episode, key, np.unique(missing))
        return self._stored[episode][key][frames]

    def _fill(self, episode: int, key: str, frames: npt.NDArray[np.int64]) -> None:
        self._stored[episode][key][frames] = self._decode(episode, key, frames)
        self._known[episode][key][frames] = True

    def _decode(self, episode: int, key: str, frames: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return self._episodes[episode].frames(key, frames, size=self.cameras[key])
