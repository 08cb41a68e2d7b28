"""The demo store: demonstrations as a Zarr v3 group that survives crashes and reads fast.

my_demos.zarr/
  zarr.json                attributes["robo_demos"] = {version, fps, schema, stages, robot, contract_hash}
  episodes/<uuid>/         one group per episode; a committed episode never changes
  annotations/<uuid>/      edits of stage labels and success, versioned
  derived/<name>-<hash>/   arrays that can be recomputed
  index.json               a derived list of episodes
"""

from __future__ import annotations

import os
import shutil
import uuid as uuids
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from robo_core.arrays import Array
from robo_core.checksummed import digest, open_seal
from robo_core.errors import StoreError
from robo_core.lru_cache import LRUCache
from robo_datasets.store.annotations import newest_file
from robo_datasets.store.derived import Derived, make_derived, newest_derived
from robo_datasets.store.description import (
    StoreDescription,
    check_fps,
    check_stages,
    make_root,
    name_stages,
    read_description,
)
from robo_datasets.store.edits import Edits
from robo_datasets.store.episode import Episode
from robo_datasets.store.features import Feature, FeatureSpec, check_same, parse_features
from robo_datasets.store.frame_cache import CachedCamera, FrameCache
from robo_datasets.store.index import load_entries, write_index
from robo_datasets.store.jpeg import DEFAULT_QUALITY, DEFAULT_SUBSAMPLING, reduction_for
from robo_datasets.store.layout import (
    ANNOTATIONS,
    DERIVED,
    EPISODES,
    FORMAT_VERSION,
    GROUP_FILE,
    STAGING,
    Entry,
    is_uuid,
    utc_now,
)
from robo_datasets.store.low_dim import read_rows
from robo_datasets.store.remote import RemotePath, list_names, store_path
from robo_datasets.store.shard import ShardReader
from robo_datasets.store.writer import EpisodeWriter
from robo_datasets.store.zarr_meta import chunk_name

# Bounds on what a reader keeps open and in memory. Mapped pages are the kernel's file cache, which it takes back when
# memory is short, so that they may be many; what is not file cache does not grow with the number of episodes read.
MAX_OPEN_SHARDS = 256
MAX_MAPPED_BYTES = 1 << 32
MAX_CACHED_ARRAYS = 4096
MAX_CACHED_BYTES = 1 << 26

# index.json is rewritten when this fraction of the episodes is not in it, which keeps appending linear.
INDEX_SLACK = 0.05
INDEX_SLACK_EPISODES = 32


class StoreOptions(TypedDict, total=False):
    """What ``DemoStore.create`` takes besides features, frame rate and stages; its defaults where left out."""

    robot: str | None
    contract_hash: str | None
    codec: str
    quality: int
    subsampling: str
    contract: Mapping[str, object] | None


class DemoStore(Edits):
    """A store of episodes; make one with ``DemoStore.create`` or ``DemoStore.open``.

    It shows the episodes committed when it was opened and those written through it; ``refresh`` picks up those of
    other writers. It may be pickled to, or forked into, worker processes: each opens its own files.
    """

    def __init__(self, path: Path, description: StoreDescription, entries: dict[str, Entry], fresh: bool) -> None:
        self.path = path
        self.fps = float(description["fps"])
        self.stages: list[str] = list(description["stages"])
        self.robot: str | None = description["robot"]
        self.contract_hash: str | None = description["contract_hash"]
        self.contract: dict[str, object] | None = description.get("contract")
        """The robot contract itself, as ``RobotContract.to_dict`` gives it, where it was recorded with the hash."""
        self.schema: dict[str, Feature] = parse_features(description["schema"])
        self._description = description
        self._schema_hash = digest(description["schema"])
        self._entries = entries
        self._order: list[str] | None = None
        self._unindexed = 0 if fresh else len(entries)
        self._shards: LRUCache[ShardReader] = LRUCache(MAX_OPEN_SHARDS, MAX_MAPPED_BYTES)
        self._rows: LRUCache[Array] = LRUCache(MAX_CACHED_ARRAYS, MAX_CACHED_BYTES)
        self._cache_sets: dict[tuple[str, tuple[int, int] | None], tuple[FrameCache, ...]] = {}

    # --- making and opening ---

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        features: Mapping[str, Mapping[str, object]],
        fps: float,
        stages: Sequence[str] = (),
        robot: str | None = None,
        contract_hash: str | None = None,
        codec: str = "jpeg",
        quality: int = DEFAULT_QUALITY,
        subsampling: str = DEFAULT_SUBSAMPLING,
        contract: Mapping[str, object] | None = None,
    ) -> DemoStore:
        """Make an empty store.

        Args:
            path: folder to make; it must not exist or be empty.
            features: in LeRobot's form, ``{key: {"shape", "dtype", "names"}}``; see ``parse_features``.
            fps: frames per second.
            stages: names of the task's stages in order.
            robot: name of the robot.
            contract_hash: hash of the robot contract that the episodes were recorded under.
            codec: of camera frames: "jpeg"; "lossless" (zstd); or "raw", which costs no decoding and most disk. 16-bit
                frames are never JPEG: with "jpeg" they are lossless.
            quality: JPEG quality, 1 to 100.
            subsampling: JPEG chroma subsampling, "4:4:4", "4:2:2" or "4:2:0".
            contract: that robot contract, so that another one can be compared with it field by field.

        Raises:
            StoreError: a setting is wrong, or the folder holds something.
        """
        root = Path(path)
        schema = parse_features(features, codec, quality, subsampling)
        description: StoreDescription = {
            "version": FORMAT_VERSION,
            "fps": check_fps(fps),
            "schema": {key: feature.to_json() for key, feature in schema.items()},
            "stages": check_stages(stages),
            "robot": robot,
            "contract_hash": contract_hash,
        }
        if contract is not None:
            description["contract"] = dict(contract)
        if root.is_file() or (root.is_dir() and any(root.iterdir())):
            raise StoreError(f"{root} already holds something; open it, or give another path")
        try:
            make_root(root, description)
        except OSError as error:
            raise StoreError(f"a store cannot be made at {root}: {error.strerror}") from error
        return cls.open(root)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> DemoStore:
        """Open a store: a folder, or a URL that fsspec knows (``s3://bucket/demos.zarr``), which is read only.

        Raises:
            StoreError: there is no store, or one of another version.
            CorruptionError: its description, or the record of an episode that is not in the index, is damaged.
        """
        root = store_path(path)
        description = read_description(root)
        entries, fresh = load_entries(root)
        if not fresh and not isinstance(root, RemotePath):
            write_index(root, entries.values())
        return cls(root, description, entries, True)

    @classmethod
    def open_or_create(
        cls,
        path: str | os.PathLike[str],
        features: Mapping[str, Mapping[str, object]],
        fps: float,
        stages: Sequence[str] = (),
        **options: Unpack[StoreOptions],
    ) -> DemoStore:
        """Open the store at ``path`` to append to it, or make it; ``options`` as for ``create``.

        Raises:
            StoreError: the store there has other features, frame rate, stages or robot contract; names the difference.
        """
        root = Path(path)
        if not (root / GROUP_FILE).exists():
            return cls.create(root, features, fps, stages, **options)
        store = cls.open(root)
        store.check_schema(features, fps, stages)
        if stages and not store.stages:
            store.name_stages(stages)
        wanted = options.get("contract_hash")
        if wanted and store.contract_hash and wanted != store.contract_hash:
            raise StoreError(
                f"{root} was recorded under the robot contract {store.contract_hash[:12]}, the new episodes under "
                f"{wanted[:12]}; use another store"
            )
        return store

    def check_schema(
        self, features: Mapping[str, Mapping[str, object]], fps: float, stages: Sequence[str] = ()
    ) -> None:
        """Check that episodes with these features, frame rate and stages may be appended.

        Raises:
            StoreError: names the first difference.
        """
        check_same(self.schema, parse_features(features), str(self.path))
        if fps != self.fps:
            raise StoreError(f"{self.path} is recorded at {self.fps:g} frames/s, the new episodes at {fps:g}")
        unknown = [name for name in stages if name not in self.stages]
        if unknown and self.stages:
            raise StoreError(f"{self.path} does not know the stages {unknown}; it has {self.stages}")

    def refresh(self) -> None:
        """Pick up episodes that other writers committed, and frames that were cached meanwhile."""
        if isinstance(self.path, RemotePath):
            self.path.files.forget()
        self._entries, fresh = load_entries(self.path)
        self._order = None
        self._cache_sets.clear()
        if not fresh and not isinstance(self.path, RemotePath):
            write_index(self.path, self._entries.values())

    # --- reading ---

    @property
    def features(self) -> dict[str, FeatureSpec]:
        """Features in LeRobot's form: ``{key: {"dtype", "shape", "names"}}``, and ``depth`` of depth cameras."""
        found: dict[str, FeatureSpec] = {}
        for key, feature in self.schema.items():
            found[key] = {"dtype": feature.dtype, "shape": feature.shape, "names": feature.names}
            if feature.depth is not None:
                found[key]["depth"] = feature.depth
        return found

    @property
    def cameras(self) -> list[str]:
        """Keys of the features that are frames."""
        return [key for key, feature in self.schema.items() if feature.is_frames]

    @property
    def uuids(self) -> list[str]:
        """UUIDs of the episodes, in order of creation."""
        return list(self._ordered())

    @property
    def lengths(self) -> dict[str, int]:
        """Frames of each episode by UUID, from the index."""
        return {uuid: entry.length for uuid, entry in self._entries.items()}

    @property
    def tasks(self) -> list[str]:
        """The instructions of the episodes, each once, in the order of the alphabet; from the index."""
        return sorted({episode.task for episode in self if episode.task})

    def __len__(self) -> int:
        """Number of committed episodes."""
        return len(self._entries)

    def __contains__(self, uuid: object) -> bool:
        """Whether an episode is in the store."""
        return uuid in self._entries

    def __iter__(self) -> Iterator[Episode]:
        """Episodes in order of creation."""
        return (self.episode(uuid) for uuid in self.uuids)

    def __getitem__(self, position: int) -> Episode:
        """The episode at a position in order of creation.

        Raises:
            IndexError: there are not so many.
        """
        return self.episode(self._ordered()[position])

    def episode(self, uuid: str) -> Episode:
        """An episode by its UUID.

        Raises:
            StoreError: it is not in the store.
        """
        try:
            return Episode(self, self._entries[uuid])
        except KeyError:
            raise StoreError(f"{self.path} has no episode {uuid}") from None

    def shard(self, entry: Entry, feature: Feature) -> ShardReader:
        """The open shard of a camera; the least recently used ones are let go."""
        key = (entry.commit, feature.key)
        return self._shards.get_or_build(
            key, lambda: ShardReader(self._chunk(entry, feature), feature, entry.length), _mapped
        )

    def cached_shard(self, entry: Entry, feature: Feature, size: tuple[int, int] | None) -> ShardReader | None:
        """The open shard of frames that ``robo-rm cache`` decoded, of which reading at ``size`` gives the same pixels.

        Raises:
            CorruptionError: it is there and damaged.
        """
        for cache in self._caches(feature, size):
            key = (entry.commit, feature.key, cache.path.name)
            reader = self._shards.get(key)
            if reader is not None:
                return reader
            reader = cache.reader(entry)
            if reader is not None:
                return self._shards.put(key, reader, reader.mapped)
        return None

    def rows(self, entry: Entry, feature: Feature) -> Array:
        """The whole of a low-dimensional array of an episode, (T, ...), read-only; the last ones read are kept.

        Raises:
            CorruptionError: the stored bytes are damaged.
        """
        key = (entry.commit, feature.key)
        return self._rows.get_or_build(
            key, lambda: read_rows(self._chunk(entry, feature), feature, entry.length), lambda rows: rows.nbytes
        )

    def _chunk(self, entry: Entry, feature: Feature) -> Path:
        return self.path / EPISODES / entry.uuid / feature.key / chunk_name(feature)

    def _caches(self, feature: Feature, size: tuple[int, int] | None) -> tuple[FrameCache, ...]:
        """Sets of cached frames that are there, the one of this very size first."""
        found = self._cache_sets.get((feature.key, size))
        if found is None:
            found = ()
            if feature.codec != "raw" and not isinstance(self.path, RemotePath):
                height, width, _ = feature.shape
                cameras = [CachedCamera(feature, size)] if size not in (None, (height, width)) else []
                # JPEG decodes to a fraction of its sides by itself, which is not what averaging whole frames gives.
                if feature.codec != "jpeg" or size is None or reduction_for(height, width, size) == 1:
                    cameras.append(CachedCamera(feature, None))
                caches = (FrameCache(self.path, camera, self.lengths) for camera in cameras)
                found = tuple(cache for cache in caches if (cache.path / GROUP_FILE).exists())
            self._cache_sets[feature.key, size] = found
        return found

    def camera_repeats(self, uuid: str, key: str) -> npt.NDArray[np.bool_]:
        """(T - 1,) bool: a camera's next frame is the same to the last pixel, found from the encoded bytes.

        Raises:
            CorruptionError: the shard is damaged.
        """
        entry = self.episode(uuid).entry
        return self.shard(entry, self.schema[key]).repeats()

    def content_hash(self) -> str:
        """SHA-256 over what the store says: schema, stages, every episode's commit hash, annotations in force."""
        edits = {}
        for uuid in sorted(list_names(self.path / ANNOTATIONS)):
            newest = newest_file(self.path, uuid) if uuid in self._entries else None
            if newest is not None:
                edits[uuid] = open_seal(newest.read_bytes(), newest)["seal"]
        return digest(
            {
                "description": self._description,
                "episodes": {uuid: entry.commit for uuid, entry in self._entries.items()},
                "annotations": edits,
            }
        )

    # --- writing ---

    def writer(
        self,
        task: str = "",
        success: bool | None = None,
        source: object = None,
        attributes: Mapping[str, object] | None = None,
        uuid: str | None = None,
        created: str | None = None,
        sequence: int = 0,
    ) -> EpisodeWriter:
        """Write a new episode: ``with store.writer(task=...) as episode: episode.add({...})``.

        Args:
            task: the instruction.
            success: whether the task was done; None where unknown. May be set until the block ends.
            source: where it comes from: plain JSON.
            attributes: free plain JSON, read back as ``episode.attributes``.
            uuid: name of the episode; a random one by default. Importers give one that follows from the source.
            created: time of creation (ISO 8601, UTC), now by default; orders the episodes.
            sequence: orders episodes of the same time of creation, for instance those of one import.

        Raises:
            StoreError: the UUID is malformed.
        """
        self.check_local()
        name = str(uuids.uuid4()) if uuid is None else uuid
        if not is_uuid(name):
            raise StoreError(f"{name!r} is not a UUID in lower case")
        entry = Entry(name, 0, task, success, source, created or utc_now(), sequence, "")
        return EpisodeWriter(
            self.path, self.schema, self.stages, self.fps, self._schema_hash, entry, attributes or {}, self._add_entry
        )

    def remove(self, removed: Sequence[str]) -> None:
        """Take episodes out of the store for good, with their annotations and derived arrays.

        Raises:
            StoreError: one of them is not in the store; none is removed.
        """
        self.check_local()
        for uuid in removed:
            self.episode(uuid)
        trash = self.path / STAGING
        for uuid in removed:
            trash.mkdir(exist_ok=True)
            # One rename takes the episode away whole; deleting its files takes time and may be interrupted.
            gone = trash / f"removed-{uuid}-{os.urandom(4).hex()}"
            os.rename(self.path / EPISODES / uuid, gone)
            shutil.rmtree(gone, ignore_errors=True)
            shutil.rmtree(self.path / ANNOTATIONS / uuid, ignore_errors=True)
            for derived in (self.path / DERIVED).glob(f"*/{uuid}"):
                shutil.rmtree(derived, ignore_errors=True)
            del self._entries[uuid]
        self._order = None
        self._save_index()

    def name_stages(self, stages: Sequence[str]) -> None:
        """Name the stages of a store that was made without any, so that its episodes can be labelled.

        Raises:
            StoreError: it has other stages, or the names repeat.
        """
        self.check_local()
        self._description = name_stages(self.path, stages)
        self.stages = list(self._description["stages"])

    def derive(self, name: str, provenance: Mapping[str, object]) -> Derived:
        """The set of derived arrays of a name and provenance, to write to or read; made at the first write.

        Raises:
            StoreError: the name is not a plain word, or the provenance is not JSON.
        """
        return make_derived(self.path, name, provenance, self.lengths)

    def derived(self, name: str) -> Derived:
        """The set of derived arrays of a name that was made last.

        Raises:
            StoreError: there is none; says which command makes it.
        """
        return newest_derived(self.path, name, self.lengths)

    def _ordered(self) -> list[str]:
        if self._order is None:
            self._order = [entry.uuid for entry in sorted(self._entries.values(), key=lambda entry: entry.order)]
        return self._order

    def check_local(self) -> None:
        """Raise StoreError where the store is on a URL, which can only be read."""
        if isinstance(self.path, RemotePath):
            raise StoreError(f"{self.path} is on a URL and can only be read; write to a folder and upload it")

    def _add_entry(self, entry: Entry) -> None:
        self._entries[entry.uuid] = entry
        self._order = None
        self._unindexed += 1
        if self._unindexed > max(INDEX_SLACK_EPISODES, INDEX_SLACK * len(self._entries)):
            self._save_index()

    def _save_index(self) -> None:
        entries, _ = load_entries(self.path)
        write_index(self.path, entries.values())
        self._unindexed = 0

    # --- workers ---

    def __getstate__(self) -> dict[str, object]:
        """Everything but the caches."""
        return {**vars(self), "_cache_sets": {}}

    def __repr__(self) -> str:
        return f"<DemoStore {self.path}, {len(self)} episodes, {self.fps:g} frames/s, {list(self.schema)}>"


def _mapped(reader: ShardReader) -> int:
    return reader.mapped
