"""Who comes in: one thread takes new connections and has them prove who they are, before they cost anything.

A connection that has not proved itself has no thread, no place among the clients and a few kilobytes, for a short time.
When too many wait, those of the address with the most of them go first, and of these the ones that have said nothing.
"""

from __future__ import annotations

import collections
import contextlib
import select
import selectors
import socket
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from robo_hw.errors import AuthenticationError
from robo_hw.transport.address import source, tuned
from robo_hw.transport.channel import Channel, Waits, read_exactly, write_all
from robo_hw.transport.credentials import Authenticate
from robo_hw.transport.messages import shortened

MOST_WAITING = 128
"""Connections that have not proved themselves yet."""
_AT_ONCE = 16
"""Taken before those that wait are looked at again."""
_REPORT_EVERY = 5.0


def verdict(text: str) -> bytes:
    """What a server says once a client has proved itself: nothing, or why it may not come in."""
    data = shortened(text, 200).encode("ascii", errors="replace")
    return bytes([len(data)]) + data


def read_verdict(channel: Channel) -> Generator[int, None, None]:
    """The client's side of it.

    Raises:
        AuthenticationError: the server does not let this client in; says why.
    """
    length = (yield from read_exactly(channel, 1))[0]
    text = yield from read_exactly(channel, length)
    if text:
        said = "".join(letter if letter.isprintable() else "?" for letter in text.decode("ascii", errors="replace"))
        raise AuthenticationError(f"the server refused: {said}")


@dataclass(eq=False)
class _Waiting:
    """A connection that has not proved itself."""

    descriptor: int
    made: socket.socket
    steps: Generator[int, None, tuple[Channel, str]]
    source: str
    until: float
    spoken: bool = False


class Gate:
    """The thread. ``admit`` is given each channel that proved itself; ``full`` says why there is no place, or "".

    ``report``: called with one line for what was refused, at once for the first and then every 5 s at most.
    """

    def __init__(
        self,
        listening: socket.socket,
        authenticate: Authenticate,
        admit: Callable[[Channel], None],
        full: Callable[[], str],
        report: Callable[[str], None],
        seconds: float,
    ) -> None:
        self._listening, self._authenticate, self._admit, self._full = listening, authenticate, admit, full
        self._report, self._seconds = report, seconds
        self._selector = selectors.DefaultSelector()
        self._waiting: dict[int, _Waiting] = {}
        self._closing = threading.Event()
        self._wake_in, self._wake_out = socket.socketpair()
        listening.setblocking(False)
        self._selector.register(listening, selectors.EVENT_READ)
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._reported_at = -_REPORT_EVERY
        self._unreported = 0
        self._last = ""
        self.refused = 0
        """Connections that did not get in, so far."""
        self._thread = threading.Thread(target=self._run, name="policy-server", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Connections that have not proved themselves yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Take no more, and end the thread."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._wake_out.send(b"w")
        self._thread.join(5.0)

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                now = time.monotonic()
                ends = [waiting.until for waiting in self._waiting.values()]
                if self._unreported:
                    ends.append(self._reported_at + _REPORT_EVERY)
                for key, _ in self._selector.select(max(min(ends) - now, 0.0) if ends else None):
                    waiting = self._waiting.get(key.fd)
                    if waiting is not None:
                        waiting.spoken = True
                        self._go_on(waiting)
                    elif key.fileobj is self._listening:
                        self._take()
                self._clean_up(time.monotonic())
        finally:
            for waiting in list(self._waiting.values()):
                self._drop(waiting)
            self._selector.close()
            for made in (self._listening, self._wake_in, self._wake_out):
                made.close()

    def _take(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                made, _ = self._listening.accept()
            except BlockingIOError:
                return
            except OSError:
                self._closing.wait(0.05)  # out of descriptors, say: do not spin
                return
            made.setblocking(False)
            with contextlib.suppress(OSError):
                tuned(made)
            if len(self._waiting) >= MOST_WAITING:
                self._make_room()
            until = time.monotonic() + self._seconds
            waiting = _Waiting(made.fileno(), made, self._steps(made), source(made), until)
            self._waiting[waiting.descriptor] = waiting
            self._go_on(waiting)

    def _steps(self, made: socket.socket) -> Generator[int, None, tuple[Channel, str]]:
        channel = yield from self._authenticate(made)
        full = self._full()
        answer: Waits = write_all(channel, verdict(full))
        try:
            yield from answer
        except BaseException:
            channel.close()
            raise
        return channel, full

    def _go_on(self, waiting: _Waiting) -> None:
        try:
            self._await(waiting, next(waiting.steps))
        except StopIteration as done:
            channel, full = done.value
            self._forget(waiting)
            if full or self._closing.is_set():
                channel.close()
                self._refuse(waiting, full or "the server ends")
            else:
                self._admit(channel)
        except Exception as error:  # noqa: BLE001 - whatever one connection does, the gate stays open to the others
            if isinstance(error, AuthenticationError) and waiting.made.family == socket.AF_UNIX:
                with contextlib.suppress(OSError):  # the one on this computer may know why
                    waiting.made.send(verdict(str(error)))
            self._drop(waiting)
            self._refuse(waiting, str(error) or type(error).__name__)

    def _await(self, waiting: _Waiting, wanted: int) -> None:
        events = selectors.EVENT_READ if wanted & select.POLLIN else selectors.EVENT_WRITE
        if waiting.descriptor in self._selector.get_map():
            self._selector.modify(waiting.descriptor, events)
        else:
            self._selector.register(waiting.descriptor, events)

    def _make_room(self) -> None:
        crowd = collections.Counter(waiting.source for waiting in self._waiting.values())
        victim = min(self._waiting.values(), key=lambda one: (-crowd[one.source], one.spoken, one.until))
        self._drop(victim)
        self._refuse(victim, "it had not proved who it is when others came")

    def _clean_up(self, now: float) -> None:
        for waiting in [one for one in self._waiting.values() if one.until <= now]:
            self._drop(waiting)
            self._refuse(waiting, f"it did not prove who it is within {self._seconds:g} s")
        if self._unreported and now - self._reported_at >= _REPORT_EVERY:
            self._tell(now)

    def _forget(self, waiting: _Waiting) -> None:
        self._waiting.pop(waiting.descriptor, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(waiting.descriptor)

    def _drop(self, waiting: _Waiting) -> None:
        self._forget(waiting)
        waiting.steps.close()
        waiting.made.close()

    def _refuse(self, waiting: _Waiting, text: str) -> None:
        self.refused += 1
        self._unreported += 1
        self._last = f"from {waiting.source}: {text}"
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_EVERY:
            self._tell(now)

    def _tell(self, now: float) -> None:
        many = (
            f"{self._unreported} connections were refused, the last"
            if self._unreported > 1
            else "a connection was refused"
        )
        self._reported_at, self._unreported = now, 0
        self._report(f"{many} {self._last}")
