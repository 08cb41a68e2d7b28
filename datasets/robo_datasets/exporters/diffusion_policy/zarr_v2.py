"""Arrays in the Zarr v2 format, chunk by chunk, compressed with Blosc and Zstandard; every chunk is written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numcodecs
import numpy as np

_CODEC = {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 1, "blocksize": 0}


def write_json(path: Path, document: dict[str, object]) -> None:
    """Write one of the format's description files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def write_group(path: Path, attributes: dict[str, object] | None = None) -> None:
    """Describe a group."""
    write_json(path / ".zgroup", {"zarr_format": 2})
    if attributes is not None:
        write_json(path / ".zattrs", attributes)


def describe_array(path: Path, rows: int, shape: tuple[int, ...], dtype: np.dtype, chunk: int) -> None:
    """Describe an array (rows, *shape) that is cut into chunks of ``chunk`` rows."""
    document = {
        "zarr_format": 2,
        "shape": [rows, *shape],
        "chunks": [chunk, *shape],
        "dtype": dtype.newbyteorder("<").str,
        "compressor": _CODEC,
        "fill_value": 0 if dtype.kind != "b" else False,
        "order": "C",
        "filters": None,
    }
    write_json(path / ".zarray", document)


def write_chunk(path: Path, number: int, rows: np.ndarray, chunk: int) -> None:
    """Write the chunk with a number along the first axis; a last one that is not full is padded with zeros."""
    data = np.ascontiguousarray(rows, rows.dtype.newbyteorder("<"))
    if len(data) < chunk:
        data = np.concatenate([data, np.zeros((chunk - len(data), *data.shape[1:]), data.dtype)])
    # Blosc takes at most 2 GiB at once; chunks are far below.
    encoded = numcodecs.get_codec(dict(_CODEC)).encode(data)
    (path / ".".join([str(number), *["0"] * (rows.ndim - 1)])).write_bytes(bytes(encoded))


def write_array(path: Path, parts: Iterable[np.ndarray], rows: int, chunk: int) -> None:
    """Write (rows, ...) given in parts of any length, one after the other."""
    held: list[np.ndarray] = []
    number = count = 0
    described = False
    for part in parts:
        if not described:
            describe_array(path, rows, part.shape[1:], part.dtype, chunk)
            described = True
        held.append(part)
        count += len(part)
        if count >= chunk:
            whole = np.concatenate(held)
            while len(whole) >= chunk:
                write_chunk(path, number, whole[:chunk], chunk)
                whole, number = whole[chunk:], number + 1
            held, count = [whole], len(whole)
    if count:
        write_chunk(path, number, np.concatenate(held), chunk)
