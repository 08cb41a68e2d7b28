"""Images as they come over the wire (CDR), read field by field: size and encoding come first."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from robo_rm_bridge.errors import MessageError


@dataclass(frozen=True)
class RawImage:
    """A `sensor_msgs/Image`; ``data`` is a view. ``stamp``: (seconds, nanoseconds)."""

    stamp: tuple[int, int]
    width: int
    height: int
    encoding: str
    step: int
    data: memoryview


@dataclass(frozen=True)
class CompressedData:
    """A `sensor_msgs/CompressedImage`; ``data`` is a view. ``stamp``: (seconds, nanoseconds)."""

    stamp: tuple[int, int]
    format: str
    data: memoryview


def read_image(message: bytes) -> RawImage:
    """A serialized `sensor_msgs/Image`.

    Raises:
        MessageError: the message ends early.
    """
    cursor = _Cursor(message)
    stamp = (cursor.number("i"), cursor.number("I"))
    cursor.text()
    height, width = cursor.number("I"), cursor.number("I")
    encoding = cursor.text()
    cursor.number("B")
    return RawImage(stamp, width, height, encoding, cursor.number("I"), cursor.data())


def read_compressed(message: bytes) -> CompressedData:
    """A serialized `sensor_msgs/CompressedImage`.

    Raises:
        MessageError: the message ends early.
    """
    cursor = _Cursor(message)
    stamp = (cursor.number("i"), cursor.number("I"))
    cursor.text()
    return CompressedData(stamp, cursor.text(), cursor.data())


class _Cursor:
    def __init__(self, message: bytes) -> None:
        # Two bytes tell the encoding (plain CDR, big or little endian), two are options.
        if len(message) < 4 or message[0] != 0 or message[1] not in (0, 1):
            raise MessageError("the message is not plain CDR")
        self._order = "<" if message[1] else ">"
        self._view = memoryview(message)[4:]
        self._place = 0

    def number(self, kind: str) -> int:
        size = struct.calcsize(f"={kind}")
        self._place = -(-self._place // size) * size
        self._need(size)
        (value,) = struct.unpack_from(f"{self._order}{kind}", self._view, self._place)
        self._place += size
        return int(value)

    def text(self) -> str:
        length = self.number("I")
        self._need(length)
        value = bytes(self._view[self._place : self._place + length])
        self._place += length
        return value.rstrip(b"\0").decode(errors="replace")

    def data(self) -> memoryview:
        length = self.number("I")
        self._need(length)
        return self._view[self._place : self._place + length]

    def _need(self, size: int) -> None:
        if self._place + size > len(self._view):
            raise MessageError(f"the message ends after {len(self._view)} bytes, {self._place + size} are needed")
