"""Stores on a URL (``s3://``, ``gs://``, ``http://``, ``memory://``): read through fsspec, never written to.

``RemotePath`` has those methods of ``pathlib.Path`` that reading a store needs, so that one reader serves both.
Listings are kept for as long as the store is open, for on an object store each is a request.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from robo_core.errors import CorruptionError, MissingPartError, StoreError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def store_path(path: str | os.PathLike[str]) -> Path:
    """A store's place: a ``Path``, or for a URL a ``RemotePath`` in its stead.

    Raises:
        StoreError: no protocol of that name.
        MissingPartError: the package for that protocol is not installed.
    """
    text = os.fspath(path)
    if "://" not in text:
        return Path(text)
    # To the reader it is a path; only the methods that it needs are there, and none that writes.
    return cast(Path, RemotePath(text))


def list_names(folder: Path) -> list[str]:
    """Names in a folder, local or remote; none where it is absent."""
    if isinstance(folder, RemotePath):
        return folder.names()
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


class RemotePath:
    """A file or folder of a store on a URL."""

    def __init__(self, url: str, files: RemoteFiles | None = None) -> None:
        self._url = url.rstrip("/")
        self.files = files or RemoteFiles(self._url)

    def __truediv__(self, name: str) -> RemotePath:
        """A path below this one."""
        return RemotePath(f"{self._url}/{name}", self.files)

    def __str__(self) -> str:
        """The URL."""
        return self._url

    def __repr__(self) -> str:
        return f"RemotePath({self._url!r})"

    @property
    def name(self) -> str:
        """The last part."""
        return self._url.rsplit("/", 1)[-1]

    def read_bytes(self) -> bytes:
        """All bytes of a file; ``OSError`` where it cannot be read, as for a local one."""
        return self.files.read(self._url)

    def exists(self) -> bool:
        """Whether there is a file or folder of this name."""
        return self.files.is_there(self._url)

    def is_file(self) -> bool:
        """Whether there is something of this name; object stores have no folders, only files."""
        return self.exists()

    def is_dir(self) -> bool:
        """Whether there is anything below this name."""
        return bool(self.names())

    def names(self) -> list[str]:
        """Names of the files and folders below this one."""
        return self.files.names(self._url)


class RemoteFiles:
    """The file system behind a URL, opened again in every process: connections do not survive a fork."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._names: dict[str, list[str]] = {}
        self._system: AbstractFileSystem | None = None
        self._process = 0
        self._connect()

    def read(self, url: str, start: int | None = None, end: int | None = None) -> bytes:
        """Bytes [start, end) of a file."""
        with _as_os_errors(url):
            return bytes(self._connect().cat_file(url, start=start, end=end))

    def read_ranges(self, url: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several ranges [start, end) of a file, asked for at once."""
        with _as_os_errors(url):
            system = self._connect()
            starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
            return [bytes(data) for data in system.cat_ranges([url] * len(ranges), starts, ends, on_error="raise")]

    def size(self, url: str) -> int:
        """Bytes of a file."""
        with _as_os_errors(url):
            return int(self._connect().size(url))

    def is_there(self, url: str) -> bool:
        """Whether there is a file or folder of this name."""
        with _as_os_errors(url):
            return bool(self._connect().exists(url))

    def names(self, url: str) -> list[str]:
        """Names below a folder, remembered."""
        if url not in self._names:
            try:
                with _as_os_errors(url):
                    found = self._connect().ls(url, detail=False)
            except FileNotFoundError:
                found = []
            names = {str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in found}
            self._names[url] = sorted(names - {""})
        return self._names[url]

    def forget(self) -> None:
        """Ask for listings again."""
        self._names.clear()
        self._connect().invalidate_cache()

    def __getstate__(self) -> dict[str, object]:
        """Everything but the connection."""
        return {**vars(self), "_system": None, "_process": 0}

    def _connect(self) -> AbstractFileSystem:
        if self._system is None or self._process != os.getpid():
            try:
                import fsspec
            except ImportError as error:
                raise MissingPartError(f"{self._url} needs fsspec: pip install 'robo-rm[remote]'") from error
            try:
                self._system = fsspec.core.url_to_fs(self._url)[0]
            except ImportError as error:
                raise MissingPartError(f"{self._url} cannot be opened: {error}") from error
            except ValueError as error:
                raise StoreError(f"{self._url} cannot be opened: {error}") from error
            self._process = os.getpid()
        return self._system


class RemoteBytes:
    """Ranges of one remote file."""

    def __init__(self, path: RemotePath, expected: int) -> None:
        self._path = path
        self.size = path.files.size(str(path))
        self.mapped = 0
        if self.size < expected:
            raise CorruptionError(f"{path} is truncated: {self.size} bytes, at least {expected} expected")

    def check(self) -> None:
        """Nothing to check: a range that is not there fails by itself."""

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Ranges [start, end) as (n,) uint8."""
        found = self._path.files.read_ranges(str(self._path), ranges)
        return [np.frombuffer(data, np.uint8) for data in found]


@contextmanager
def _as_os_errors(url: str) -> Iterator[None]:
    """Errors of the transport that are no ``OSError``, as some that are: readers know what to do with those."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "it is not there", url) from error
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), url) from error
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", url) from error
