"""Arrays that can be recomputed from episodes: encoder features, progress, weights; each set with its provenance.

derived/<name>-<hash of provenance>/zarr.json          attributes["robo_derived"] = {name, provenance, created}
derived/<name>-<hash of provenance>/<uuid>/<key>/      one Zarr array each, and a COMMIT.json
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

import numpy as np

from robo_core.arrays import Array
from robo_core.checksummed import crc32c, digest, open_seal, seal, sync_folder, sync_tree, write_durably
from robo_core.errors import CorruptionError, StoreError
from robo_datasets.store.features import LOW_DIM_DTYPES, Feature
from robo_datasets.store.index import read_group
from robo_datasets.store.layout import (
    COMMIT_FILE,
    DERIVED,
    GROUP_FILE,
    STAGING,
    CommitRecord,
    commit_json,
    is_uuid,
    read_commit,
    utc_now,
)
from robo_datasets.store.low_dim import read_rows, write_rows
from robo_datasets.store.remote import RemotePath, list_names
from robo_datasets.store.zarr_meta import array_json, chunk_name, group_json

DERIVED_KEY = "robo_derived"
_NAME = re.compile(r"[a-z0-9_]+\Z")
_HASH_DIGITS = 16

# Which command makes a well-known derived set, for the error of one that is missing.
_MADE_BY = {"progress": "robo-rm score", "weights": "robo-rm score"}


class DerivedRecord(TypedDict):
    """What a derived set's zarr.json says of it."""

    name: str
    provenance: dict[str, object]
    created: str


class Derived:
    """One set of derived arrays: ``write(uuid, arrays)``, ``uuid in derived``, ``read(uuid)``, ``provenance``."""

    def __init__(self, root: Path, name: str, provenance: Mapping[str, object], lengths: Mapping[str, int]) -> None:
        self.name = name
        self.provenance: dict[str, object] = dict(provenance)
        self._root, self._lengths = root, lengths
        self.path = root / DERIVED / f"{name}-{digest(self.provenance)[:_HASH_DIGITS]}"

    def __contains__(self, uuid: object) -> bool:
        """Whether the arrays of an episode are there."""
        return isinstance(uuid, str) and is_uuid(uuid) and (self.path / uuid / COMMIT_FILE).exists()

    @property
    def uuids(self) -> list[str]:
        """Episodes that have arrays here, in order of UUID."""
        return sorted(name for name in list_names(self.path) if name in self)

    def write(self, uuid: str, arrays: Mapping[str, Array]) -> None:
        """Write an episode's arrays (T, ...) at once; what was there under this provenance is replaced.

        Raises:
            StoreError: unknown episode, wrong length or type, or the store cannot be written to.
        """
        if isinstance(self._root, RemotePath):
            raise StoreError(f"{self._root} is on a URL and can only be read")
        length = self._length(uuid)
        checked = {key: _check(key, np.asarray(value), length, uuid) for key, value in arrays.items()}
        if not checked:
            raise StoreError(f"no arrays given for episode {uuid}")
        staging = self._root / STAGING / f"derived-{uuid}-{os.getpid()}-{os.urandom(4).hex()}"
        try:
            self._make_group()
            staging.mkdir(parents=True)
            self._write_files(staging, uuid, length, checked)
            self._put_in_place(staging, uuid)
        except OSError as error:
            raise StoreError(f"derived arrays cannot be written to {self.path}: {error.strerror}") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def renew(self) -> None:
        """Count as made now, so that ``store.derived(name)`` gives this set; its arrays stay as they are.

        Raises:
            StoreError: the store cannot be written to.
        """
        try:
            self._write_group()
        except OSError as error:
            raise StoreError(f"derived arrays cannot be written to {self.path}: {error.strerror}") from error

    def read(self, uuid: str) -> dict[str, Array]:
        """The arrays (T, ...) of an episode by key.

        Raises:
            StoreError: the episode has none here.
            CorruptionError: a file is damaged.
        """
        folder = self.path / uuid
        if uuid not in self:
            raise StoreError(f"episode {uuid} has no {self.name!r} in {self.path}; run the command that made it again")
        commit = read_commit(folder)
        length = self._length(uuid)
        if commit["length"] != length or commit["uuid"] != uuid:
            raise CorruptionError(f"{folder / COMMIT_FILE} does not belong to episode {uuid} of {length} frames")
        keys = sorted({name.split("/")[0] for name in commit["files"] if "/" in name})
        return {key: self._read_array(folder, key, commit) for key in keys}

    def _read_array(self, folder: Path, key: str, commit: CommitRecord) -> np.ndarray:
        meta = read_group(folder, f"{key}/{GROUP_FILE}", commit)
        feature = Feature(key, tuple(meta["shape"][1:]), meta["data_type"])
        return read_rows(folder / key / chunk_name(feature), feature, commit["length"]).copy()

    def _length(self, uuid: str) -> int:
        try:
            return self._lengths[uuid]
        except KeyError:
            raise StoreError(f"{self._root} has no episode {uuid}") from None

    def _make_group(self) -> None:
        if not (self.path / GROUP_FILE).exists():
            self._write_group()

    def _write_group(self) -> None:
        details = {"name": self.name, "provenance": self.provenance, "created": utc_now()}
        document = json.loads(group_json({DERIVED_KEY: details}))
        staging = self._root / STAGING / f"derived-{self.path.name}-{os.getpid()}-{os.urandom(4).hex()}"
        staging.mkdir(parents=True)
        try:
            write_durably(staging / GROUP_FILE, seal(document, ("attributes", DERIVED_KEY)))
            # Folder and record appear together: a set without its record would be an error to doctor.
            self.path.parent.mkdir(exist_ok=True)
            try:
                os.rename(staging, self.path)
            except OSError:  # the set is there: its record alone is renewed
                if not self.path.is_dir():
                    raise
                os.replace(staging / GROUP_FILE, self.path / GROUP_FILE)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        sync_folder(self.path)
        sync_folder(self.path.parent)

    def _write_files(self, staging: Path, uuid: str, length: int, arrays: dict[str, np.ndarray]) -> None:
        files: dict[str, tuple[int, int]] = {}

        def put(name: str, data: bytes) -> None:
            (staging / name).write_bytes(data)
            files[name] = crc32c(data), len(data)

        for key, value in arrays.items():
            feature = Feature(key, value.shape[1:], value.dtype.name)
            (staging / key).mkdir()
            put(f"{key}/{GROUP_FILE}", array_json(feature, length))
            chunk = chunk_name(feature)
            files[f"{key}/{chunk}"] = write_rows(staging / key / chunk, feature, value)
        put(GROUP_FILE, group_json())
        (staging / COMMIT_FILE).write_bytes(commit_json(uuid, length, "", files)[0])
        sync_tree(staging)

    def _put_in_place(self, staging: Path, uuid: str) -> None:
        target = self.path / uuid
        if target.exists():
            # A crash between the two renames loses arrays that can be computed again, never a mixture.
            old = staging.with_name(staging.name + "-old")
            os.rename(target, old)
            os.rename(staging, target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(staging, target)
        sync_folder(self.path)


def make_derived(root: Path, name: str, provenance: Mapping[str, object], lengths: Mapping[str, int]) -> Derived:
    """The derived set of a name and provenance, there or not yet.

    Raises:
        StoreError: the name is not a plain word, or the provenance is not JSON.
    """
    if not _NAME.match(name):
        raise StoreError(f"derived name {name!r} must be lower-case letters, digits and '_'")
    try:
        plain = json.loads(json.dumps(dict(provenance), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StoreError(f"the provenance of {name!r} must be plain JSON: {error}") from error
    return Derived(root, name, plain, lengths)


def newest_derived(root: Path, name: str, lengths: Mapping[str, int]) -> Derived:
    """The derived set of a name that was made last.

    Raises:
        StoreError: there is none; says which command makes it.
        CorruptionError: a set's record is damaged.
    """
    folders = [found for found in list_names(root / DERIVED) if found.startswith(f"{name}-")]
    paths = [root / DERIVED / folder / GROUP_FILE for folder in folders]
    found = [read_details(path) for path in paths if path.exists()]
    found = [details for details in found if details["name"] == name]
    if not found:
        command = _MADE_BY.get(name)
        advice = f"make it with: {command} store={root}" if command else "compute it first"
        raise StoreError(f"{root} holds no derived {name!r}; {advice}")
    newest = max(found, key=lambda details: details["created"])
    return Derived(root, name, newest["provenance"], lengths)


def read_details(path: Path) -> DerivedRecord:
    """Name, provenance and time of creation from a derived set's zarr.json.

    Raises:
        CorruptionError: the file is damaged.
    """
    try:
        attributes = open_seal(path.read_bytes(), path)["attributes"]
        return cast(DerivedRecord, cast(dict[str, object], attributes)[DERIVED_KEY])
    except OSError as error:
        raise CorruptionError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError) as error:
        raise CorruptionError(f"{path} does not describe a derived set") from error


def _check(key: str, value: np.ndarray, length: int, uuid: str) -> np.ndarray:
    if not re.match(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\Z", key):
        raise StoreError(f"derived key {key!r} must be letters, digits, '_', '-' and '.'")
    if value.ndim < 1 or len(value) != length:
        raise StoreError(f"derived {key} of episode {uuid} has shape {value.shape}; {length} rows are expected")
    if value.dtype.name not in LOW_DIM_DTYPES:
        raise StoreError(f"derived {key} of episode {uuid} has type {value.dtype}; use one of {LOW_DIM_DTYPES}")
    return value
