"""One channel with frames on it: sending with a time-out from several threads, receiving piece by piece."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Mapping

from robo_hw.errors import FrameError
from robo_hw.transport.channel import Channel
from robo_hw.transport.messages import Message, Table, check
from robo_hw.transport.reports import Timeouts
from robo_hw.transport.tls import meaning
from robo_hw.transport.wire import FrameReader, pack, unpack

_PIECE = 256 * 1024


class ConnectionLost(Exception):
    """The other side is gone, hangs, or speaks nonsense; the message says which."""


class Connection:
    """An authenticated channel. ``table``: the messages that may come in; ``limit``: bytes of the longest of them."""

    def __init__(self, channel: Channel, table: Table, limit: int, timeouts: Timeouts) -> None:
        self.channel = channel
        self._table = table
        self._sealing = channel.seals[0] if channel.seals else None
        self._reader = FrameReader(limit, channel.seals[1] if channel.seals else None)
        self._timeouts = timeouts
        self._sending = threading.Lock()
        self._began = time.monotonic()
        self._heard = self._began
        """When anything last came in, s."""
        self.descriptors: list[int] = []
        """File descriptors that came with the first frame; whoever takes them out closes them."""

    def limit(self, limit: int) -> None:
        """Change the length of the longest message."""
        self._reader.limit = limit

    def send(self, message: Mapping[str, object], limit: int, descriptor: int | None = None) -> None:
        """Send one message, with a file descriptor where one is given.

        Raises:
            ConnectionLost: the other side is gone, or does not read.
            FrameError: the message is too long or does not travel.
        """
        frame = pack(message, limit)
        seconds = self._timeouts.send + len(frame) / self._timeouts.slowest
        with self._sending:
            if self._sealing is not None:
                frame += self._sealing.tag(frame)
            rest, end = memoryview(frame), time.monotonic() + seconds
            try:
                while rest:
                    sent = self.channel.write(rest, descriptor)
                    if sent:
                        rest, descriptor = rest[sent:], None
                    elif not self._wait(end - time.monotonic(), select.POLLOUT):
                        raise ConnectionLost(f"it did not read for {seconds:.3g} s")
            except OSError as error:
                raise ConnectionLost(meaning(error)) from None

    def receive(self, timeout: float, take_descriptors: bool = False) -> Message | None:
        """The next message, or None where none is whole after ``timeout`` seconds.

        Raises:
            ConnectionLost: the other side is gone, silent for too long, stopped inside a frame, or speaks nonsense.
        """
        body = self._next()
        start = time.monotonic()
        until = start + timeout
        # Who waits here was busy before, for as long as that took: it was not the other side that was silent then.
        since = start if timeout > 0 else self._heard
        while body is None:
            now = time.monotonic()
            allowed = self._timeouts.send + self._reader.size / self._timeouts.slowest
            if self._reader.partial and now - self._began > allowed:
                raise ConnectionLost("a frame that began was not finished in time")
            data = None
            if self.channel.ready or self._wait(min(until - now, self._timeouts.send)):
                data = self._piece(take_descriptors)
            if data is None:  # nothing, or a part of a TLS record
                now = time.monotonic()
                if now - since > self._timeouts.silence:
                    raise ConnectionLost(f"nothing received for {self._timeouts.silence:g} s")
                if now >= until:
                    return None
                continue
            if not data:
                raise ConnectionLost("it closed the connection")
            self._heard = since = time.monotonic()
            if not self._reader.partial:
                self._began = since
            self._reader.feed(data)
            body = self._next()
        self._began = time.monotonic()
        try:
            return check(unpack(body), self._table)
        except FrameError as error:
            raise ConnectionLost(str(error)) from None

    def _wait(self, seconds: float, wanted: int = select.POLLIN) -> bool:
        try:
            # poll, not select: a process may hold more descriptors than select can count.
            poll = select.poll()
            poll.register(self.channel.socket, wanted)
            return bool(poll.poll(max(seconds, 0.0) * 1000))
        except (OSError, ValueError):
            raise ConnectionLost("the connection was closed here") from None

    def _piece(self, take_descriptors: bool) -> bytes | None:
        try:
            if take_descriptors:
                data, found = self.channel.read_with_descriptors(_PIECE)
                self.descriptors += found
                return data
            return self.channel.read(_PIECE)
        except OSError as error:
            raise ConnectionLost(meaning(error)) from None

    def _next(self) -> bytes | None:
        try:
            return self._reader.next()
        except FrameError as error:
            raise ConnectionLost(str(error)) from None

    def interrupt(self) -> None:
        """Make every call on this connection end, from any thread."""
        self.channel.interrupt()

    def close(self) -> None:
        """Give everything back."""
        self.channel.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []
