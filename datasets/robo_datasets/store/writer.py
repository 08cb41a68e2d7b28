"""Writing one episode: staged, checked frame by frame, committed by one rename.

    .staging/<uuid>/...   written and fsynced, COMMIT.json last, then renamed to episodes/<uuid>

Killing the writer at any instant loses at most this episode. The staging folder is held with flock while its writer
lives, so that ``robo-rm doctor`` can distinguish a dead one from one at work.
"""

from __future__ import annotations

import fcntl
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from robo_core.arrays import Array
from robo_core.checksummed import crc32c, sync_folder, sync_tree
from robo_core.errors import EpisodeBusyError, EpisodeThereError, LabelError, StoreError, StoreWriteError
from robo_datasets.store.features import Feature
from robo_datasets.store.layout import (
    COMMIT_FILE,
    EPISODES,
    GROUP_FILE,
    STAGING,
    Entry,
    commit_json,
    episode_attributes,
)
from robo_datasets.store.low_dim import write_rows
from robo_datasets.store.planar import PlanarFrame
from robo_datasets.store.shard import ShardWriter
from robo_datasets.store.zarr_meta import array_json, chunk_name, group_json

TIMESTAMP = Feature("timestamp", (), "float64")
RECEIVE_TIMESTAMP = Feature("receive_timestamp", (), "float64")
STAGE = Feature("stage", (), "int16")


class EpisodeWriter:
    """One episode being written; made by ``store.writer(...)`` and used in a ``with`` block.

    ``success``, ``task`` and ``attributes`` may be set until the block ends, for they are often known only then.
    Leaving the block commits; an exception discards.
    """

    def __init__(
        self,
        root: Path,
        features: Mapping[str, Feature],
        stages: Sequence[str],
        fps: float,
        schema_hash: str,
        entry: Entry,
        attributes: Mapping[str, object],
        committed: Callable[[Entry], None],
    ) -> None:
        self.uuid = entry.uuid
        self.task = entry.task
        self.success = entry.success
        self.attributes: dict[str, object] = dict(attributes)
        self._root, self._features, self._stages = root, features, list(stages)
        self._fps, self._schema_hash, self._entry, self._committed = fps, schema_hash, entry, committed
        self._folder = root / STAGING / entry.uuid
        self._forms = [
            (key, feature, np.dtype(feature.dtype), feature.shape, feature.is_frames)
            for key, feature in features.items()
        ]
        self._shards: dict[str, ShardWriter] = {}
        self._rows: dict[str, list[np.ndarray]] = {}
        self._timestamps: list[float] = []
        self._received: list[float] = []
        self._stage: list[int] = []
        self._timed: tuple[bool, bool] | None = None
        self._lock: int | None = None

    def __len__(self) -> int:
        """Frames added so far."""
        return len(self._stage)

    def __enter__(self) -> Self:
        """Make the staging folder.

        Raises:
            StoreError: the store cannot be written to, or an episode of this UUID is being written or is there.
        """
        self._check_new()
        try:
            self._folder.parent.mkdir(exist_ok=True)
            self._lock = claim_staging(self._folder)
            for key, feature in self._features.items():
                (self._folder / key).mkdir()
                if feature.is_frames:
                    self._shards[key] = ShardWriter(self._folder / key / chunk_name(feature), feature)
                else:
                    self._rows[key] = []
        except OSError as error:
            self._discard()
            raise StoreWriteError(f"an episode cannot be written to {self._root}: {error.strerror}") from error
        return self

    def _check_new(self) -> None:
        if (self._root / EPISODES / self.uuid).exists():
            raise EpisodeThereError(f"episode {self.uuid} is already in {self._root}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit, or discard when the block raised."""
        if kind is not None:
            self._discard()
            return
        try:
            self._commit()
        except OSError as failure:
            self._discard()
            self._check_new()  # another writer of the same episode was first
            raise StoreWriteError(f"the episode cannot be written to {self._root}: {failure.strerror}") from failure
        except BaseException:
            self._discard()
            raise

    def add(
        self,
        frame: Mapping[str, object],
        timestamp: float | None = None,
        stage: int | str | None = None,
        receive_timestamp: float | None = None,
    ) -> None:
        """Append one frame: every feature of the store, images as uint8 RGB (H, W, 3).

        Args:
            frame: feature key to value; floats are cast to the feature's float type, nothing else is.
            timestamp: seconds on the source's own clock; frame number / fps where it is None throughout.
            stage: index into ``store.stages`` or its name; -1 or None where unlabelled.
            receive_timestamp: seconds on the receiver's clock; give it for all frames or for none.

        Raises:
            StoreError: a key is missing, unknown, or of another shape or type; nothing of the frame is kept.
            LabelError: the stage is unknown.
        """
        if self._lock is None:
            raise StoreError("frames are added inside the block: with store.writer(...) as episode: episode.add(...)")
        number = len(self._stage)
        label = -1 if stage is None else self._check_stage(stage, number)
        self._check_times(timestamp, receive_timestamp, number)
        values = self._check_values(frame, number)
        try:
            for key, value in values:
                if key in self._shards:
                    self._shards[key].add(value)
                else:
                    self._rows[key].append(np.asarray(value))
        except OSError as error:
            raise StoreWriteError(
                f"frame {number} cannot be written to {self._folder}: {error.strerror}; the episode is not added"
            ) from error
        self._timestamps.append(number / self._fps if timestamp is None else float(timestamp))
        if receive_timestamp is not None:
            self._received.append(float(receive_timestamp))
        self._stage.append(label)

    def extend(
        self,
        frames: Mapping[str, Sequence[object] | Array],
        timestamps: Sequence[float] | Array | None = None,
        stage: Sequence[int] | Array | None = None,
    ) -> None:
        """Append many frames at once: every feature as an array (n, ...), stamps and stages (n,).

        Raises:
            StoreError: as ``add``, or the arrays differ in length.
            LabelError: a stage is unknown.
        """
        lengths = {key: len(value) for key, value in frames.items()}
        if timestamps is not None:
            lengths["timestamps"] = len(timestamps)
        if stage is not None:
            lengths["stage"] = len(stage)
        if len(set(lengths.values())) > 1:
            raise StoreError(f"arrays of different lengths: {lengths}")
        for row in range(next(iter(lengths.values()), 0)):
            self.add(
                {key: value[row] for key, value in frames.items()},
                timestamp=None if timestamps is None else float(timestamps[row]),
                stage=None if stage is None else int(stage[row]),
            )

    def _check_stage(self, stage: int | str, number: int) -> int:
        if isinstance(stage, str):
            if stage not in self._stages:
                raise LabelError(f"frame {number}: unknown stage {stage!r}; the store has {self._stages}")
            return self._stages.index(stage)
        if not -1 <= int(stage) < len(self._stages):
            raise LabelError(f"frame {number}: stage {stage} is outside -1 to {len(self._stages) - 1} ({self._stages})")
        return int(stage)

    def _check_times(self, timestamp: float | None, received: float | None, number: int) -> None:
        timed = (timestamp is not None, received is not None)
        if self._timed is None:
            self._timed = timed
        if timed != self._timed:
            raise StoreError(f"frame {number}: give time stamps for all frames of an episode or for none")
        if timestamp is not None and not math.isfinite(timestamp):
            raise StoreError(f"frame {number}: the time stamp is {timestamp}")
        if received is not None and not math.isfinite(received):
            raise StoreError(f"frame {number}: the time stamp is {received}")

    def _check_values(self, frame: Mapping[str, object], number: int) -> list[tuple[str, np.ndarray | PlanarFrame]]:
        """What is stored by key, in the schema's order."""
        if frame.keys() != self._features.keys():
            missing = sorted(self._features.keys() - frame.keys())
            unknown = sorted(map(str, frame.keys() - self._features.keys()))
            raise StoreError(f"frame {number}: missing features {missing}, unknown features {unknown}")
        values: list[tuple[str, np.ndarray | PlanarFrame]] = []
        for key, feature, dtype, shape, is_frames in self._forms:
            value = frame[key]
            if not isinstance(value, np.ndarray | PlanarFrame) or value.dtype != dtype or value.shape != shape:
                value = _fit(value, feature, number)
            elif not is_frames:  # a copy: a caller may use one buffer for all its frames
                value = np.array(value)
            values.append((key, value))
        return values

    def _commit(self) -> None:
        if not len(self):
            raise StoreError("an episode without frames cannot be committed")
        length = len(self)
        files: dict[str, tuple[int, int]] = {}
        for key, shard in self._shards.items():
            files[f"{key}/{chunk_name(self._features[key])}"] = shard.finish()
            self._describe(self._features[key], length, files)
        own = [(TIMESTAMP, np.array(self._timestamps)), (STAGE, np.array(self._stage, np.int16))]
        if self._received:
            own.append((RECEIVE_TIMESTAMP, np.array(self._received)))
        low_dim = [(self._features[key], np.stack(rows)) for key, rows in self._rows.items()]
        for feature, rows in [*low_dim, *own]:
            folder = self._folder / feature.key
            folder.mkdir(exist_ok=True)
            files[f"{feature.key}/{chunk_name(feature)}"] = write_rows(folder / chunk_name(feature), feature, rows)
            self._describe(feature, length, files)
        self._publish(length, files)

    def _describe(self, feature: Feature, length: int, files: dict[str, tuple[int, int]]) -> None:
        data = array_json(feature, length)
        (self._folder / feature.key / GROUP_FILE).write_bytes(data)
        files[f"{feature.key}/{GROUP_FILE}"] = crc32c(data), len(data)

    def _publish(self, length: int, files: dict[str, tuple[int, int]]) -> None:
        success = None if self.success is None else bool(self.success)
        entry = replace(self._entry, length=length, task=str(self.task), success=success)
        try:
            data = group_json(episode_attributes(entry, self.attributes))
        except (TypeError, ValueError) as error:
            raise StoreError(f"the episode's source and attributes must be plain JSON: {error}") from error
        (self._folder / GROUP_FILE).write_bytes(data)
        files[GROUP_FILE] = crc32c(data), len(data)
        commit, commit_hash = commit_json(self.uuid, length, self._schema_hash, files)
        (self._folder / COMMIT_FILE).write_bytes(commit)
        sync_tree(self._folder)
        os.rename(self._folder, self._root / EPISODES / self.uuid)
        sync_folder(self._root / EPISODES)
        self._unlock()
        self._committed(replace(entry, commit=commit_hash))

    def _discard(self) -> None:
        for shard in self._shards.values():
            shard.discard()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def claim_staging(folder: Path) -> int:
    """Make a staging folder and hold it with a lock; what a writer that died left there is cleared away.

    Returns:
        The handle that holds the lock, to be closed when the folder has been renamed or removed.

    Raises:
        EpisodeBusyError: a writer that lives holds it.
        OSError: it cannot be made.
    """
    busy = EpisodeBusyError(f"episode {folder.name} is being written by another process, in {folder}")
    folder.mkdir(exist_ok=True)
    try:
        lock = lock_folder(folder)
    except FileNotFoundError:
        raise busy from None  # its writer has just put it in place
    if lock is None:
        raise busy
    if not _is_folder_of(lock, folder):
        os.close(lock)
        raise busy
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return lock


def _is_folder_of(handle: int, folder: Path) -> bool:
    """Whether an open folder still stands at its path: it may have been put in place before it was locked."""
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except FileNotFoundError:
        return False


def lock_folder(folder: Path) -> int | None:
    """Lock a folder for this process; None where another holds it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _fit(value: object, feature: Feature, number: int) -> np.ndarray:
    """``value`` as an array of the feature's shape and type, or an error that names frame and key."""
    array = np.asarray(value)
    wanted = np.dtype(feature.dtype)
    if array.shape != feature.shape and not (array.ndim == 0 and feature.shape == (1,)):
        raise StoreError(f"frame {number}, {feature.key}: shape {array.shape}, the store has {feature.shape}")
    if array.dtype != wanted:
        if feature.is_frames or not np.can_cast(array.dtype, wanted, "same_kind"):
            raise StoreError(f"frame {number}, {feature.key}: type {array.dtype}, the store has {wanted}")
        with np.errstate(over="ignore"):
            array = array.astype(wanted)
    # A copy: a caller may use one buffer for all its frames.
    return array if feature.is_frames else np.array(array).reshape(feature.shape)
