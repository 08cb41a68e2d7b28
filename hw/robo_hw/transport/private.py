"""Files and folders that no other user may read or replace: the socket's folder, secrets and private keys."""

from __future__ import annotations

import os
import pwd
import secrets
import socket
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from robo_hw.errors import AddressError, CredentialsError

_LONGEST = 64 * 1024
"""Bytes of a secret or of a file of certificates."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def run_folder() -> Path:
    """Where sockets without a folder of their own lie: ``$XDG_RUNTIME_DIR/robo-rm``, else ``/run/user/UID/robo-rm``,
    else ``~/.robo-rm/run``; not made yet.

    The second is the first's usual value, for a service or a container shell in which the variable is not set, or is
    another user's (``sudo``, ``su``).
    """
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(named) and _owner(named) in (None, os.geteuid()):
        return Path(named) / "robo-rm"
    usual = f"/run/user/{os.geteuid()}"
    if _owner(usual) == os.geteuid():
        return Path(usual) / "robo-rm"
    return _home() / ".robo-rm" / "run"


def default_secret() -> Path:
    """The secret of this user: ``$XDG_CONFIG_HOME/robo-rm/secret``, else ``~/.config/robo-rm/secret``."""
    named = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(named) if os.path.isabs(named) else _home() / ".config") / "robo-rm" / "secret"


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it, for this user only (mode 700); one that is there stays as it is.

    Raises:
        AddressError: it cannot be made.
    """
    try:
        for path in [*reversed(folder.parents), folder]:
            if not path.is_dir():
                path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise AddressError(f"the private folder {folder} cannot be made: {error.strerror}") from None


def folder_problem(folder: Path, trusted: Iterable[int] = ()) -> str:
    """Why another user could put a socket of theirs into ``folder`` (an absolute path without links), or "".

    ``trusted``: user numbers that may own it besides root and this user. Folders above may be sticky, as ``/tmp`` is:
    there nobody can rename what belongs to somebody else. The folder itself may not: in it anybody can take a name that
    is free.
    """
    owners = {0, os.geteuid(), *trusted}
    for path in (folder, *folder.parents):
        try:
            found = path.stat()
        except OSError as error:
            return f"{path} cannot be looked at: {error.strerror}"
        if found.st_uid not in owners:
            return f"{path} belongs to user {user_name(found.st_uid)}"
        sticky = bool(found.st_mode & stat.S_ISVTX) and path != folder
        if found.st_mode & _OTHERS_WRITE and not sticky:
            return f"others can write to {path} (mode {stat.S_IMODE(found.st_mode):o})"
    return ""


def read_private(path: Path, what: str) -> bytes:
    """The content of a file that only this user can read.

    Raises:
        CredentialsError: it is missing, unreadable, empty, too long, no file, of another user, or open to others.
    """
    try:
        # Without blocking: a pipe of that name must not hold the caller up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise CredentialsError(f"{what} {path} cannot be read: {_reason(error)}") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise CredentialsError(f"{what} {path} is not a file")
        if found.st_uid not in (0, os.geteuid()):
            raise CredentialsError(f"{what} {path} belongs to user {user_name(found.st_uid)}; make a copy of your own")
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise CredentialsError(f"{what} {path} can be read by others (mode {mode:o}); give it mode 600")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(_LONGEST + 1)
    finally:
        os.close(descriptor)
    if not content.strip() or len(content) > _LONGEST:
        raise CredentialsError(f"{what} {path} is {'too long' if content.strip() else 'empty'}")
    return content


def make_secret(path: Path) -> None:
    """Write a new secret with mode 600, unless there is one; whole or not at all, whoever else does the same now.

    Raises:
        CredentialsError: it cannot be written.
    """
    try:
        make_private_folder(path.parent)
        name = path.parent / f".{path.name}.{secrets.token_hex(8)}"
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "w") as file:
                file.write(secrets.token_hex(32) + "\n")
            os.link(name, path)
        except FileExistsError:
            pass  # another process was faster: both use its secret
        finally:
            os.unlink(name)
    except AddressError as error:
        raise CredentialsError(f"secret {path}: {error}") from None
    except OSError as error:
        raise CredentialsError(f"secret {path} cannot be written: {error.strerror}") from None


def peer_user(made: socket.socket) -> int | None:
    """Number of the user at the other end of a Unix socket; None where the system does not tell (not Linux)."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    size = struct.calcsize("3i")
    return int(struct.unpack("3i", made.getsockopt(socket.SOL_SOCKET, option, size))[1])


def user_name(number: int) -> str:
    """Name of a user, or its number where it has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        return str(number)


def user_numbers(names: Iterable[str]) -> frozenset[int]:
    """Numbers of users given by name or number.

    Raises:
        CredentialsError: there is no such user.
    """
    numbers = set()
    for name in names:
        text = str(name).strip()
        try:
            numbers.add(int(text) if text.isascii() and text.isdigit() else pwd.getpwnam(text).pw_uid)
        except (KeyError, ValueError):
            raise CredentialsError(f"there is no user {text!r} on this computer") from None
    return frozenset(numbers)


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise AddressError("this user has no home folder; give a whole path, such as unix:/run/robo/p.sock") from None


def _owner(path: str) -> int | None:
    try:
        return os.stat(path).st_uid
    except OSError:
        return None


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
