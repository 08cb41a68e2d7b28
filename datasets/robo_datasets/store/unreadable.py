"""Why a file of others cannot be read, where its decoder can only say that it is damaged."""

from __future__ import annotations

from pathlib import Path

_POINTER = b"version https://git-lfs.github.com/spec/"


def why_unreadable(path: Path, otherwise: str) -> str:
    """Why a file is not what its name says: a Git LFS pointer stands in its place, it is empty, or ``otherwise``."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
    except OSError:
        return otherwise
    if start == _POINTER:
        return "is a Git LFS pointer, its content was not downloaded: run git lfs pull in the dataset"
    return otherwise if start else "is empty (0 bytes)"
