"""A program between a client and a server on this computer: it listens to, changes or holds up what they say."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from robo_hw.transport import Address

Change = Callable[[str, bytes], bytes]


class Relay:
    """A program that took the port, and passes everything on to the real server; it may change what it passes."""

    def __init__(
        self, target: Address, overheard: list[tuple[str, bytes]] | None = None, change: Change | None = None
    ) -> None:
        self.target, self.change = target, change
        self.overheard = [] if overheard is None else overheard
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.stop = threading.Event()
        self.pairs: list[threading.Event] = []

    def __enter__(self) -> str:
        threading.Thread(target=self._run, daemon=True).start()
        return f"{self.target.kind}://127.0.0.1:{self.listening.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.listening.close()

    def freeze(self) -> None:
        """Pass nothing on any more on the connections that there are, and close none: both sides are left half open."""
        for frozen in self.pairs:
            frozen.set()

    def _run(self) -> None:
        while not self.stop.is_set():
            try:
                near, _ = self.listening.accept()
            except OSError:
                return
            far = self.target.connect(5.0)
            self.pairs.append(threading.Event())
            for one, other, side in ((near, far, "client"), (far, near, "server")):
                threading.Thread(target=self._pass, args=(one, other, side, self.pairs[-1]), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, side: str, frozen: threading.Event) -> None:
        one.settimeout(30.0)
        try:
            while data := one.recv(65536):
                self.overheard.append((side, data))
                if frozen.is_set():
                    self.stop.wait()
                    break
                other.sendall(self.change(side, data) if self.change else data)
        except OSError:
            pass
        for made in (one, other):
            with contextlib.suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)
            made.close()
