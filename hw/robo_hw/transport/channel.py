"""What lies under the frames: a connected socket, plain or TLS, that never blocks; whoever needs more waits by poll."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Generator
from typing import TypeVar, cast

ResultT = TypeVar("ResultT")

_COUNTER = struct.Struct(">Q")
_RECORD = 16 * 1024
"""Bytes of the longest TLS record: one call gives one record at most, and first makes room for what it is asked for."""
_AT_ONCE = 64
TAG = 16
"""Bytes behind each frame of a channel whose frames are sealed."""


class Seal:
    """Proves that each frame comes from the side that proved the secret, in order, none left out and none repeated.

    HMAC-SHA-256 over a counter and the frame, cut to 128 bits (RFC 2104, section 5). One for each direction.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._count = 0

    def tag(self, frame: bytes | bytearray | memoryview) -> bytes:
        """The tag of the next frame."""
        mac = hmac.new(self._key, _COUNTER.pack(self._count), hashlib.sha256)
        mac.update(frame)
        self._count += 1
        return mac.digest()[:TAG]


class Channel:
    """A plain socket. ``peer`` names the other side in messages; ``seals``: for frames sent and for frames received."""

    def __init__(self, made: socket.socket, peer: str, seals: tuple[Seal, Seal] | None = None) -> None:
        made.setblocking(False)
        self.socket = made
        self.peer = peer
        self.seals = seals
        # Held for each call, none of which waits: a descriptor that one thread closes while another is about to write
        # may by then be another connection's. And OpenSSL's connection is not for two threads at once.
        self._one = threading.Lock()

    def read(self, most: int) -> bytes | None:
        """What has come, None where nothing has, nothing (b"") where the other side is gone.

        Raises:
            OSError: the connection is broken.
        """
        try:
            with self._one:
                return self.socket.recv(most)
        except (BlockingIOError, InterruptedError):
            return None

    def read_with_descriptors(self, most: int) -> tuple[bytes | None, list[int]]:
        """As ``read``, with file descriptors that came along; only a plain Unix socket has any."""
        if self.socket.family != socket.AF_UNIX:
            return self.read(most), []
        try:
            flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
            with self._one:
                data, found, _, _ = socket.recv_fds(self.socket, most, 1, flags)
        except (BlockingIOError, InterruptedError):
            return None, []
        return data, found

    def write(self, data: memoryview | bytes, descriptor: int | None = None) -> int:
        """Bytes taken; 0 where there is no room now.

        Raises:
            OSError: the connection is broken.
        """
        try:
            with self._one:
                if descriptor is not None:
                    return socket.send_fds(self.socket, [data], [descriptor])
                return self.socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    @property
    def ready(self) -> bool:
        """Whether something lies here that poll does not see."""
        return False

    def interrupt(self) -> None:
        """Make every call on this channel end, from any thread."""
        with self._one, contextlib.suppress(OSError):
            # By the class: SSLSocket.shutdown would turn itself into a plain socket under the other thread's hands.
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back."""
        self.interrupt()
        with self._one:
            self.socket.close()


class TlsChannel(Channel):
    """A TLS socket; the TLS handshake is done."""

    def __init__(self, made: ssl.SSLSocket, peer: str) -> None:
        super().__init__(made, peer)
        self._tls = made

    def read(self, most: int) -> bytes | None:
        """As above; several TLS records at once."""
        pieces: list[bytes] = []
        size = 0
        with self._one:
            # Counted in records too: a sender of single bytes must not keep the lock from those who answer.
            while len(pieces) < _AT_ONCE and size + _RECORD <= max(most, _RECORD):
                try:
                    piece = self._tls.recv(_RECORD)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError, InterruptedError):
                    break
                except OSError:
                    if pieces:
                        break  # what came before the end first
                    raise
                if not piece:
                    return b"".join(pieces)
                pieces.append(piece)
                size += len(piece)
        return b"".join(pieces) if pieces else None

    def write(self, data: memoryview | bytes, descriptor: int | None = None) -> int:
        """As above; no descriptors travel over TLS."""
        with self._one:
            try:
                return self._tls.send(data)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError, InterruptedError):
                return 0

    @property
    def ready(self) -> bool:
        """Whether decrypted bytes wait inside."""
        with self._one:
            try:
                return self._tls.pending() > 0
            except (OSError, ValueError):
                return False


Steps = Generator[int, None, Channel]
"""An authentication in steps: yields what to wait for (``select.POLLIN``, ``POLLOUT``), returns the channel.

Whoever runs it decides how long it may take; a server runs many in one thread.
"""
Waits = Generator[int, None, bytes]


def read_exactly(channel: Channel, size: int) -> Waits:
    """So many bytes, step by step.

    Raises:
        ConnectionError: the other side closed the connection before.
    """
    data = b""
    while len(data) < size:
        piece = channel.read(size - len(data))
        if piece is None:
            yield select.POLLIN
        elif not piece:
            raise ConnectionError("it closed the connection before it had proved who it is")
        else:
            data += piece
    return data


def write_all(channel: Channel, data: bytes) -> Waits:
    """Send all of it, step by step."""
    rest = memoryview(data)
    while rest:
        sent = channel.write(rest)
        if not sent:
            yield select.POLLOUT
        rest = rest[sent:]
    return data


def finish(steps: Generator[int, None, ResultT], descriptor: int, seconds: float) -> ResultT:
    """Run the steps on the socket with this descriptor here and now, and return what they return.

    Raises:
        AuthenticationError: the other side is not who it has to be.
        TimeoutError: it took longer than ``seconds``.
        OSError: the connection broke.
    """
    end = time.monotonic() + seconds
    try:
        while True:
            try:
                wanted = next(steps)
            except StopIteration as done:
                return cast(ResultT, done.value)
            left = end - time.monotonic()
            poll = select.poll()
            poll.register(descriptor, wanted)
            if left <= 0 or not poll.poll(left * 1000):
                raise TimeoutError
    finally:
        steps.close()
