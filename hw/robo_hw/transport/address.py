"""Where the policy server is: a Unix socket, or a port of this machine. Never anything else."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from robo_hw.errors import AddressError

_LONGEST_PATH = 100
"""The system's own limit is 108 bytes, 104 on some."""


@dataclass(frozen=True)
class Address:
    """``unix:/path/to.sock`` (or a bare path), or ``tcp://127.0.0.1:port``; one of ``path`` and ``host`` is set."""

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises:
            AddressError: it is not understood, too long, or of another machine.
        """
        if text.startswith("tcp:"):
            return cls._parse_tcp(text)
        path = text[len("unix:") :] if text.startswith("unix:") else text
        if not path or "\0" in path or "://" in path:
            raise AddressError(f"socket {text!r} is no address; give unix:/path/to.sock or tcp://127.0.0.1:5555")
        path = os.path.abspath(os.path.expanduser(path))
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise AddressError(f"socket {path}: the path is longer than {_LONGEST_PATH} bytes; give a shorter one")
        return cls(path=path)

    @classmethod
    def _parse_tcp(cls, text: str) -> Address:
        host, _, port = text.removeprefix("tcp:").removeprefix("//").rpartition(":")
        host = host.strip("[]")
        if host == "localhost":
            host = "127.0.0.1"
        try:
            local = ipaddress.ip_address(host).is_loopback
            number = int(port)
        except ValueError:
            raise AddressError(f"socket {text!r} is no address; give for example tcp://127.0.0.1:5555") from None
        if not local:
            raise AddressError(f"socket {text!r} is not on this machine; only loopback is served, use 127.0.0.1")
        if not 0 <= number <= 65535:
            raise AddressError(f"socket {text!r}: {number} is no port; give one from 1 to 65535")
        return cls(host=host, port=number)

    @property
    def shared(self) -> bool:
        """Whether shared memory can be handed over: only through a Unix socket."""
        return bool(self.path)

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"

    def connect(self, timeout: float) -> socket.socket:
        """A connected socket with that time-out (s).

        Raises:
            OSError: nobody listens there.
        """
        made = self._socket()
        try:
            made.settimeout(timeout)
            made.connect(self._target())
            without_delay(made)
        except OSError:
            made.close()
            raise
        return made

    def listen(self) -> socket.socket:
        """A listening socket; a Unix socket is for its owner only, and one that a killed server left is replaced.

        Raises:
            AddressError: another server listens there, or it cannot be made.
        """
        if self.path:
            self._clear()
        made = self._socket()
        try:
            if self.host:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind(self._target())
            else:
                # Nobody else may talk to the arm, from the first instant: permissions come with the name.
                before = os.umask(0o177)
                try:
                    made.bind(self._target())
                finally:
                    os.umask(before)
            made.listen(8)
        except OSError as error:
            made.close()
            if error.errno == errno.EADDRINUSE:
                raise AddressError(f"{self} is in use by another program; give another socket=") from None
            raise AddressError(f"{self} cannot be listened on: {error.strerror or error}") from None
        return made

    def bound(self, listening: socket.socket) -> Address:
        """This address with the port that the system chose, where 0 was asked for."""
        return self if self.path else Address(host=self.host, port=int(listening.getsockname()[1]))

    def _socket(self) -> socket.socket:
        if self.path:
            return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        return socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_STREAM)

    def _target(self) -> str | tuple[str, int]:
        return self.path or (self.host, self.port)

    def _clear(self) -> None:
        path = Path(self.path)
        if not path.parent.is_dir():
            raise AddressError(f"{self}: there is no folder {path.parent}; make it, or give another socket=")
        try:
            kind = path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(kind):
            raise AddressError(f"{self}: {path} is there and is no socket; give another socket=")
        try:
            self.connect(1.0).close()
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)  # its server is dead
        except OSError as error:
            raise AddressError(f"{self} cannot be looked at: {error.strerror or error}") from None
        else:
            raise AddressError(f"{self}: a server listens there already; stop it, or give another socket=")


def without_delay(made: socket.socket) -> None:
    """Have small frames sent at once: TCP would hold one back until the one before it is acknowledged, 40 ms."""
    if made.family != socket.AF_UNIX:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
