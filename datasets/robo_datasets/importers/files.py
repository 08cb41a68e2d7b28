"""Small steps that importers share: JSON files, path patterns, folders in counting order."""

from __future__ import annotations

import json
import re
from pathlib import Path

from robo_core.errors import ImportSourceError
from robo_datasets.store.unreadable import why_unreadable

# Annotation and description files are small; a larger one is no such file.
_MAX_JSON_BYTES = 1 << 28


def read_json(path: Path) -> object:
    """Read a JSON file.

    Raises:
        ImportSourceError: it is missing, truncated, or not JSON.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ImportSourceError(f"{path} is larger than {_MAX_JSON_BYTES >> 20} MiB, too large for a description")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ImportSourceError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ImportSourceError(f"{path} {why_unreadable(path, f'is truncated or not JSON: {error}')}") from error


def counting_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which ``episode_2`` comes before ``episode_10``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", name) if part]


# Fields of a path pattern: {name} or {name:06d}. Anything else that str.format knows could reach into objects, or ask
# for gigabytes of padding.
_FIELD = re.compile(r"\{([a-z_]+)(?::0?([0-9])d)?\}")


def expand_pattern(root: Path, pattern: object, where: str, **fields: int | str) -> Path:
    """A file of a dataset whose description gives a pattern such as ``data/chunk-{chunk_index:03d}/x.parquet``.

    Args:
        root: folder of the dataset.
        pattern: the pattern, untrusted.
        where: file and key it stands in, for errors.
        fields: values by name.

    Raises:
        ImportSourceError: the pattern is malformed, has a field that is not known, or leads out of ``root``.
    """
    if not isinstance(pattern, str):
        raise ImportSourceError(f"{where} is {pattern!r}, a path pattern is needed")

    def fill(match: re.Match[str]) -> str:
        name, digits = match.group(1), match.group(2)
        if name not in fields or (digits and not isinstance(fields[name], int)):
            raise ImportSourceError(f"{where}: the pattern {pattern!r} has the unknown field {match.group(0)}")
        value = fields[name]
        return f"{value:0{int(digits)}d}" if digits and isinstance(value, int) else str(value)

    relative = _FIELD.sub(fill, pattern)
    if "{" in relative or "}" in relative:
        raise ImportSourceError(f"{where}: the pattern {pattern!r} cannot be filled in")
    return inside(root, relative)


def inside(root: Path, relative: str) -> Path:
    """``root / relative``, which must name a place inside ``root``; links that stand there are followed.

    Raises:
        ImportSourceError: the path leads out of the dataset.
    """
    path = Path(relative)
    if path.is_absolute() or ".." in path.parts or "\0" in relative:
        raise ImportSourceError(f"{root} names the file {relative!r}, which lies outside it")
    return root / path
