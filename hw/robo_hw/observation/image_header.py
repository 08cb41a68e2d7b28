"""The size of a compressed image from its header, before anything is decoded.

A few hundred kilobytes of PNG may claim 14 000 x 14 000 pixels; a decoder believes it, and is busy for ten seconds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_PNG = b"\x89PNG\r\n\x1a\n"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset([0x01, *range(0xD0, 0xD8)])
_MOST_SEGMENTS = 1000


@dataclass(frozen=True)
class ImageHeader:
    """What a header says: ``format`` is jpeg or png; sizes in pixels."""

    format: str
    width: int
    height: int


class ImageHeaderError(ValueError):
    """The bytes are neither JPEG nor PNG, or end before their size is told."""


def read_header(data: bytes | bytearray | memoryview) -> ImageHeader:
    """Format and size of a JPEG or PNG file in memory.

    Raises:
        ImageHeaderError: another format, a truncated header, or a size of zero.
    """
    head = bytes(data[:24])
    if head[:8] == _PNG:
        if len(head) < 24 or head[12:16] != b"IHDR":
            raise ImageHeaderError("a PNG without a header")
        width, height = struct.unpack(">II", head[16:24])
        return _checked("png", width, height)
    if head[:2] == b"\xff\xd8":
        return _jpeg(memoryview(data))
    raise ImageHeaderError("neither JPEG nor PNG")


def _jpeg(data: memoryview) -> ImageHeader:
    place = 2
    for _ in range(_MOST_SEGMENTS):
        while place < len(data) and data[place] == 0xFF and place + 1 < len(data) and data[place + 1] == 0xFF:
            place += 1  # fill bytes
        if place + 4 > len(data):
            raise ImageHeaderError("a JPEG that ends before its size is given")
        if data[place] != 0xFF:
            raise ImageHeaderError("a JPEG whose segments are damaged")
        marker = data[place + 1]
        if marker in _WITHOUT_LENGTH:
            place += 2
            continue
        if marker in (0xD9, 0xDA):
            raise ImageHeaderError("a JPEG without a frame header")
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if length < 2:
            raise ImageHeaderError("a JPEG whose segments are damaged")
        if marker in _FRAME_MARKERS:
            if place + 9 > len(data):
                raise ImageHeaderError("a JPEG that ends before its size is given")
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return _checked("jpeg", width, height)
        place += 2 + length
    raise ImageHeaderError("a JPEG without a frame header")


def _checked(kind: str, width: int, height: int) -> ImageHeader:
    if width < 1 or height < 1:
        raise ImageHeaderError(f"a {kind.upper()} of {width} x {height} pixels")
    return ImageHeader(kind, width, height)
