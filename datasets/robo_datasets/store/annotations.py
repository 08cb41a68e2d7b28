"""Edits to an episode after its commit: stage labels, success, task and attributes, one small file a version.

    annotations/<uuid>/00000001.json    {"version", "uuid", "edits": {"success": ..., "stage": [[start, end, stage]],
                                                                      "task": ..., "attributes": {...}}}

Each version holds all edits in force, so the newest file alone counts and the older ones are the history. A version
is made by linking a finished file to its name, which fails when another writer was first: then the next number is
taken, on top of the other's edits.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypedDict, cast

import numpy as np

from robo_core.checksummed import open_seal, seal, sync_folder, write_durably
from robo_core.errors import CorruptionError, StoreError
from robo_datasets.store.layout import ANNOTATIONS, utc_now
from robo_datasets.store.remote import RemotePath, list_names

_ATTEMPTS = 1000


class EpisodeEdits(TypedDict, total=False):
    """Edits in force for an episode."""

    stage: list[list[int]]
    """Runs [start, end, stage]."""
    success: bool | None
    task: str
    attributes: dict[str, object]
    """Those that replace or join the writer's."""


def read_edits(root: Path, uuid: str) -> EpisodeEdits:
    """The edits in force for an episode; empty where nothing was edited.

    Raises:
        CorruptionError: the newest annotation file is damaged.
    """
    newest = newest_file(root, uuid)
    if newest is None:
        return {}
    document = open_seal(newest.read_bytes(), newest)
    if document.get("uuid") != uuid:
        raise CorruptionError(f"{newest} belongs to episode {document.get('uuid')}")
    return cast(EpisodeEdits, document["edits"])


def newest_file(root: Path, uuid: str) -> Path | None:
    """The annotation file in force, or None."""
    folder = root / ANNOTATIONS
    if isinstance(folder, RemotePath) and uuid not in folder.names():
        return None  # most episodes have no edits: one listing says so, not one for each
    folder = folder / uuid
    names = _versions(folder)
    return folder / names[-1] if names else None


def add_edit(root: Path, uuid: str, edit: EpisodeEdits) -> None:
    """Put one edit into force, keeping the others.

    Raises:
        StoreError: the store cannot be written to, or other writers keep getting in between.
    """
    folder = root / ANNOTATIONS / uuid
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for _ in range(_ATTEMPTS):
            names = _versions(folder)
            version = int(names[-1].split(".")[0]) + 1 if names else 1
            before = read_edits(root, uuid)
            edits: EpisodeEdits = {**before, **edit}
            if "attributes" in edit:  # each attribute is an edit of its own: those of other writers stay
                edits["attributes"] = {**before.get("attributes", {}), **edit["attributes"]}
            document = {"version": version, "uuid": uuid, "created": utc_now(), "edits": edits}
            if _claim(folder, version, seal(document)):
                return
    except OSError as error:
        raise StoreError(f"the edit cannot be written to {folder}: {error.strerror}") from error
    raise StoreError(f"other writers keep editing {folder}; try again")


def _claim(folder: Path, version: int, data: bytes) -> bool:
    temporary = folder / f".{version}.{os.getpid()}.{os.urandom(4).hex()}"
    write_durably(temporary, data)
    try:
        os.link(temporary, folder / f"{version:08d}.json")
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    sync_folder(folder)
    sync_folder(folder.parent)
    return True


def _versions(folder: Path) -> list[str]:
    return sorted(name for name in list_names(folder) if name.endswith(".json") and not name.startswith("."))


def runs_of(stage: np.ndarray) -> list[list[int]]:
    """Per-frame stages (T,) as runs [start, end, stage], end exclusive, covering every frame."""
    stage = np.asarray(stage)
    if not len(stage):
        return []
    starts = np.concatenate([[0], np.flatnonzero(np.diff(stage)) + 1])
    ends = np.concatenate([starts[1:], [len(stage)]])
    return [[int(start), int(end), int(stage[start])] for start, end in zip(starts, ends, strict=True)]


def stage_of(runs: list[list[int]], length: int) -> np.ndarray:
    """Runs [start, end, stage] as per-frame stages (T,) int16; frames in no run are -1."""
    stage = np.full(length, -1, np.int16)
    for start, end, value in runs:
        stage[start:end] = value
    return stage
