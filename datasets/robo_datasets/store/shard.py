"""One camera of one episode: a Zarr v3 shard, written frame by frame and read through a memory map.

Layout (that of Zarr's ``sharding_indexed`` codec with the index at the end):

    frame 0 bytes, CRC-32C of frame 0 (u32 LE), frame 1 bytes, CRC-32C of frame 1, ...
    T x (offset u64 LE, nbytes u64 LE), CRC-32C of this index (u32 LE)

``nbytes`` counts the frame's own CRC, which every read checks: a damaged frame is never returned.
"""

from __future__ import annotations

import itertools
import mmap
import os
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from robo_core.checksummed import crc32c, extend_crc32c
from robo_core.errors import CorruptionError
from robo_core.threads import share, spans
from robo_datasets.store.features import Feature
from robo_datasets.store.jpeg import decode_frame, frame_encoder, reduction_for, resize
from robo_datasets.store.planar import PlanarFrame
from robo_datasets.store.remote import RemoteBytes, RemotePath
from robo_datasets.store.zarr_meta import ZSTD_LEVEL

_CRC = struct.Struct("<I")
_BUFFER_BYTES = 1 << 18

# Fewer frames than this for each thread are not worth handing over.
_LEAST_SHARE = 2

# CRC-32C of any bytes followed by their own little-endian CRC-32C.
_RESIDUE = 0x48674BC7


class ShardWriter:
    """Encodes frames as they come, so that memory stays bounded by one frame and 16 bytes a frame."""

    def __init__(self, path: Path, feature: Feature) -> None:
        self._feature = feature
        self._encode = _encoder(feature)
        self._entries: list[tuple[int, int]] = []
        self._end = 0
        self._crc = 0
        self._file = open(path, "wb", buffering=_BUFFER_BYTES)  # noqa: SIM115, closed by finish or discard

    def add(self, frame: np.ndarray | PlanarFrame) -> None:
        """Append one frame of the feature's shape and dtype."""
        data = self._encode(frame)
        self._entries.append((self._end, len(data) + _CRC.size))
        self._write(data)

    def finish(self) -> tuple[int, int]:
        """Write the index and close; returns the file's CRC-32C and size."""
        self._write(np.array(self._entries, "<u8").tobytes())
        self._file.close()
        return self._crc, self._end

    def discard(self) -> None:
        """Close without an index, where ``finish`` did not; the file is of no use afterwards."""
        with suppress(OSError):  # closing writes what is left, which a full disk refuses once more
            self._file.close()

    def _write(self, data: bytes) -> None:
        data += _CRC.pack(crc32c(data))
        self._file.write(data)
        self._crc = extend_crc32c(self._crc, data)
        self._end += len(data)


class MappedBytes:
    """Ranges of one local file, through a memory map."""

    def __init__(self, path: Path, expected: int) -> None:
        self._path = path
        with open(path, "rb") as file:
            self.size = self.mapped = os.fstat(file.fileno()).st_size
            if self.size < expected:
                raise CorruptionError(f"{path} is truncated: {self.size} bytes, at least {expected} expected")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes = np.frombuffer(self._map, np.uint8)

    def check(self) -> None:
        """Raise ``CorruptionError`` where the file was truncated meanwhile: touching what is gone kills the process."""
        if self._map.size() != self.size:
            raise CorruptionError(f"{self._path} changed its size while it was open")

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Ranges [start, end) as (n,) uint8, read-only and not copied."""
        return [self._bytes[start:end] for start, end in ranges]


class ShardReader:
    """Random frames of one shard: from a memory map, or from a URL in ranges.

    Raises:
        CorruptionError: the file is missing, truncated, or its index does not match its checksum.
    """

    def __init__(self, path: Path, feature: Feature, length: int) -> None:
        self.path = path
        self._feature = feature
        tail = 16 * length + _CRC.size
        try:
            remote = isinstance(path, RemotePath)
            self._source = RemoteBytes(path, tail) if remote else MappedBytes(path, tail)  # type: ignore[arg-type]
            size = self._source.size
            (end,) = self._source.read([(size - tail, size)])
        except OSError as error:
            raise CorruptionError(f"{path} cannot be read: {error.strerror}") from error
        if crc32c(end) != _RESIDUE:
            raise CorruptionError(f"{path} is truncated or damaged: the checksum of its frame index does not match")
        entries = np.frombuffer(end[: -_CRC.size].tobytes(), "<u8").reshape(length, 2)
        if length:
            last = size - tail
            if entries.max() > last or entries.sum(axis=1).max() > last or entries[:, 1].min() < _CRC.size:
                raise CorruptionError(f"{path} is damaged: its frame index points outside the file")
        starts: list[int] = entries[:, 0].tolist()
        sizes: list[int] = entries[:, 1].tolist()
        self._ranges = [(start, start + size) for start, size in zip(starts, sizes, strict=True)]
        self._decode = _DECODERS[feature.codec](feature) if feature.codec in _DECODERS else None

    @property
    def mapped(self) -> int:
        """Bytes of memory map that the reader holds."""
        return self._source.mapped

    def payloads(self, frames: Sequence[int]) -> list[np.ndarray]:
        """The encoded bytes of frames, each (n,) uint8 read-only, after checking their CRC.

        Raises:
            CorruptionError: the bytes do not match, or the file shrank since it was opened.
        """
        self._source.check()
        try:
            found = self._source.read([self._ranges[frame] for frame in frames])
        except OSError as error:
            raise CorruptionError(f"{self.path} cannot be read: {error.strerror}") from error
        for frame, data in zip(frames, found, strict=True):
            if crc32c(data) != _RESIDUE:
                raise CorruptionError(f"{self.path} is damaged: the checksum of frame {frame} does not match")
        return [data[: -_CRC.size] for data in found]

    def checksums(self) -> np.ndarray:
        """(T, 2) int64: size in bytes and CRC-32C of every frame as it is encoded, read from where they stand."""
        self._source.check()
        found = self._source.read([(end - _CRC.size, end) for _, end in self._ranges])
        crcs = [_CRC.unpack(data.tobytes())[0] for data in found]
        return np.array([[end - start, crc] for (start, end), crc in zip(self._ranges, crcs, strict=True)], np.int64)

    def repeats(self) -> np.ndarray:
        """(T - 1,) bool: frame t + 1 has the same encoded bytes as frame t, and so the same pixels."""
        payloads = self.payloads(range(len(self._ranges)))
        same = [len(a) == len(b) and np.array_equal(a, b) for a, b in itertools.pairwise(payloads)]
        return np.array(same, bool)

    def frame(self, frame: int) -> np.ndarray:
        """One decoded frame (H, W, C).

        Raises:
            CorruptionError: the frame's bytes are damaged.
        """
        image = self._decoded(frame, self.payloads((frame,))[0], 1)
        return image if image.flags.writeable else image.copy()

    def read(self, frames: Sequence[int], size: tuple[int, int] | None = None) -> np.ndarray:
        """Decoded frames (n, H, W, C), or (n, h, w, C) where ``size`` = (h, w) is given.

        Raises:
            CorruptionError: a frame's bytes are damaged.
        """
        height, width, channels = self._feature.shape
        target = (height, width) if size is None else (int(size[0]), int(size[1]))
        out = np.empty((len(frames), *target, channels), self._feature.dtype)
        reduction = 1 if self._decode is not None or size is None else reduction_for(height, width, target)
        payloads = self.payloads(frames)

        def decode(slots: range) -> None:
            for slot in slots:
                image = self._decoded(frames[slot], payloads[slot], reduction)
                out[slot] = image if image.shape[:2] == target else resize(image, target).reshape(*target, channels)

        share(decode, [range(len(frames))] if self._feature.codec == "raw" else spans(len(frames), _LEAST_SHARE))
        return out

    def _decoded(self, frame: int, data: np.ndarray, reduction: int) -> np.ndarray:
        height, width, channels = self._feature.shape
        try:
            image = decode_frame(data, channels, reduction) if self._decode is None else self._decode(data)
        except CorruptionError as error:
            raise CorruptionError(f"{self.path}, frame {frame}: {error}") from error
        shape = (-(-height // reduction), -(-width // reduction), channels)
        if image.shape == shape:
            return image
        if image.shape != shape[:2] or channels != 1:
            raise CorruptionError(f"{self.path}, frame {frame} is {image.shape}, the schema says {shape}")
        return image[:, :, None]


def _encoder(feature: Feature) -> Callable[[np.ndarray | PlanarFrame], bytes]:
    if feature.codec == "jpeg":
        return frame_encoder(feature.quality, feature.subsampling)
    stored = np.dtype(feature.dtype).newbyteorder("<")
    if feature.codec == "raw":
        return lambda frame: np.ascontiguousarray(frame, stored).tobytes()
    from numcodecs.zstd import Zstd

    zstd = Zstd(level=ZSTD_LEVEL)
    return lambda frame: bytes(zstd.encode(np.ascontiguousarray(frame, stored).view(np.uint8)))


def _lossless_decoder(feature: Feature) -> Callable[[np.ndarray], np.ndarray]:
    from numcodecs.zstd import Zstd

    zstd = Zstd(level=ZSTD_LEVEL)
    stored = np.dtype(feature.dtype).newbyteorder("<")

    def decode(data: np.ndarray) -> np.ndarray:
        raw = np.empty(feature.row_bytes, np.uint8)
        try:
            zstd.decode(data, raw)  # into a buffer of ours: a hostile file cannot choose how much is allocated
        except (RuntimeError, ValueError) as error:
            raise CorruptionError(f"zstd cannot decode it: {error}") from error
        return raw.view(stored).reshape(feature.shape)

    return decode


def _raw_decoder(feature: Feature) -> Callable[[np.ndarray], np.ndarray]:
    stored = np.dtype(feature.dtype).newbyteorder("<")

    def decode(data: np.ndarray) -> np.ndarray:
        if len(data) != feature.row_bytes:
            raise CorruptionError(f"it has {len(data)} bytes, a raw frame has {feature.row_bytes}")
        return data.view(stored).reshape(feature.shape)  # of the map itself: callers copy

    return decode


_DECODERS = {"lossless": _lossless_decoder, "raw": _raw_decoder}
