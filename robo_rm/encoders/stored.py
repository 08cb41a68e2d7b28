"""Features of a frozen encoder, computed once and stored beside the episodes in ``derived/features-<hash>/``.

One set for each camera, keyed by what the features depend on (`FrozenEncoder.identity`); an episode's frames never
change, so its name stands for them. Written episode by episode: an interrupted run loses one episode's work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robo_core.console import progress_bar
from robo_rm.encoders.frozen import FrozenEncoder

if TYPE_CHECKING:
    from robo_datasets import DemoStore, Episode

NAME = "features"
DECODE_BLOCK = 64


class StoredFeatures:
    """The features of one encoder in one store.

    Args:
        store: `DemoStore`.
        identity: of the encoder, `FrozenEncoder.identity`.
        cameras: keys of the images.
    """

    def __init__(self, store: DemoStore, identity: Mapping[str, Any], cameras: Sequence[str]) -> None:
        self._sets = {key: store.derive(NAME, {"encoder": dict(identity), "camera": key}) for key in cameras}

    def has(self, uuid: str) -> bool:
        """Whether the features of an episode are there, for all cameras."""
        return all(uuid in derived for derived in self._sets.values())

    def read(self, uuid: str, key: str) -> npt.NDArray[np.float16]:
        """Features (T, F) of an episode and camera.

        Raises:
            StoreError: they have not been made. CorruptionError: the file is damaged.
        """
        features: npt.NDArray[np.float16] = self._sets[key].read(uuid)[NAME]
        return features

    def make(self, encoder: Callable[[], FrozenEncoder], episodes: Sequence[Episode]) -> int:
        """Compute what is missing and return the number of images encoded; ``encoder`` is only called if need be.

        Raises:
            ModelError: the encoder is not available. StoreError: the store cannot be written to.
        """
        waiting = [(episode, key) for episode in episodes for key in self._sets if episode.uuid not in self._sets[key]]
        if not waiting:
            return 0
        total = sum(episode.length for episode in episodes) * len(self._sets)
        left = sum(episode.length for episode, _ in waiting)
        run = encoder()
        with progress_bar("encode images", total, "frames", done=total - left) as bar:
            for episode, key in waiting:
                parts = []
                for start in range(0, episode.length, DECODE_BLOCK):
                    block = range(start, min(start + DECODE_BLOCK, episode.length))
                    # Whole frames, as a stream has them: decoding at a smaller size gives slightly other pixels.
                    parts.append(run.encode(episode[key][block.start : block.stop]))
                    bar.advance(len(block))
                self._sets[key].write(episode.uuid, {NAME: np.concatenate(parts)})
        return left


class CachedFeatures:
    """The features of some episodes; those of the first ones stay in memory until a budget is used up.

    Args:
        features: where they are.
        uuids: the episodes.
        budget: bytes of memory.
    """

    def __init__(self, features: StoredFeatures, uuids: Sequence[str], budget: float) -> None:
        self._features, self._uuids, self._left = features, list(uuids), budget
        self._kept: dict[tuple[int, str], npt.NDArray[np.float16]] = {}

    def read(self, episode: int, key: str, frames: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """Features (S, F) of the frames of an episode, given by its place."""
        rows = self._kept.get((episode, key))
        if rows is None:
            rows = self._features.read(self._uuids[episode], key)
            if rows.nbytes <= self._left:
                self._kept[episode, key] = rows
                self._left -= rows.nbytes
        return rows[frames]
