"""Small steps that importers share: JSON files, fingerprints of large files, folders in counting order."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from robo_datasets.errors import ImportSourceError

# A fingerprint reads this much of either end of a file: a data set of terabytes must not be read twice.
_ENDS = 1 << 16

# Annotation and description files are small; a larger one is no such file.
_MAX_JSON_BYTES = 1 << 28


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ImportSourceError: it is missing, truncated, or no JSON.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ImportSourceError(f"{path} is larger than {_MAX_JSON_BYTES >> 20} MiB; that is no description file")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ImportSourceError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ImportSourceError(f"{path} is truncated or no JSON: {error}") from error


def fingerprint_files(root: Path, files: Iterable[Path]) -> str:
    """A hash over names, sizes and both ends of files: the same data set elsewhere has the same.

    Raises:
        ImportSourceError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(files):
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                head = file.read(_ENDS)
                file.seek(max(size - _ENDS, 0))
                tail = file.read(_ENDS)
        except OSError as error:
            raise ImportSourceError(f"{path} cannot be read: {error.strerror}") from error
        name = path.relative_to(root).as_posix() if path != root else path.name
        digest.update(f"{name}\0{size}\0".encode())
        digest.update(head)
        digest.update(tail)
    return digest.hexdigest()[:32]


def counting_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which ``episode_2`` comes before ``episode_10``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", name) if part]
