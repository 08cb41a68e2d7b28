"""Arrays of the Zarr v3 format, read as those of v2 (``.zarr_v2``): nothing is unpickled, and a
chunk that is missing or of the wrong size is an error.

zarr-python 3 writes this format unless told otherwise. Codecs: transpose, bytes, then any of zstd, gzip, blosc, crc32c;
or sharding_indexed around such (https://zarr-specs.readthedocs.io, version 3.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from robo_core.checksummed import crc32c
from robo_core.errors import ImportSourceError
from robo_datasets.importers.zarr.decompress import decompress, decompress_any
from robo_datasets.importers.zarr.zarr_v2 import Files, ZarrV2Array, read_document

_COMPRESSORS = ("zstd", "gzip", "blosc")
_ABSENT = (1 << 64) - 1
_TYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
)  # fmt: skip


@dataclass(frozen=True)
class _Codecs:
    """A chain of codecs, checked."""

    order: tuple[int, ...] | None
    """From transpose."""
    endian: Literal["<", ">"]
    packing: tuple[str, ...]
    """Codecs of bytes in the order of encoding."""


@dataclass(frozen=True)
class _Shards:
    inner: tuple[int, ...]
    """Shape of an inner chunk."""
    codecs: _Codecs
    index: _Codecs
    at_end: bool


class ZarrV3Array(ZarrV2Array):
    """One array; see ``ZarrV2Array``."""

    def __init__(self, files: Files, name: str, allow_missing: bool = False) -> None:
        self._files, self._name, self._allow_missing = files, name, allow_missing
        self.where = f"{files.root}: {name}"
        document = read_document(files, f"{name}/zarr.json")
        if document is None or document.get("node_type") != "array" or document.get("zarr_format") != 3:
            raise ImportSourceError(f"{self.where} is not a Zarr v3 array")
        kind = document.get("data_type")
        if kind not in _TYPES:
            raise ImportSourceError(
                f"{self.where} is of type {str(kind)[:80]!r}; only numbers are read, never objects that need unpickling"
            )
        self.dtype = np.dtype(kind)
        self.shape = self._sides(document.get("shape"), "shape", 0)
        grid = document.get("chunk_grid")
        if not isinstance(grid, dict) or grid.get("name") != "regular":
            raise ImportSourceError(f"{self.where}: the chunk grid {str(grid)[:80]} is not read; regular ones are")
        self.chunks = self._sides(_settings(grid).get("chunk_shape"), "chunk_shape", 1)
        self._separator, self._prefix = self._key_encoding(document.get("chunk_key_encoding"))
        self._fill = document.get("fill_value")
        chain = document.get("codecs")
        if not isinstance(chain, list) or not chain or not all(isinstance(codec, dict) for codec in chain):
            raise ImportSourceError(f"{self.where}: codecs is {str(chain)[:80]}, a list is needed")
        self._shards = self._read_shards(chain[0]) if chain[0].get("name") == "sharding_indexed" else None
        if self._shards is not None and len(chain) > 1:
            raise ImportSourceError(f"{self.where}: codecs around sharding_indexed are not read")
        self._codecs = self._shards.codecs if self._shards else self._read_codecs(chain, len(self.shape))
        self._check_sizes()
        self._place: tuple[int, ...] = ()
        self._last: tuple[tuple[int, ...], np.ndarray] | None = None

    def _chunk(self, place: tuple[int, ...]) -> np.ndarray:
        self._place = place
        return super()._chunk(place)

    def _decode(self, raw: bytes, name: str) -> np.ndarray:
        try:
            if self._shards is not None:
                return self._unpack_shard(raw, self._shards, name)
            return self._unpack(raw, self._codecs, self.chunks, self.dtype)
        except (ValueError, RuntimeError, TypeError, MemoryError) as error:
            if isinstance(error, ImportSourceError):
                raise
            raise ImportSourceError(f"{self._files.root}: {name} is truncated or damaged: {error}") from error

    def _unpack(self, raw: bytes, codecs: _Codecs, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size = math.prod(shape) * dtype.itemsize
        for place in range(len(codecs.packing) - 1, -1, -1):
            kind = codecs.packing[place]
            if kind == "crc32c":
                if len(raw) < 4 or crc32c(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
                    raise ValueError("its checksum is wrong")
                raw = raw[:-4]
            else:  # what is packed twice or has a checksum inside is of a size that only the data say
                sized = place == 0
                raw = decompress(kind, raw, size) if sized else decompress_any(kind, raw, 2 * size + 1024)
        if len(raw) != size:
            raise ValueError(f"it holds {len(raw)} bytes, a chunk {shape} of {dtype} has {size}")
        flat = np.frombuffer(raw, dtype.newbyteorder(codecs.endian))
        if codecs.order is None:
            return flat.reshape(shape)
        return flat.reshape([shape[axis] for axis in codecs.order]).transpose(np.argsort(codecs.order))

    def _unpack_shard(self, raw: bytes, shards: _Shards, name: str) -> np.ndarray:
        grid = tuple(side // inner for side, inner in zip(self.chunks, shards.inner, strict=True))
        checksum = 4 * shards.index.packing.count("crc32c")
        length = math.prod(grid) * 16 + checksum
        if len(raw) < length:
            raise ValueError("it ends within its index")
        table = self._unpack(raw[-length:] if shards.at_end else raw[:length], shards.index, (*grid, 2), np.dtype("u8"))
        chunk = np.full(self.chunks, self._fill_value(), self.dtype.newbyteorder("="))
        for place in np.ndindex(*grid):
            start, size = (int(number) for number in table[place])
            if start == size == _ABSENT:
                beyond = any(
                    shard * whole + inside * side >= length
                    for shard, whole, inside, side, length in zip(
                        self._place, self.chunks, place, shards.inner, self.shape, strict=True
                    )
                )
                if not self._allow_missing and not beyond:
                    raise ImportSourceError(
                        f"{self._files.root}: chunk {place} inside {name} is missing; where the writer left out chunks "
                        "of zeros, give missing_chunks=zeros"
                    )
                continue
            if start + size > len(raw):
                raise ValueError("it ends too early")
            part = self._unpack(raw[start : start + size], shards.codecs, shards.inner, self.dtype)
            spot = tuple(slice(i * side, (i + 1) * side) for i, side in zip(place, shards.inner, strict=True))
            chunk[spot] = part
        return chunk

    def _file(self, place: tuple[int, ...]) -> str:
        return "/".join([self._name, self._separator.join([*self._prefix, *map(str, place)])])

    def _key_encoding(self, entry: object) -> tuple[str, list[str]]:
        name = entry.get("name") if isinstance(entry, dict) else None
        separator = _settings(entry).get("separator", "/" if name == "default" else ".") if name else None
        if name not in ("default", "v2") or separator not in (".", "/"):
            raise ImportSourceError(f"{self.where}: the chunk keys {str(entry)[:80]} are not known")
        return str(separator), ["c"] if name == "default" else []

    def _read_codecs(self, chain: list[object], rank: int) -> _Codecs:
        order: tuple[int, ...] | None = None
        endian: Literal["<", ">", ""] = ""
        packing: list[str] = []
        for codec in chain:
            name = codec.get("name") if isinstance(codec, dict) else codec
            if name == "transpose" and not endian:
                given = _settings(codec).get("order")
                if not isinstance(given, list) or sorted(map(str, given)) != sorted(map(str, range(rank))):
                    raise ImportSourceError(f"{self.where}: transpose has the order {given!r}")
                order = tuple(given) if order is None else tuple(order[axis] for axis in given)
            elif name == "bytes" and not endian:
                endian = ">" if _settings(codec).get("endian") == "big" else "<"
            elif name in (*_COMPRESSORS, "crc32c") and endian:
                packing.append(name)
            else:
                known = ", ".join(("transpose", "bytes", *_COMPRESSORS, "crc32c", "sharding_indexed"))
                raise ImportSourceError(f"{self.where} has the codec {name!r}, which is not read; known are {known}")
        if not endian:
            raise ImportSourceError(f"{self.where} has no codec bytes")
        return _Codecs(order, endian, tuple(packing))

    def _read_shards(self, codec: dict[str, object]) -> _Shards:
        settings = _settings(codec)
        inner = self._sides(settings.get("chunk_shape"), "chunk_shape of its shards", 1)
        whole = len(inner) == len(self.chunks) and all(
            side % part == 0 for side, part in zip(self.chunks, inner, strict=True)
        )
        chain, index = settings.get("codecs"), settings.get("index_codecs")
        if not whole or not isinstance(chain, list) or not isinstance(index, list):
            raise ImportSourceError(f"{self.where}: its shards {self.chunks} of chunks {inner} do not fit each other")
        index_codecs = self._read_codecs(index, len(inner) + 1)
        if set(index_codecs.packing) - {"crc32c"}:
            raise ImportSourceError(f"{self.where}: an index of shards that is compressed is not read")
        return _Shards(
            inner, self._read_codecs(chain, len(inner)), index_codecs, settings.get("index_location") != "start"
        )


def open_array(files: Files, name: str, allow_missing: bool = False) -> ZarrV2Array:
    """An array of either version.

    Raises:
        ImportSourceError: it is missing, of objects or structures, or has a codec that is not read.
    """
    kind = ZarrV3Array if files.read(f"{name}/zarr.json") is not None else ZarrV2Array
    return kind(files, name, allow_missing)


def _settings(entry: object) -> dict[str, object]:
    found = entry.get("configuration") if isinstance(entry, dict) else None
    return found if isinstance(found, dict) else {}
