"""Frames of an existing store kept decoded, for machines that train from it and have disk to spare.

derived/frames-<hash>/<uuid>/<camera>/      a raw shard of one camera at one size, and a COMMIT.json

A cached frame equals what the episode gives without the cache, bit for bit: the whole frame, or the frame that
``episode.frames(..., size=...)`` gives. Readers take it where it is there, and episodes never change, so that it cannot
be out of date; it names the commit of the episode that it was made from all the same.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robo_core.checksummed import crc32c, sync_tree
from robo_core.errors import ConfigError, StoreError
from robo_datasets.store.derived import Derived
from robo_datasets.store.episode import Episode, EpisodeReader
from robo_datasets.store.features import Feature
from robo_datasets.store.layout import COMMIT_FILE, DERIVED, GROUP_FILE, STAGING, Entry, commit_json, read_commit
from robo_datasets.store.shard import ShardReader, ShardWriter
from robo_datasets.store.writer import claim_staging
from robo_datasets.store.zarr_meta import array_json, chunk_name, group_json

NAME = "frames"
_BLOCK = 32


@dataclass(frozen=True)
class CachedCamera:
    """A camera and the size (h, w) that its frames are kept at; None for whole frames."""

    feature: Feature
    size: tuple[int, int] | None

    @property
    def raw(self) -> Feature:
        """The feature as the cache holds it."""
        height, width, channels = self.feature.shape
        sides = (height, width) if self.size is None else self.size
        return replace(self.feature, shape=(*sides, channels), codec="raw")

    @property
    def provenance(self) -> dict[str, object]:
        """What the cached frames follow from, besides the episode."""
        return {"camera": self.feature.key, "size": None if self.size is None else list(self.size), "codec": "raw"}


class FrameCache(Derived):
    """Decoded frames of one camera at one size: ``uuid in cache``, ``cache.fill(episode)``, ``cache.reader(entry)``."""

    def __init__(self, root: Path, camera: CachedCamera, lengths: Mapping[str, int]) -> None:
        super().__init__(root, NAME, camera.provenance, lengths)
        self.camera = camera

    def reader(self, entry: Entry) -> ShardReader | None:
        """The cached frames of an episode; None where there are none, or they are of another episode of this name.

        Raises:
            CorruptionError: they are there and damaged; names the file.
        """
        if not self.holds(entry):
            return None
        raw = self.camera.raw
        return ShardReader(self.path / entry.uuid / raw.key / chunk_name(raw), raw, entry.length)

    def holds(self, entry: Entry) -> bool:
        """Whether the frames of this very episode are there.

        Raises:
            CorruptionError: their record is damaged.
        """
        folder = self.path / entry.uuid
        return os.path.exists(folder / COMMIT_FILE) and read_commit(folder)["schema"] == entry.commit

    def fill(self, episode: Episode) -> int:
        """Decode an episode's frames into the cache; returns the bytes they take there.

        The episode is put in place whole by one rename: killed before, it is not in the cache.

        Raises:
            StoreError: the store cannot be written to, or another process is at this episode.
            CorruptionError: a frame of the episode is damaged.
        """
        raw = self.camera.raw
        staging = self._root / STAGING / f"{self.path.name}-{episode.uuid}"
        lock = None
        try:
            self._make_group()
            staging.parent.mkdir(exist_ok=True)
            lock = claim_staging(staging)
            size = self._write_frames(staging, episode, raw)
            self._put_in_place(staging, episode.uuid)
        except OSError as error:
            raise StoreError(f"frames cannot be cached in {self.path}: {error.strerror}") from error
        finally:
            if lock is not None:
                shutil.rmtree(staging, ignore_errors=True)
                os.close(lock)
        return size

    def _write_frames(self, staging: Path, episode: Episode, raw: Feature) -> int:
        folder = staging / raw.key
        folder.mkdir()
        shard = ShardWriter(folder / chunk_name(raw), raw)
        try:
            for start in range(0, episode.length, _BLOCK):
                numbers = range(start, min(start + _BLOCK, episode.length))
                for frame in episode.stored_frames(self.camera.feature, numbers, self.camera.size):
                    shard.add(frame)
            files = {f"{raw.key}/{chunk_name(raw)}": shard.finish()}
        finally:
            shard.discard()
        for name, data in ((f"{raw.key}/{GROUP_FILE}", array_json(raw, episode.length)), (GROUP_FILE, group_json())):
            (staging / name).write_bytes(data)
            files[name] = crc32c(data), len(data)
        commit = commit_json(episode.uuid, episode.length, episode.entry.commit, files)[0]
        (staging / COMMIT_FILE).write_bytes(commit)
        sync_tree(staging)
        return sum(size for _, size in files.values())


def cameras_to_cache(
    store: EpisodeReader, names: Sequence[str] | None, size: tuple[int, int] | None
) -> list[CachedCamera]:
    """The cameras of a store that are worth caching at a size.

    Args:
        store: the store.
        names: cameras by name (front) or key; all where it is None.
        size: (h, w), or None for whole frames.

    Raises:
        ConfigError: no such camera, or none whose frames need decoding.
    """
    keys = {key: key for key in store.cameras} | {key.rsplit(".", 1)[-1]: key for key in store.cameras}
    unknown = [name for name in names or () if name not in keys]
    if unknown:
        raise ConfigError(f"{store.path} has no camera {unknown[0]!r}; it has {store.cameras}")
    wanted = dict.fromkeys(store.cameras if names is None else (keys[name] for name in names))
    features = [store.schema[key] for key in wanted if store.schema[key].codec != "raw"]
    if not features:
        raise ConfigError(f"{store.path} keeps the frames of these cameras raw: there is nothing to decode")
    return [CachedCamera(feature, None if size == feature.shape[:2] else size) for feature in features]


def check_space(root: Path, todo: Sequence[tuple[FrameCache, int]]) -> None:
    """Check that the decoded frames fit on the disk of the store at ``root``.

    Args:
        root: folder of the store.
        todo: each cache with the number of frames it is to take.

    Raises:
        StoreError: they do not; says how much they take.
    """
    needed = sum(cache.camera.raw.row_bytes * frames for cache, frames in todo)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise StoreError(
            f"the decoded frames take {needed / 1e9:.1f} GB and {root} has {free / 1e9:.1f} GB free; "
            "name cameras=, or give the size=[H,W] that training reads"
        )


def cached_sets(root: Path) -> Iterator[Path]:
    """Folders of cached frames in a store."""
    folder = root / DERIVED
    yield from sorted(folder.glob(f"{NAME}-*")) if folder.is_dir() else []


def drop_cache(root: Path) -> int:
    """Remove all cached frames from a store; returns how many sets there were.

    Raises:
        StoreError: the store cannot be written to.
    """
    count = 0
    try:
        for folder in cached_sets(root):
            # One rename takes it away whole; readers that have it open keep it until they let go.
            gone = root / STAGING / f"removed-{folder.name}-{os.urandom(4).hex()}"
            gone.parent.mkdir(exist_ok=True)
            os.rename(folder, gone)
            shutil.rmtree(gone, ignore_errors=True)
            count += 1
    except OSError as error:
        raise StoreError(f"the cached frames in {root} cannot be removed: {error.strerror}") from error
    return count
