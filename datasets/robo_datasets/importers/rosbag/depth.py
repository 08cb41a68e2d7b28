"""Depth images of the ROS package compressed_depth_image_transport: PNG or RVL behind a header of twelve bytes.

The header is an int32 and two float32, the quantisation of metres. PNG keeps millimetres as they are (16UC1), or
inverse depth: metres = a / (level - b). RVL is run lengths of zeros and differences of neighbours as variable-length
nibbles (Wilson, "Fast Lossless Depth Image Compression", ISS 2017).
"""

from __future__ import annotations

import struct

import cv2
import numpy as np

from robo_core.errors import ImportSourceError

_HEADER = struct.Struct("<iff")
_SIDES = struct.Struct("<ii")
_MAX_PIXELS = 1 << 26


def is_compressed_depth(format_text: str) -> bool:
    """Whether the ``format`` of a CompressedImage says that it is one of these."""
    return "compressedDepth" in format_text


def decode_compressed_depth(data: np.ndarray, format_text: str) -> np.ndarray:
    """Depth (H, W, 1): uint16 as recorded (millimetres by convention), or float32 metres, NaN where there is none.

    Args:
        data: the bytes of the message.
        format_text: for instance "16UC1; compressedDepth png" or "32FC1; compressedDepth rvl".

    Raises:
        ImportSourceError: the image is damaged or of a kind that is not read.
    """
    raw = bytes(data)
    if len(raw) <= _HEADER.size:
        raise ImportSourceError(f"a compressed depth image of {len(raw)} bytes ends within its header")
    _, scale, offset = _HEADER.unpack_from(raw)
    body = raw[_HEADER.size :]
    levels = _rvl(body) if "rvl" in format_text.lower() else _png(body, format_text)
    encoding = format_text.split(";")[0].strip()
    if encoding in ("16UC1", "mono16", ""):
        return levels[:, :, None]
    if encoding != "32FC1":
        raise ImportSourceError(f"compressed depth in {encoding!r} is not read; known are 16UC1 and 32FC1")
    with np.errstate(divide="ignore"):
        metres = np.float32(scale) / (levels.astype(np.float32) - np.float32(offset))
    return np.where(levels == 0, np.float32(np.nan), metres)[:, :, None]


def _png(body: bytes, format_text: str) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImportSourceError(f"a compressed depth image cannot be decoded: {error.err}") from error
    if image is None or image.ndim != 2 or image.dtype != np.uint16:
        raise ImportSourceError(f"a compressed depth image ({format_text!r}, {len(body)} bytes) holds no 16-bit PNG")
    return image


def _rvl(body: bytes) -> np.ndarray:
    if len(body) < _SIDES.size:
        raise ImportSourceError("a depth image in RVL ends within its header")
    width, height = _SIDES.unpack_from(body)
    if width < 1 or height < 1 or width * height > _MAX_PIXELS:
        raise ImportSourceError(f"a depth image in RVL says that it has {width}x{height} pixels")
    packed = body[_SIDES.size :]
    packed = packed[: len(packed) // 4 * 4]
    # Words of four bytes are written low byte first, their nibbles high end first.
    nibbles = np.frombuffer(packed, "<u4")[:, None] >> np.arange(28, -1, -4, dtype=np.uint32) & 15
    values = _numbers(nibbles.ravel().astype(np.int64))
    pixels = np.zeros(width * height, np.int64)
    at, place, level = 0, 0, 0
    while place < len(pixels):
        if at + 1 >= len(values):
            raise ImportSourceError(f"a depth image in RVL ends at pixel {place} of {len(pixels)}")
        zeros, count = int(values[at]), int(values[at + 1])
        at, place = at + 2, place + zeros
        if place + count > len(pixels) or at + count > len(values) or not zeros + count:
            raise ImportSourceError(f"a depth image in RVL is damaged at pixel {min(place, len(pixels))}")
        steps = values[at : at + count]
        levels = level + np.cumsum((steps >> 1) ^ -(steps & 1))
        pixels[place : place + count] = levels
        level = int(levels[-1]) if count else level
        at, place = at + count, place + count
    if pixels.min() < 0 or pixels.max() > 0xFFFF:
        raise ImportSourceError("a depth image in RVL is damaged: it has levels outside 16 bits")
    return pixels.astype(np.uint16).reshape(height, width)


def _numbers(nibbles: np.ndarray) -> np.ndarray:
    """Variable-length numbers: three bits a nibble, low end first, the fourth says that more follow."""
    last = np.flatnonzero(nibbles < 8)
    if not len(last):
        return np.zeros(0, np.int64)
    nibbles = nibbles[: last[-1] + 1]
    starts = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(nibbles)) - np.repeat(starts, last - starts + 1)
    return np.add.reduceat((nibbles & 7) << np.minimum(3 * place, 60), starts)
