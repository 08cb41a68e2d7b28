"""What a store says of itself: the ``robo_demos`` attributes of its ``zarr.json``, sealed."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from robo_core.checksummed import open_seal, replace_durably, seal, sync_folder, write_durably
from robo_core.errors import CorruptionError, StoreError
from robo_datasets.recognise import not_a_store
from robo_datasets.store.features import FeatureSpec
from robo_datasets.store.layout import DERIVED, EPISODES, FORMAT_VERSION, GROUP_FILE, ROOT_KEY
from robo_datasets.store.zarr_meta import group_json


class StoreDescription(TypedDict):
    """The ``robo_demos`` attributes of a store."""

    version: int
    fps: float
    schema: dict[str, FeatureSpec]
    stages: list[str]
    robot: str | None
    contract_hash: str | None
    contract: NotRequired[dict[str, object]]
    instruction_groups: NotRequired[list[list[str]]]


def read_description(root: Path) -> StoreDescription:
    """The ``robo_demos`` attributes of a store.

    Raises:
        StoreError: there is no store at ``root``, or one of another version.
        CorruptionError: the description is damaged.
    """
    path = root / GROUP_FILE
    try:
        there = root.exists()
    except OSError as error:
        raise StoreError(f"{root} cannot be reached: {error.strerror}") from error
    if not there:
        why = f"there is no demo store at {root}; make one with robo-rm record or robo-rm import"
        raise StoreError(not_a_store(root, why))
    if not path.is_file():
        raise StoreError(not_a_store(root, f"{root} is not a demo store: it has no {GROUP_FILE}"))
    raw = path.read_bytes()
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise CorruptionError(f"{path} is truncated or damaged: {error}") from error
    attributes = document.get("attributes") if isinstance(document, dict) else None
    description = attributes.get(ROOT_KEY) if isinstance(attributes, dict) else None
    if not isinstance(description, dict):
        raise StoreError(f"{root} is not a demo store: its {GROUP_FILE} has no {ROOT_KEY} attributes")
    if description.get("version") != FORMAT_VERSION:
        raise StoreError(
            f"{root} is a store of version {description.get('version')!r}, this robo-rm reads {FORMAT_VERSION}: import "
            "its sources again, or run robo-rm export lerobot of the version that made it and import that"
        )
    open_seal(raw, path)
    return cast(StoreDescription, {key: value for key, value in description.items() if key != "seal"})


def make_root(root: Path, description: StoreDescription) -> None:
    """Make the store beside its place and move it there, so that no half-made store is ever seen."""
    root.parent.mkdir(parents=True, exist_ok=True)
    staging = root.with_name(f".{root.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        for folder in (EPISODES, DERIVED):
            (staging / folder).mkdir(parents=True)
            write_durably(staging / folder / GROUP_FILE, group_json())
        document = json.loads(group_json({ROOT_KEY: description}))
        write_durably(staging / GROUP_FILE, seal(document, ("attributes", ROOT_KEY)))
        sync_folder(staging)
        os.rename(staging, root)
        sync_folder(root.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def edit_description(root: Path) -> Iterator[StoreDescription]:
    """The description of a store, locked; what the block changes is written when it ends without an error.

    Raises:
        StoreError: the store cannot be written to.
    """
    handle = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        description = read_description(root)
        before = description.copy()
        yield description
        if description != before:
            document = json.loads(group_json({ROOT_KEY: description}))
            replace_durably(root / GROUP_FILE, seal(document, ("attributes", ROOT_KEY)))
    except OSError as error:
        raise StoreError(f"{root} cannot be written to: {error.strerror}") from error
    finally:
        os.close(handle)


def name_stages(root: Path, stages: Sequence[str]) -> StoreDescription:
    """Give a store that has no stages these; returns the description.

    Raises:
        StoreError: it has others, or cannot be written to.
    """
    names = check_stages(stages)
    with edit_description(root) as description:
        if description["stages"] not in ([], names):
            raise StoreError(f"{root} has the stages {description['stages']}; they cannot become {names}")
        description["stages"] = names
    return description


def check_fps(fps: float) -> float:
    """The frame rate, if it is one; raises ``StoreError`` otherwise."""
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not math.isfinite(fps) or fps <= 0:
        raise StoreError(f"fps is a positive number of frames per second, got {fps!r}")
    return float(fps)


def check_stages(stages: Sequence[str]) -> list[str]:
    """The stage names, if they are all different; raises ``StoreError`` otherwise."""
    if isinstance(stages, str) or not all(isinstance(name, str) and name for name in stages):
        raise StoreError(f"stages are a list of names, got {stages!r}")
    if len(set(stages)) != len(stages):
        raise StoreError(f"stage names repeat: {list(stages)}; a stage may come twice in an episode, not in the list")
    return list(stages)
