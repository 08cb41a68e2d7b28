"""Checking an episode's files against its commit record."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from robo_core.checksummed import crc32c_file
from robo_core.errors import CorruptionError
from robo_datasets.store.layout import COMMIT_FILE, read_commit


def episode_problems(folder: Path) -> Iterator[str]:
    """Every file that is missing, damaged or does not belong, one sentence each, naming the path."""
    try:
        commit = read_commit(folder)
    except CorruptionError as error:
        yield str(error)
        return
    if commit["uuid"] != folder.name:
        yield f"{folder / COMMIT_FILE} is the record of episode {commit['uuid']}"
    expected = commit["files"]
    for name, record in expected.items():
        path = folder / name
        if not path.is_file():
            yield f"{path} is missing"
            continue
        try:
            crc, size = crc32c_file(path)
        except CorruptionError as error:
            yield str(error)
            continue
        if size != record["bytes"]:
            yield f"{path} has {size} bytes, {record['bytes']} were committed"
        elif f"{crc:08x}" != record["crc32c"]:
            yield f"{path} is damaged: its checksum does not match COMMIT.json"
    for parent, _, names in os.walk(folder):
        for name in names:
            relative = (Path(parent) / name).relative_to(folder).as_posix()
            if relative not in expected and relative != COMMIT_FILE:
                yield f"{folder / relative} does not belong to the episode"
