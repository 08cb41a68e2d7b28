"""Decompressing chunks of unknown origin: never more bytes than expected, never past the end of what was given.

The decompressors that numcodecs binds trust the sizes in a chunk's header: Blosc reads beyond a truncated chunk and
returns what it finds there, others ask for as much memory as the header says.
"""

from __future__ import annotations

import bz2
import struct
import zlib
from collections.abc import Callable

import numcodecs

_BLOSC_HEADER = struct.Struct("<4B3I")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

COMPRESSORS = ("blosc", "zstd", "lz4", "gzip", "zlib", "bz2")


def decompress(kind: str, raw: bytes, size: int) -> bytes:
    """Decompress ``raw`` to exactly ``size`` bytes.

    Args:
        kind: one of ``COMPRESSORS``.
        raw: the chunk.
        size: bytes expected.

    Raises:
        ValueError: the chunk is truncated, damaged, or of another size.
    """
    if kind in _LIMITED:
        data = _LIMITED[kind](raw, size)
    else:
        declared = _DECLARED[kind](raw)
        if declared is not None and declared != size:
            raise ValueError(f"its header says {declared} bytes, {size} are expected")
        try:
            data = bytes(numcodecs.get_codec({"id": kind}).decode(raw))
        except (RuntimeError, TypeError, MemoryError) as error:
            raise ValueError(str(error)) from error
    if len(data) != size:
        raise ValueError(f"it holds {len(data)} bytes, {size} are expected")
    return data


def decompress_any(kind: str, raw: bytes, most: int) -> bytes:
    """Decompress ``raw`` to as many bytes as it holds, ``most`` at most.

    Raises:
        ValueError: the chunk is truncated, damaged, or larger.
    """
    if kind in _LIMITED:
        data = bytes(_LIMITED[kind](raw, most))
        if len(data) > most:
            raise ValueError(f"it holds more than {most} bytes")
        return data
    declared = _DECLARED[kind](raw)
    if declared is None or declared > most:
        raise ValueError(f"its header says {declared} bytes, {most} are expected at most")
    return decompress(kind, raw, declared)


def _blosc_size(raw: bytes) -> int:
    if len(raw) < _BLOSC_HEADER.size:
        raise ValueError("it ends within its header")
    *_, plain, _, compressed = _BLOSC_HEADER.unpack(raw[: _BLOSC_HEADER.size])
    if compressed != len(raw):
        raise ValueError(f"it has {len(raw)} bytes, its header says {compressed}")
    return int(plain)


def _lz4_size(raw: bytes) -> int:
    if len(raw) < 4:
        raise ValueError("it ends within its header")
    return int.from_bytes(raw[:4], "little")


def _zstd_size(raw: bytes) -> int | None:
    """The content size of a Zstandard frame (RFC 8878, section 3.1.1.1), None where it does not say."""
    if len(raw) < 6 or raw[:4] != _ZSTD_MAGIC:
        raise ValueError("it is no Zstandard frame")
    descriptor = raw[4]
    single, width = bool(descriptor & 0x20), (0, 2, 4, 8)[descriptor >> 6]
    width = 1 if single and not width else width
    start = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    if not width:
        return None
    if len(raw) < start + width:
        raise ValueError("it ends within its header")
    return int.from_bytes(raw[start : start + width], "little") + (256 if width == 2 else 0)


def _inflate(wbits: int) -> Callable[[bytes, int], bytes]:
    def run(raw: bytes, size: int) -> bytes:
        stream = zlib.decompressobj(wbits)
        try:
            data = stream.decompress(raw, size + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        # The checksum stands behind the data: a stream that does not reach its end was not checked.
        if not stream.eof and len(data) <= size:
            raise ValueError("it ends too early")
        return data

    return run


def _bunzip(raw: bytes, size: int) -> bytes:
    stream = bz2.BZ2Decompressor()
    try:
        data = stream.decompress(raw, size + 1)
    except (OSError, EOFError) as error:
        raise ValueError(str(error)) from error
    if not stream.eof and len(data) <= size:
        raise ValueError("it ends too early")
    return data


_DECLARED: dict[str, Callable[[bytes], int | None]] = {
    "blosc": _blosc_size,
    "lz4": _lz4_size,
    "zstd": _zstd_size,
}
_LIMITED: dict[str, Callable[[bytes, int], bytes]] = {"gzip": _inflate(31), "zlib": _inflate(15), "bz2": _bunzip}
