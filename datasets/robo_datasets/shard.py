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
from collections.abc import Callable
from pathlib import Path

import numpy as np

from robo_datasets.errors import CorruptionError
from robo_datasets.features import Feature
from robo_datasets.jpeg import decode_frame, frame_encoder, reduction_for, resize
from robo_datasets.sealed import crc32c, extend_crc32c
from robo_datasets.zarr_meta import ZSTD_LEVEL

_CRC = struct.Struct("<I")
_BUFFER_BYTES = 1 << 18

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

    def add(self, frame: np.ndarray) -> None:
        """Append one frame of the feature's shape and dtype."""
        data = self._encode(np.ascontiguousarray(frame))
        self._entries.append((self._end, len(data) + _CRC.size))
        self._write(data)

    def finish(self) -> tuple[int, int]:
        """Write the index and close; returns the file's CRC-32C and size."""
        self._write(np.array(self._entries, "<u8").tobytes())
        self._file.close()
        return self._crc, self._end

    def discard(self) -> None:
        """Close without an index; the file is of no use afterwards."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        data += _CRC.pack(crc32c(data))
        self._file.write(data)
        self._crc = extend_crc32c(self._crc, data)
        self._end += len(data)


class ShardReader:
    """Random frames of one shard, from a memory map.

    Raises:
        CorruptionError: the file is missing, truncated, or its index does not match its checksum.
    """

    def __init__(self, path: Path, feature: Feature, length: int) -> None:
        self.path = path
        self._feature = feature
        tail = 16 * length + _CRC.size
        try:
            with open(path, "rb") as file:
                self.nbytes = os.fstat(file.fileno()).st_size
                if self.nbytes < tail:
                    raise CorruptionError(f"{path} is truncated: {self.nbytes} bytes, {length} frames expected")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CorruptionError(f"{path} cannot be read: {error.strerror}") from error
        self._bytes = np.frombuffer(self._map, np.uint8)
        index = self._bytes[self.nbytes - tail : self.nbytes - _CRC.size].tobytes()
        (expected,) = _CRC.unpack(self._bytes[self.nbytes - _CRC.size :].tobytes())
        if crc32c(index) != expected:
            raise CorruptionError(f"{path} is truncated or damaged: the checksum of its frame index does not match")
        entries = np.frombuffer(index, "<u8").reshape(length, 2)
        if length and (entries[:, 1].min() < _CRC.size or entries.sum(axis=1).max() > self.nbytes - tail):
            raise CorruptionError(f"{path} is damaged: its frame index points outside the file")
        self._starts: list[int] = entries[:, 0].tolist()
        self._sizes: list[int] = entries[:, 1].tolist()
        self._decode = _lossless_decoder(feature) if feature.codec == "lossless" else None

    def payload(self, frame: int) -> np.ndarray:
        """The encoded bytes of a frame, (n,) uint8 read-only, after checking their CRC.

        Raises:
            CorruptionError: the bytes do not match, or the file shrank since it was opened.
        """
        # Touching a mapped page beyond the end of a file that was truncated meanwhile kills the process.
        if self._map.size() != self.nbytes:
            raise CorruptionError(f"{self.path} changed its size while it was open")
        start, size = self._starts[frame], self._sizes[frame]
        data = self._bytes[start : start + size]
        if crc32c(data) != _RESIDUE:
            raise CorruptionError(f"{self.path} is damaged: the checksum of frame {frame} does not match")
        return data[: -_CRC.size]

    def frame(self, frame: int, reduction: int = 1) -> np.ndarray:
        """One decoded frame (H, W, C), its sides divided by ``reduction`` (1, 2, 4 or 8; 1 where lossless).

        Raises:
            CorruptionError: the frame's bytes are damaged.
        """
        height, width, channels = self._feature.shape
        data = self.payload(frame)
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

    def repeats(self) -> np.ndarray:
        """(T - 1,) bool: frame t + 1 has the same encoded bytes as frame t, and so the same pixels."""
        payloads = [self.payload(frame) for frame in range(len(self._starts))]
        same = [len(a) == len(b) and np.array_equal(a, b) for a, b in itertools.pairwise(payloads)]
        return np.array(same, bool)

    def read(self, frames: list[int], size: tuple[int, int] | None = None) -> np.ndarray:
        """Decoded frames (n, H, W, C), or (n, h, w, C) where ``size`` = (h, w) is given.

        Raises:
            CorruptionError: a frame's bytes are damaged.
        """
        height, width, channels = self._feature.shape
        target = (height, width) if size is None else (int(size[0]), int(size[1]))
        out = np.empty((len(frames), *target, channels), self._feature.dtype)
        reduction = 1 if self._decode is not None or size is None else reduction_for(height, width, target)
        for slot, number in enumerate(frames):
            image = self.frame(number, reduction)
            out[slot] = image if image.shape[:2] == target else resize(image, target).reshape(*target, channels)
        return out


def _encoder(feature: Feature) -> Callable[[np.ndarray], bytes]:
    if feature.codec == "jpeg":
        return frame_encoder(feature.quality, feature.subsampling)
    from numcodecs.zstd import Zstd

    zstd = Zstd(level=ZSTD_LEVEL)
    stored = np.dtype(feature.dtype).newbyteorder("<")
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
