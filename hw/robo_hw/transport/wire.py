"""Frames on the socket: four bytes of length, then one msgpack map. Everything about them is bounded.

Arrays travel as ``{"dtype", "shape", "data"}`` with raw little-endian bytes, so that a frame never holds long lists:
what a hostile frame can make the reader allocate is its own length and a few kilobytes.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgpack
import numpy as np

from robo_hw.errors import FrameError
from robo_hw.transport.channel import TAG

if TYPE_CHECKING:
    from robo_hw.transport.channel import Seal

LENGTH = struct.Struct(">I")
SMALL = 64 * 1024
"""Bytes of a message without images or actions; a frame longer than its connection's limit ends the connection."""
MOST_ITEMS = 512
"""Of any list or map. Lists inside lists are allocated by their declared lengths, so this bounds memory."""
DTYPES = {name: np.dtype(name) for name in ("<f8", "<f4", "|u1")}
_MOST_DIMENSIONS = 4


def pack(message: Mapping[str, object], limit: int) -> bytes:
    """One frame of at most ``limit`` bytes after the length; numpy arrays may stand anywhere in the map.

    Raises:
        FrameError: it would be longer, or holds something that does not travel.
    """
    try:
        body = msgpack.packb(message, default=_array_out, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise FrameError(f"a message {message.get('type')!r} cannot be sent: {error}") from None
    if len(body) > limit:
        raise FrameError(f"a message {message.get('type')!r} has {len(body)} bytes, the limit is {limit}")
    return LENGTH.pack(len(body)) + bytes(body)


def unpack(body: bytes) -> dict[str, object]:
    """The map in one frame's body.

    Raises:
        FrameError: it is not a msgpack map with text keys, or it is larger inside than a message may be.
    """
    try:
        message = msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=True,
            max_str_len=len(body),
            max_bin_len=len(body),
            max_array_len=MOST_ITEMS,
            max_map_len=MOST_ITEMS,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise FrameError(f"a frame of {len(body)} bytes is not a msgpack message ({str(error)[:120]})") from None
    if not isinstance(message, dict):
        raise FrameError(f"a frame holds {type(message).__name__}, not a message")
    return message


def array_in(value: object, where: str) -> np.ndarray:
    """A read-only array out of its map.

    Raises:
        FrameError: dtype, shape and bytes do not fit together; names ``where``.
    """
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data"}:
        raise FrameError(f"{where} is not an array of dtype, shape and data")
    dtype = DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        raise FrameError(f"{where} has a dtype other than {', '.join(DTYPES)}")
    shape, data = value["shape"], value["data"]
    if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS or not isinstance(data, bytes):
        raise FrameError(f"{where} has no shape of at most {_MOST_DIMENSIONS} numbers, or no bytes")
    count = 1
    for size in shape:
        if type(size) is not int or not 0 <= size <= len(data):
            raise FrameError(f"{where} has a shape that its {len(data)} bytes cannot fill")
        count *= size
    if count * dtype.itemsize != len(data):
        raise FrameError(f"{where} has {len(data)} bytes for {count} numbers of {dtype.itemsize} bytes")
    return np.frombuffer(data, dtype).reshape(shape)


def _array_out(value: object) -> object:
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value)
        name = array.dtype.newbyteorder("<").str
        if name not in DTYPES:
            raise TypeError(f"arrays of {array.dtype} do not travel")
        return {"dtype": name, "shape": list(array.shape), "data": array.astype(name, copy=False).tobytes()}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not travel")


class FrameReader:
    """Puts frames together from the pieces that a socket delivers; holds at most one frame and one piece.

    ``seal``: what the tags behind the frames are checked with, where there are any.
    """

    def __init__(self, limit: int, seal: Seal | None = None) -> None:
        self.limit = limit
        self._seal = seal
        self._buffer = bytearray()

    @property
    def size(self) -> int:
        """Bytes of the frame that has begun, as far as they are announced."""
        return min(LENGTH.unpack_from(self._buffer)[0], self.limit) if len(self._buffer) >= LENGTH.size else 0

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and is not whole."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add what the socket gave."""
        self._buffer += data

    def next(self) -> bytes | None:
        """The next whole frame's body, or None.

        Raises:
            FrameError: a frame is announced that is empty or longer than the limit, or is not sealed by the other
                side; the connection cannot go on.
        """
        if len(self._buffer) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._buffer)
        if not 1 <= length <= self.limit:
            raise FrameError(f"a frame of {length} bytes is announced, the limit is {self.limit}")
        end = LENGTH.size + length
        whole = end + (TAG if self._seal else 0)
        if len(self._buffer) < whole:
            return None
        with memoryview(self._buffer) as view:
            if self._seal and not hmac.compare_digest(view[end:whole], self._seal.tag(view[:end])):
                raise FrameError("a frame came that the other side did not send")
            body = bytes(view[LENGTH.size : end])
        del self._buffer[:whole]
        return body
