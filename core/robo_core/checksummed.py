"""Files that prove themselves: CRC-32C, JSON that carries its own checksum, writes that reach the disk.

A sealed JSON file ends in ``"seal":"xxxxxxxx"`` and closing brackets. The seal is the CRC-32C of the whole file with
the eight digits set to zero, so that any changed byte, even one that parses to the same value, is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import google_crc32c
import numpy as np

from robo_core.errors import CorruptionError

_SEAL = re.compile(rb'"seal": ?"([0-9a-f]{8})"[\s}]*\Z')
_BLANK = "0" * 8
_SYNC_THREADS = 8
_kept: ThreadPoolExecutor | None = None


def crc32c(data: bytes | np.ndarray) -> int:
    """CRC-32C (Castagnoli) of bytes or of a contiguous read-only uint8 array."""
    return int(google_crc32c.value(data))


def extend_crc32c(crc: int, data: bytes) -> int:
    """CRC-32C of what ``crc`` stands for, followed by ``data``."""
    return int(google_crc32c.extend(crc, data))


def crc32c_file(path: Path) -> tuple[int, int]:
    """CRC-32C and size in bytes of a file, read in pieces.

    Raises:
        CorruptionError: the file cannot be read.
    """
    crc, size = 0, 0
    try:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                crc = google_crc32c.extend(crc, piece)
                size += len(piece)
    except OSError as error:
        raise CorruptionError(f"{path} cannot be read: {error.strerror}") from error
    return int(crc), size


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces, for hashing."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: object) -> str:
    """SHA-256 of a JSON value's canonical form, as 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def seal(document: Mapping[str, object], within: tuple[str, ...] = (), indent: int | None = 1) -> bytes:
    """Serialise ``document`` with a seal as the last key of the object at the path ``within``.

    Every key along ``within`` is moved to the end of its object, so that the seal ends the file.
    """
    sealed = _with_seal(document, within)
    text = json.dumps(sealed, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    raw = text.encode()
    start = raw.rindex(_BLANK.encode())
    return raw[:start] + f"{crc32c(raw):08x}".encode() + raw[start + len(_BLANK) :]


def _with_seal(document: Mapping[str, object], within: tuple[str, ...]) -> dict[str, object]:
    if not within:
        return {**{key: value for key, value in document.items() if key != "seal"}, "seal": _BLANK}
    inner = document[within[0]]
    assert isinstance(inner, dict), f"{within[0]} holds {type(inner).__name__}"
    rest = {key: value for key, value in document.items() if key != within[0]}
    return {**rest, within[0]: _with_seal(inner, within[1:])}


def open_seal(raw: bytes, path: str | os.PathLike[str]) -> dict[str, object]:
    """Parse a sealed JSON file's bytes after checking its seal; ``path`` is named in errors.

    Raises:
        CorruptionError: the seal is missing or does not match, or the bytes are not a JSON object.
    """
    match = _SEAL.search(raw[-64:])
    if match is None:
        raise CorruptionError(f"{path} is truncated or was not written by robo-rm: its seal is missing")
    start = max(len(raw) - 64, 0) + match.start(1)
    blank = raw[:start] + _BLANK.encode() + raw[start + 8 :]
    if f"{crc32c(blank):08x}".encode() != match.group(1):
        raise CorruptionError(f"{path} was changed or damaged: its checksum does not match")
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise CorruptionError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise CorruptionError(f"{path} does not hold a JSON object")
    return document


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(path: Path, data: bytes) -> None:
    """Replace a file so that readers see the old content or the new, and a power cut loses neither."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        write_durably(temporary, data)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_tree(folder: Path) -> None:
    """Wait until a folder and everything in it are on the disk.

    All at once, from several threads: the file system then makes them durable together, several times faster than
    one after another.
    """
    paths: list[str] = []
    for parent, _, names in os.walk(folder):
        paths += [parent, *(os.path.join(parent, name) for name in names)]
    with nullcontext(_kept) if _kept is not None else ThreadPoolExecutor(_SYNC_THREADS) as pool:
        for _ in pool.map(sync_folder, paths):
            pass


def keep_sync_threads() -> None:
    """Keep the threads of ``sync_tree`` for as long as this process lives.

    For a process that writes many episodes and forks no other: a fork has none of the threads.
    """
    global _kept
    _kept = ThreadPoolExecutor(_SYNC_THREADS, "sync")


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Wait until a folder's entries, or a file's bytes, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
