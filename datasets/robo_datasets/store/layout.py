"""Where things stand in a demo store, and the record that makes an episode count: COMMIT.json."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict, cast

from robo_core.checksummed import digest, open_seal, seal
from robo_core.errors import CorruptionError

FORMAT_VERSION = 2
ROOT_KEY = "robo_demos"

GROUP_FILE = "zarr.json"
COMMIT_FILE = "COMMIT.json"
INDEX_FILE = "index.json"
EPISODES = "episodes"
STAGING = ".staging"
ANNOTATIONS = "annotations"
DERIVED = "derived"
SPLITS = "splits"
IMPORTS = "imports"

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


def is_uuid(name: str) -> bool:
    """Whether a folder's name is that of an episode."""
    return bool(_UUID.match(name))


def utc_now() -> str:
    """Now, as ISO 8601 in UTC with microseconds: sorts as text in order of time."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True)
class Entry:
    """What the index knows of an episode, so that opening a store need not read its episodes."""

    uuid: str
    length: int
    task: str
    success: bool | None
    source: object
    created: str
    sequence: int
    commit: str
    """SHA-256 over the episode's files; stands for its whole content."""

    @property
    def order(self) -> tuple[str, int, str]:
        """Sorts episodes by time of creation, then by place in their source."""
        return self.created, self.sequence, self.uuid


class FileRecord(TypedDict):
    """What COMMIT.json says of a file."""

    crc32c: str
    bytes: int


class CommitRecord(TypedDict):
    """COMMIT.json of an episode, or of its arrays in a derived set."""

    format: int
    uuid: str
    length: int
    schema: str
    files: dict[str, FileRecord]
    hash: str


class EpisodeRecord(TypedDict):
    """The Zarr attributes of an episode's group."""

    uuid: str
    length: int
    task: str
    success: bool | None
    source: object
    created: str
    sequence: int
    attributes: dict[str, object]


def episode_attributes(entry: Entry, attributes: dict[str, object]) -> dict[str, object]:
    """The Zarr attributes of an episode's group."""
    shown = asdict(entry)
    del shown["commit"]
    return {**shown, "attributes": attributes}


def commit_json(uuid: str, length: int, schema_hash: str, files: dict[str, tuple[int, int]]) -> tuple[bytes, str]:
    """COMMIT.json (length, schema and, for every file of the episode, its CRC-32C and size) and the hash in it."""
    table = {name: {"crc32c": f"{crc:08x}", "bytes": size} for name, (crc, size) in sorted(files.items())}
    body = {
        "format": FORMAT_VERSION,
        "uuid": uuid,
        "length": length,
        "schema": schema_hash,
        "files": table,
    }
    commit_hash = digest(body)
    return seal({**body, "hash": commit_hash}), commit_hash


def read_commit(folder: Path) -> CommitRecord:
    """Read and check an episode's COMMIT.json.

    Raises:
        CorruptionError: it is missing, damaged, or of another format.
    """
    path = folder / COMMIT_FILE
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CorruptionError(f"{path} cannot be read: {error.strerror}") from error
    commit = open_seal(raw, path)
    body = {key: value for key, value in commit.items() if key not in ("hash", "seal")}
    if commit.get("format") != FORMAT_VERSION or commit.get("hash") != digest(body):
        raise CorruptionError(f"{path} is not the commit record of an episode in format {FORMAT_VERSION}")
    return cast(CommitRecord, commit)
