"""index.json: a derived list of the committed episodes, so that opening a store reads one file, not thousands.

It may be deleted at any time. A damaged or stale one is rebuilt from ``episodes/``: folders that it does not know are
read, folders that are gone are dropped; what it knows of the rest cannot be stale, for a committed episode never
changes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, cast

from robo_core.checksummed import crc32c, open_seal, replace_durably, seal
from robo_core.errors import CorruptionError
from robo_datasets.store.layout import (
    COMMIT_FILE,
    EPISODES,
    FORMAT_VERSION,
    GROUP_FILE,
    INDEX_FILE,
    CommitRecord,
    Entry,
    EpisodeRecord,
    is_uuid,
    read_commit,
)
from robo_datasets.store.remote import list_names

_COLUMNS = [field.name for field in fields(Entry)]


class DamagedEpisodeWarning(UserWarning):
    """An episode was left out of an opened store because its records are damaged."""


def load_entries(root: Path) -> tuple[dict[str, Entry], bool]:
    """All committed episodes by UUID, in order of creation, and whether index.json was up to date.

    An episode that the index does not know and whose records are damaged is left out with a
    ``DamagedEpisodeWarning``: one bad episode must not lock the others away. ``robo-rm doctor`` says more.
    """
    known = _read_index(root)
    present = committed_folders(root)
    entries = {uuid: entry for uuid, entry in known.items() if uuid in present}
    missing = [uuid for uuid in present if uuid not in known]
    read = [entry for uuid in missing if (entry := _read_or_warn(root / EPISODES / uuid)) is not None]
    fresh = not read and len(entries) == len(known) and bool(known or not present)
    if not fresh:
        entries.update((entry.uuid, entry) for entry in read)
        entries = dict(sorted(entries.items(), key=lambda item: item[1].order))
    return entries, fresh


def _read_or_warn(folder: Path) -> Entry | None:
    try:
        return read_entry(folder)
    except CorruptionError as error:
        warnings.warn(f"an episode is left out: {error}; see robo-rm doctor", DamagedEpisodeWarning, stacklevel=4)
        return None


def committed_folders(root: Path) -> set[str]:
    """Names of the folders in episodes/ that are named like an episode."""
    return {name for name in list_names(root / EPISODES) if is_uuid(name)}


def read_entry(folder: Path) -> Entry | None:
    """An episode's entry, from its own files; None where there is no COMMIT.json.

    Raises:
        CorruptionError: its records are damaged.
    """
    if not (folder / COMMIT_FILE).exists():
        return None
    commit = read_commit(folder)
    attributes = read_attributes(folder, commit)
    try:
        return Entry(
            uuid=folder.name,
            length=int(commit["length"]),
            task=attributes["task"],
            success=attributes["success"],
            source=attributes["source"],
            created=attributes["created"],
            sequence=attributes["sequence"],
            commit=commit["hash"],
        )
    except KeyError as error:
        raise CorruptionError(f"{folder / GROUP_FILE} lacks the attribute {error}") from error


def read_attributes(folder: Path, commit: CommitRecord) -> EpisodeRecord:
    """The Zarr attributes of an episode's group, checked against its commit record.

    Raises:
        CorruptionError: the file is missing or does not match its checksum.
    """
    attributes: EpisodeRecord = read_group(folder, GROUP_FILE, commit)["attributes"]
    return attributes


def read_group(folder: Path, name: str, commit: CommitRecord) -> dict[str, Any]:
    """A file of Zarr metadata in an episode's folder, checked against the commit record.

    Raises:
        CorruptionError: the file is missing or does not match its checksum.
    """
    path = folder / name
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CorruptionError(f"{path} cannot be read: {error.strerror}") from error
    if f"{crc32c(raw):08x}" != commit["files"].get(name, {"crc32c": ""})["crc32c"]:
        raise CorruptionError(f"{path} was changed or damaged: its checksum does not match COMMIT.json")
    content: dict[str, Any] = json.loads(raw)
    return content


def write_index(root: Path, entries: Iterable[Entry]) -> None:
    """Replace index.json; a store that cannot be written to goes without."""
    rows = [astuple(entry) for entry in entries]
    document = {"version": FORMAT_VERSION, "columns": _COLUMNS, "episodes": rows}
    try:
        replace_durably(root / INDEX_FILE, seal(document, indent=None))
    except OSError:
        return  # read-only disk: the index is only a shortcut


def check_index(root: Path) -> None:
    """Raise ``CorruptionError`` where index.json is there and damaged (opening would quietly rebuild it)."""
    path = root / INDEX_FILE
    if path.exists():
        open_seal(path.read_bytes(), path)


def _read_index(root: Path) -> dict[str, Entry]:
    path = root / INDEX_FILE
    try:
        document = open_seal(path.read_bytes(), path)
    except (OSError, CorruptionError):
        return {}
    if document.get("version") != FORMAT_VERSION or document.get("columns") != _COLUMNS:
        return {}
    rows = cast(list[list[Any]], document["episodes"])  # values of `_COLUMNS`, under the checksum
    return {row[0]: Entry(*row) for row in rows}
