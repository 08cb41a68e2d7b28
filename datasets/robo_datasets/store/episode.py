"""Reading one episode: lazily, frame by frame, straight from the files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from robo_core.arrays import Array
from robo_core.errors import CorruptionError, StoreError
from robo_datasets.store.annotations import EpisodeEdits, read_edits, runs_of, stage_of
from robo_datasets.store.features import Feature, FeatureSpec
from robo_datasets.store.index import read_attributes
from robo_datasets.store.layout import EPISODES, Entry, read_commit
from robo_datasets.store.shard import ShardReader
from robo_datasets.store.verify import episode_problems
from robo_datasets.store.writer import RECEIVE_TIMESTAMP, STAGE, TIMESTAMP

Place: TypeAlias = SupportsIndex | None
Index: TypeAlias = "SupportsIndex | slice[Place, Place, Place] | Sequence[int] | Array"


class EpisodeReader(Protocol):
    """What an episode reads its arrays through: its store, which keeps files open and the last arrays in memory."""

    path: Path
    stages: list[str]
    schema: dict[str, Feature]

    @property
    def features(self) -> dict[str, FeatureSpec]:
        """Features in LeRobot's form."""

    @property
    def cameras(self) -> list[str]:
        """Keys of the features that are frames."""

    def shard(self, entry: Entry, feature: Feature) -> ShardReader:
        """The open shard of a camera."""

    def cached_shard(self, entry: Entry, feature: Feature, size: tuple[int, int] | None) -> ShardReader | None:
        """The open shard of frames that are cached decoded; None where there are none."""

    def rows(self, entry: Entry, feature: Feature) -> Array:
        """The whole of a low-dimensional array of an episode, (T, ...), read-only."""


class StageSegment(NamedTuple):
    """A run of frames [start, end) in one stage."""

    start: int
    end: int
    stage: int
    name: str


class EpisodeArray:
    """One feature of an episode: index it by int, slice or a list of frames to get numpy arrays.

    Frames are decoded as asked for; low-dimensional features are read whole, kept by the store, and returned as copies.
    """

    def __init__(self, episode: Episode, feature: Feature) -> None:
        self._episode, self._feature = episode, feature

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, ...) of the whole array."""
        return (self._episode.length, *self._feature.shape)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Element type."""
        return np.dtype(self._feature.dtype)

    def __len__(self) -> int:
        """Frames in the episode."""
        return self._episode.length

    def __getitem__(self, index: Index) -> Array:
        """Rows at ``index``: an int gives one row, a slice, list or mask gives (n, ...).

        Raises:
            IndexError: outside the episode.
            CorruptionError: the stored bytes are damaged.
        """
        if not self._feature.is_frames:
            rows = self._episode.rows(self._feature)[index]
            return (
                rows if isinstance(rows, np.ndarray) and rows.flags.owndata and rows.flags.writeable else np.array(rows)
            )
        numbers, single = self._episode.frame_numbers(index)
        shard = self._episode.shard(self._feature)
        return shard.frame(numbers[0]) if single else shard.read(numbers)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """The whole array."""
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)

    def __repr__(self) -> str:
        return f"<{self._feature.key} {self.shape} {self.dtype} of episode {self._episode.uuid}>"


class Episode:
    """One committed episode: ``episode[key][index]``, ``.stage``, ``.timestamp``, ``.success`` and so on."""

    def __init__(self, store: EpisodeReader, entry: Entry) -> None:
        self._store, self.entry = store, entry

    @property
    def uuid(self) -> str:
        """Name of the episode, permanently."""
        return self.entry.uuid

    @property
    def path(self) -> Path:
        """Folder of the episode."""
        return self._store.path / EPISODES / self.entry.uuid

    @property
    def length(self) -> int:
        """Number of frames T."""
        return self.entry.length

    def __len__(self) -> int:
        """Number of frames T."""
        return self.entry.length

    @property
    def task(self) -> str:
        """The instruction, with edits."""
        return str(self._edits().get("task", self.entry.task))

    @property
    def source(self) -> object:
        """Where the episode came from, as its writer put it."""
        return self.entry.source

    @property
    def created(self) -> str:
        """Time of writing, ISO 8601 in UTC."""
        return self.entry.created

    @property
    def success(self) -> bool | None:
        """Whether the task was done, with edits; None where unknown."""
        return self._edits().get("success", self.entry.success)

    @property
    def stage(self) -> npt.NDArray[np.int16]:
        """Stage of every frame with edits, (T,) int16, -1 where unlabelled."""
        edits = self._edits()
        if "stage" in edits:
            return stage_of(edits["stage"], self.length)
        return self.rows(STAGE).copy()

    @property
    def stages(self) -> list[StageSegment]:
        """Labelled runs of frames in order; unlabelled frames are left out, a stage may come more than once."""
        names = self._store.stages
        return [StageSegment(start, end, k, names[k]) for start, end, k in runs_of(self.stage) if k >= 0]

    @property
    def timestamp(self) -> npt.NDArray[np.float64]:
        """Seconds on the source's own clock, (T,) f64."""
        return self.rows(TIMESTAMP).copy()

    @property
    def receive_timestamp(self) -> npt.NDArray[np.float64] | None:
        """Seconds on the receiver's clock, (T,) f64; None where it was not recorded."""
        if not (self.path / RECEIVE_TIMESTAMP.key).exists():
            return None
        return self.rows(RECEIVE_TIMESTAMP).copy()

    @property
    def attributes(self) -> dict[str, object]:
        """Free attributes given by the writer, with edits.

        Raises:
            CorruptionError: the episode's records are damaged.
        """
        attributes = read_attributes(self.path, read_commit(self.path))["attributes"]
        return {**attributes, **self._edits().get("attributes", {})}

    @property
    def features(self) -> dict[str, FeatureSpec]:
        """The store's features, in LeRobot's form."""
        return self._store.features

    def keys(self) -> list[str]:
        """Feature keys."""
        return list(self._store.schema)

    def __iter__(self) -> Iterator[str]:
        """Feature keys."""
        return iter(self._store.schema)

    def __contains__(self, key: object) -> bool:
        """Whether the episode has a feature."""
        return key in self._store.schema

    def __getitem__(self, key: str) -> EpisodeArray:
        """One feature.

        Raises:
            StoreError: there is no such feature.
        """
        return EpisodeArray(self, self._feature(key))

    def frames(self, key: str, indices: Index, size: tuple[int, int] | None = None) -> Array:
        """Decoded frames (n, H, W, C), or (n, h, w, C) where ``size`` = (h, w) is given.

        With ``size``, JPEG frames are decoded at a half, a quarter or an eighth of their sides where that is still at
        least as large as asked for, which takes a fraction of the time, and then area-averaged to the exact size.

        Raises:
            StoreError: no such camera, or a size below one pixel.
            IndexError: outside the episode.
            CorruptionError: the stored bytes are damaged.
        """
        feature = self._feature(key)
        if not feature.is_frames:
            raise StoreError(f"{key} holds no frames; cameras are {self._store.cameras}")
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise StoreError(f"frames are resized to (height, width), got {size!r}")
        numbers, _ = self.frame_numbers(indices)
        sides = None if size is None else (int(size[0]), int(size[1]))
        return self.shard(feature, sides).read(numbers, sides)

    def stored_frames(self, feature: Feature, numbers: Sequence[int], size: tuple[int, int] | None = None) -> Array:
        """As ``frames``, decoded from the episode itself even where ``robo-rm cache`` keeps them decoded."""
        return self._store.shard(self.entry, feature).read(numbers, size)

    def shard(self, feature: Feature, size: tuple[int, int] | None = None) -> ShardReader:
        """The open shard that gives a camera's frames at a size fastest: the cached one where there is one."""
        return self._store.cached_shard(self.entry, feature, size) or self._store.shard(self.entry, feature)

    def frame_numbers(self, index: Index) -> tuple[list[int], bool]:
        """Frame numbers that an index stands for, and whether it is a single one."""
        if isinstance(index, int | np.integer):
            number = int(index)
            if not -self.length <= number < self.length:
                raise IndexError(f"frame {number} of episode {self.uuid}, which has {self.length}")
            return [number % self.length], True
        if isinstance(index, slice):
            return list(range(*index.indices(self.length))), False
        picked = np.asarray(index)
        if not picked.size:
            return [], False
        if picked.ndim == 1 and picked.dtype.kind == "i" and picked.min() >= 0 and picked.max() < self.length:
            return picked.tolist(), False
        numbers: list[int] = np.arange(self.length)[picked].ravel().tolist()
        return numbers, False

    def rows(self, feature: Feature) -> Array:
        """The whole of a low-dimensional array (T, ...), read-only.

        Raises:
            CorruptionError: the stored bytes are damaged.
        """
        return self._store.rows(self.entry, feature)

    def verify(self) -> None:
        """Check every file of the episode against its commit record, without decoding.

        Raises:
            CorruptionError: names the first file that is missing, added or damaged.
        """
        for problem in episode_problems(self.path):
            raise CorruptionError(problem)

    def _feature(self, key: str) -> Feature:
        try:
            return self._store.schema[key]
        except KeyError:
            raise StoreError(f"episodes have no feature {key!r}; they have {list(self._store.schema)}") from None

    def _edits(self) -> EpisodeEdits:
        return read_edits(self._store.path, self.uuid)

    def __repr__(self) -> str:
        return f"<Episode {self.uuid}, {self.length} frames, {self.task!r}>"
