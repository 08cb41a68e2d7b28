"""Low-dimensional arrays: one chunk of little-endian rows, followed by their CRC-32C."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from robo_core.checksummed import crc32c
from robo_core.errors import CorruptionError
from robo_datasets.store.features import Feature

_CRC = struct.Struct("<I")


def write_rows(path: Path, feature: Feature, rows: np.ndarray) -> tuple[int, int]:
    """Write (T, *shape) rows to a new file; returns the file's CRC-32C and size."""
    data = np.ascontiguousarray(rows, np.dtype(feature.dtype).newbyteorder("<")).tobytes()
    data += _CRC.pack(crc32c(data))
    path.write_bytes(data)
    return crc32c(data), len(data)


def read_rows(path: Path, feature: Feature, length: int) -> np.ndarray:
    """Read (T, *shape) rows, read-only.

    Raises:
        CorruptionError: the file is missing, of another size than ``length`` rows, or does not match its checksum.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CorruptionError(f"{path} cannot be read: {error.strerror}") from error
    expected = length * feature.row_bytes + _CRC.size
    if len(raw) != expected:
        raise CorruptionError(f"{path} is truncated or damaged: {len(raw)} bytes, {expected} expected")
    data = raw[: -_CRC.size]
    if crc32c(data) != _CRC.unpack(raw[-_CRC.size :])[0]:
        raise CorruptionError(f"{path} is damaged: its checksum does not match")
    rows = np.frombuffer(data, np.dtype(feature.dtype).newbyteorder("<")).reshape(length, *feature.shape)
    return rows.astype(np.dtype(feature.dtype), copy=False)
