"""Where the policy server is: a Unix socket, a port of this computer, or a port of another one over TLS."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from robo_hw.errors import AddressError
from robo_hw.transport.private import folder_problem, make_private_folder, run_folder, user_name

_LONGEST_PATH = 100
"""The system's own limit is 108 bytes, 104 on some."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_FORMS = "give unix:NAME, unix:/path/to.sock, tcp://127.0.0.1:5555 or tls://HOST:5555"


@dataclass(frozen=True)
class Address:
    """``unix:NAME`` (a socket in this user's private folder), ``unix:/path/to.sock`` (or a bare path),
    ``tcp://127.0.0.1:port`` (this computer only), ``tls://host:port``; one of ``path`` and ``host`` is set.
    """

    path: str = ""
    host: str = ""
    port: int = 0
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises:
            AddressError: it is not understood, too long, or of another machine without TLS.
        """
        if text.startswith(("tcp:", "tls:")):
            return cls._parse_port(text)
        path = text[len("unix:") :] if text.startswith("unix:") else text
        if not path or "\0" in path or "://" in path:
            raise AddressError(f"address {text!r} is not understood; {_FORMS}")
        if text.startswith("unix:") and _NAME.fullmatch(path):
            path = str(run_folder() / (path if path.endswith(".sock") else f"{path}.sock"))
        try:
            path = os.path.abspath(os.path.expanduser(path))
            length = len(os.fsencode(path))
        except (OSError, UnicodeError) as error:
            raise AddressError(f"address {text!r} is not understood ({error}); {_FORMS}") from None
        if length > _LONGEST_PATH:
            raise AddressError(f"socket {path}: the path is longer than {_LONGEST_PATH} bytes; give a shorter one")
        return cls(path=path)

    @classmethod
    def _parse_port(cls, text: str) -> Address:
        kind, rest = text[:3], text[4:].removeprefix("//")
        host, _, port = rest.rpartition(":")
        host = host.strip("[]")
        if host == "localhost":
            host = "127.0.0.1" if kind == "tcp" else host
        if not (port.isascii() and port.isdigit()):
            raise AddressError(f"address {text!r} has no port; {_FORMS}")
        number = int(port)
        if number > 65535:
            raise AddressError(f"address {text!r}: {number} is not a port; give one from 1 to 65535")
        number_form = _parsed(host)
        local = number_form is not None and number_form.is_loopback
        if number_form is None and (len(host) > 253 or not _HOST.fullmatch(host)):
            raise AddressError(f"address {text!r} is not understood; {_FORMS}")
        if kind == "tcp" and not local:
            raise AddressError(
                f"address {text!r} is not on this computer; tcp:// is for loopback only. Use"
                f" tls://{_bracketed(host)}:{number} with certificates (robo-rm make-certificates), or ssh -L"
            )
        return cls(host=host, port=number, tls=kind == "tls")

    @property
    def kind(self) -> str:
        """``unix``, ``tcp`` or ``tls``."""
        return "unix" if self.path else "tls" if self.tls else "tcp"

    @property
    def shared(self) -> bool:
        """Whether shared memory can be handed over: only through a Unix socket."""
        return bool(self.path)

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.kind}://{_bracketed(self.host)}:{self.port}"

    def for_client(self) -> Address:
        """This address, where a client can connect to it.

        Raises:
            AddressError: it names no one server.
        """
        if _parsed(self.host) in (ipaddress.IPv4Address(0), ipaddress.IPv6Address(0)):
            raise AddressError(f"{self} is every address of a computer; give the name or the address of the server")
        if self.host and not self.port:
            raise AddressError(f"{self} has no port to connect to; give the one that the server listens on")
        return self

    def connect(self, timeout: float, trusted: Iterable[int] = (), shared_folder: bool = False) -> socket.socket:
        """A connected socket with that time-out (s).

        Raises:
            OSError: nobody listens there.
            AddressError: others can put a socket of theirs in this one's place; see ``private_path``.
        """
        if self.path:
            path = self.private_path(trusted, shared_folder)
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                made.settimeout(timeout)
                made.connect(path)
            except OSError:
                made.close()
                raise
            return made
        made = socket.create_connection((self.host, self.port), timeout)
        tuned(made)
        return made

    def private_path(self, trusted: Iterable[int] = (), shared_folder: bool = False) -> str:
        """The socket's path with all links of its folder followed.

        Raises:
            AddressError: another user could put a socket there (``trusted``: users who may), unless the folder is
                declared to be shared.
        """
        folder, name = os.path.split(self.path)
        real = os.path.realpath(folder)
        if not shared_folder and os.path.isdir(real):
            problem = folder_problem(Path(real), trusted)
            if problem:
                raise AddressError(
                    f"{self}: another user could serve there, because {problem}; use unix:NAME, which lies in a private"
                    " folder, or declare shared_folder=true"
                )
        path = os.path.join(real, name)
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise AddressError(f"socket {path}: the path is longer than {_LONGEST_PATH} bytes; give a shorter one")
        return path

    def listen(self, trusted: Iterable[int] = (), shared_folder: bool = False) -> socket.socket:
        """A listening socket; a Unix socket is for its owner only, and one that a killed server left is replaced.

        ``trusted``: numbers of further users who may connect to a Unix socket.

        Raises:
            AddressError: another server listens there, others could replace it, or it cannot be made.
        """
        made = None
        try:
            if self.path:
                if os.path.dirname(self.path) == str(run_folder()):
                    make_private_folder(Path(self.path).parent)
                path = self.private_path(trusted, shared_folder)
                self._clear(path)
                made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                # Nobody else may talk to the arm, from the first instant: permissions come with the name.
                before = os.umask(0o111 if trusted else 0o177)
                try:
                    made.bind(path)
                finally:
                    os.umask(before)
            else:
                family, kind, protocol, _, target = socket.getaddrinfo(
                    self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )[0]
                made = socket.socket(family, kind, protocol)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind(target)
            made.listen(128)
        except OSError as error:
            if made is not None:
                made.close()
            if error.errno == errno.EADDRINUSE:
                raise AddressError(f"{self} is in use by another program; give another address") from None
            raise AddressError(f"{self} cannot be listened on: {error.strerror or error}") from None
        return made

    def bound(self, listening: socket.socket) -> Address:
        """This address with the port that the system chose, where 0 was asked for."""
        if self.path:
            return self
        return Address(host=self.host, port=int(listening.getsockname()[1]), tls=self.tls)

    def _clear(self, path: str) -> None:
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            raise AddressError(f"{self}: there is no folder {folder}; make it, or give another address")
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise AddressError(f"{self}: {path} is there and is not a socket; give another address")
        if found.st_uid != os.geteuid():
            owner = user_name(found.st_uid)
            raise AddressError(f"{self}: a socket of user {owner} is there; have it removed, or give another address")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)  # its server is dead
                return
        raise AddressError(f"{self}: a server listens there already; stop it, or give another address")


def tuned(made: socket.socket) -> None:
    """Have small frames sent at once: TCP would hold one back until the one before it is acknowledged, 40 ms."""
    if made.family != socket.AF_UNIX:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def source(made: socket.socket) -> str:
    """The address that a connection comes from, for people."""
    if made.family == socket.AF_UNIX:
        return "this computer"
    try:
        return str(made.getpeername()[0])
    except OSError:
        return "somebody who left"


def _parsed(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
