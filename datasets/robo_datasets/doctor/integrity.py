"""Whether every file of a store is there and unchanged; needs nothing but the files themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from robo_core.checksummed import digest, open_seal
from robo_core.errors import CorruptionError, StoreError
from robo_datasets.doctor.findings import ERROR, WARNING, Finding, Remedy
from robo_datasets.store.derived import read_details
from robo_datasets.store.description import read_description
from robo_datasets.store.index import check_index
from robo_datasets.store.layout import (
    ANNOTATIONS,
    COMMIT_FILE,
    DERIVED,
    EPISODES,
    GROUP_FILE,
    IMPORTS,
    INDEX_FILE,
    SPLITS,
    STAGING,
    is_uuid,
    read_commit,
)
from robo_datasets.store.verify import episode_problems
from robo_datasets.store.writer import lock_folder
from robo_datasets.store.zarr_meta import group_json

QUARANTINE = ".quarantine"
_KNOWN = {GROUP_FILE, INDEX_FILE, EPISODES, ANNOTATIONS, DERIVED, IMPORTS, SPLITS, STAGING, QUARANTINE}


def check_store_files(root: Path) -> Iterator[Finding]:
    """The store's own files: description, index, group records, strays, annotations."""
    try:
        read_description(root)
    except StoreError as error:
        yield Finding("store", ERROR, str(root / GROUP_FILE), str(error))
    try:
        check_index(root)
    except CorruptionError as error:
        path = root / INDEX_FILE
        yield Finding("index", ERROR, str(path), str(error), Remedy("rebuild_index", path))
    for folder in (EPISODES, DERIVED):
        path = root / folder / GROUP_FILE
        if folder == DERIVED and not path.parent.exists():
            continue  # derived arrays may be thrown away whole
        if not path.is_file():
            message = f"{path} is missing: stock zarr cannot list the folder"
            yield Finding("store", WARNING, str(path), message, Remedy("rewrite_group", path))
        elif path.read_bytes() != group_json():
            message = f"{path} was changed or damaged"
            yield Finding("store", ERROR, str(path), message, Remedy("rewrite_group", path))
    for name in sorted(os.listdir(root)):
        if name not in _KNOWN:
            yield Finding("store", WARNING, str(root / name), f"{root / name} does not belong to a store")


def check_staging(root: Path) -> Iterator[Finding]:
    """What writers left behind; folders that a living writer holds are fine."""
    staging = root / STAGING
    for folder in sorted(staging.iterdir()) if staging.is_dir() else []:
        if not folder.is_dir():
            yield Finding("staging", WARNING, str(folder), f"{folder} is no episode", Remedy("clear_staging", folder))
            continue
        handle = lock_folder(folder)
        if handle is None:
            continue
        os.close(handle)
        yield Finding(
            "staging",
            WARNING,
            str(folder),
            f"{folder} is what a writer left that was killed",
            Remedy("clear_staging", folder),
        )


def check_episode_files(folder: Path, schema_hash: str | None) -> Iterator[Finding]:
    """One folder of ``episodes/`` against its commit record.

    Args:
        folder: the episode.
        schema_hash: of the store's schema; None where the store's description cannot be read.
    """
    if not is_uuid(folder.name) or not folder.is_dir():
        yield Finding("files", ERROR, str(folder), f"{folder} is no episode", Remedy("set_aside", folder))
        return
    found = False
    for problem in episode_problems(folder):
        found = True
        # One remedy an episode: setting its folder aside settles all of its problems.
        yield Finding("files", ERROR, folder.name, problem, Remedy("set_aside", folder))
    if not found and schema_hash is not None and read_commit(folder)["schema"] != schema_hash:
        message = f"{folder / COMMIT_FILE} belongs to a store of another schema"
        yield Finding("files", ERROR, folder.name, message, Remedy("set_aside", folder))


def check_annotations(root: Path) -> Iterator[Finding]:
    """Every version of every edit; edits of episodes that are gone."""
    folder = root / ANNOTATIONS
    for edits in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not edits.is_dir():
            yield Finding(
                "annotations", ERROR, str(edits), f"{edits} is no folder of edits", Remedy("set_aside", edits)
            )
            continue
        if not (root / EPISODES / edits.name).is_dir():
            message = f"{edits} holds edits of an episode that is not there"
            yield Finding("annotations", WARNING, edits.name, message, Remedy("set_aside", edits))
        paths = sorted(edits.iterdir())
        newest = max((int(path.stem) for path in paths if path.stem.isdigit()), default=0)
        gone = [name for number in range(1, newest) if not (edits / (name := f"{number:08d}.json")).exists()]
        if gone:
            message = f"{edits / gone[0]} is missing from the history of edits"
            yield Finding("annotations", WARNING, edits.name, message)
        for path in paths:
            problem = _annotation_problem(path, edits.name)
            if problem:
                yield Finding("annotations", ERROR, edits.name, problem, Remedy("set_aside", path))


def _annotation_problem(path: Path, uuid: str) -> str:
    try:
        document = open_seal(path.read_bytes(), path)
    except CorruptionError as error:
        return str(error)
    version = document.get("version")
    if document.get("uuid") != uuid or not isinstance(version, int) or path.name != f"{version:08d}.json":
        return f"{path} is not the edit that its name says"
    return ""


def check_derived(root: Path) -> Iterator[Finding]:
    """Derived arrays against their commit records."""
    folder = root / DERIVED
    for derived in sorted(folder.iterdir()) if folder.is_dir() else []:
        if derived.name == GROUP_FILE:
            continue
        if not derived.is_dir():
            yield Finding("derived", ERROR, str(derived), f"{derived} does not belong there", Remedy("remove", derived))
            continue
        yield from _check_derived_set(root, derived)


def _check_derived_set(root: Path, derived: Path) -> Iterator[Finding]:
    path = derived / GROUP_FILE
    try:
        details = read_details(path)
        if derived.name != f"{details['name']}-{digest(details['provenance'])[:16]}":
            raise CorruptionError(f"{path} is the record of another set")
    except (CorruptionError, KeyError, TypeError) as error:
        yield Finding("derived", ERROR, str(derived), f"{path}: {error}", Remedy("remove", derived))
        return
    for arrays in sorted(derived.iterdir()):
        if arrays.name == GROUP_FILE:
            continue
        if not (root / EPISODES / arrays.name).is_dir():
            message = f"{arrays} belongs to an episode that is not there"
            yield Finding("derived", WARNING, str(arrays), message, Remedy("remove", arrays))
            continue
        for problem in episode_problems(arrays):
            yield Finding("derived", ERROR, arrays.name, problem, Remedy("remove", arrays))
