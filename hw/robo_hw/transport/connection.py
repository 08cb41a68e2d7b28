"""One socket with frames on it: sending with a time-out from several threads, receiving piece by piece."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

from robo_hw.errors import FrameError
from robo_hw.transport.messages import Field, check
from robo_hw.transport.reports import Timeouts
from robo_hw.transport.wire import FrameReader, pack, unpack

_PIECE = 256 * 1024


class ConnectionLost(Exception):
    """The other side is gone, hangs, or speaks nonsense; the message says which."""


class Connection:
    """A connected socket. ``table``: the messages that may come in; ``limit``: bytes of the longest of them."""

    def __init__(self, made: socket.socket, table: dict[str, dict[str, Field]], limit: int, timeouts: Timeouts) -> None:
        self.socket = made
        self._table = table
        self._reader = FrameReader(limit)
        self._timeouts = timeouts
        self._sending = threading.Lock()
        self._began = 0.0
        self.heard = time.monotonic()
        """When anything last came in, s."""
        self.descriptors: list[int] = []
        """File descriptors that came with the first frame; whoever takes them out closes them."""
        made.settimeout(timeouts.send)

    def limit(self, limit: int) -> None:
        """Change the length of the longest message."""
        self._reader.limit = limit

    def send(self, message: Mapping[str, Any], limit: int, descriptor: int | None = None) -> None:
        """Send one message, with a file descriptor where one is given.

        Raises:
            ConnectionLost: the other side is gone, or does not read.
            FrameError: the message is too long or does not travel.
        """
        frame = pack(message, limit)
        with self._sending:
            try:
                self.socket.settimeout(self._timeouts.send)
                sent = 0
                if descriptor is not None:
                    sent = socket.send_fds(self.socket, [frame], [descriptor])
                self.socket.sendall(memoryview(frame)[sent:])
            except TimeoutError:
                raise ConnectionLost(f"it did not read for {self._timeouts.send:g} s") from None
            except OSError as error:
                raise ConnectionLost(error.strerror or str(error)) from None

    def receive(self, timeout: float, take_descriptors: bool = False) -> dict[str, Any] | None:
        """The next message, or None where none is whole after ``timeout`` seconds.

        Raises:
            ConnectionLost: the other side is gone, silent for too long, stopped inside a frame, or speaks nonsense.
        """
        body = self._next()
        until = time.monotonic() + timeout
        while body is None:
            now = time.monotonic()
            if self._reader.partial and now - self._began > self._timeouts.send:
                raise ConnectionLost(f"a frame was not finished within {self._timeouts.send:g} s")
            if not self._wait(min(max(until - now, 0.0), self._timeouts.send)):
                now = time.monotonic()
                if now - self.heard > self._timeouts.silence:
                    raise ConnectionLost(f"nothing heard for {self._timeouts.silence:g} s")
                if now >= until:
                    return None
                continue
            if not self._reader.partial:
                self._began = time.monotonic()
            data = self._piece(take_descriptors)
            if not data:
                raise ConnectionLost("it closed the connection")
            self.heard = time.monotonic()
            self._reader.feed(data)
            body = self._next()
        self._began = time.monotonic()
        try:
            return check(unpack(body), self._table)
        except FrameError as error:
            raise ConnectionLost(str(error)) from None

    def _wait(self, seconds: float) -> bool:
        try:
            # poll, not select: a process may hold more descriptors than select can count.
            poll = select.poll()
            poll.register(self.socket, select.POLLIN)
            return bool(poll.poll(seconds * 1000))
        except (OSError, ValueError):
            raise ConnectionLost("the connection was closed here") from None

    def _piece(self, take_descriptors: bool) -> bytes:
        try:
            if take_descriptors:
                data, found, _, _ = socket.recv_fds(self.socket, _PIECE, 1, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
                self.descriptors += found
                return data
            return self.socket.recv(_PIECE)
        except TimeoutError:
            raise ConnectionLost("it announced data that did not come") from None
        except OSError as error:
            raise ConnectionLost(error.strerror or str(error)) from None

    def _next(self) -> bytes | None:
        try:
            return self._reader.next()
        except FrameError as error:
            raise ConnectionLost(str(error)) from None

    def interrupt(self) -> None:
        """Make every call on this connection end, from any thread."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give everything back."""
        self.interrupt()
        self.socket.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []
