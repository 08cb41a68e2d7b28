"""Arrays of the Zarr v2 format, read from a folder or straight out of a zip archive.

Datasets of others are not opened with zarr-python, for it would run whatever codec their metadata names, unpickling
among them, and would read a missing chunk as zeros. Here only codecs of plain numbers and of images are known, a chunk
that is missing or of the wrong size is an error, and nothing is extracted to the disk.
"""

from __future__ import annotations

import itertools
import json
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, Protocol

import numcodecs
import numpy as np
from numcodecs.abc import Codec

from robo_core.errors import ImportSourceError, MissingPartError
from robo_datasets.importers.zarr.decompress import COMPRESSORS, decompress
from robo_datasets.store.features import MAX_BYTES_PER_ROW

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# Filters that do not change the size of a chunk.
_FILTERS = ("shuffle",)
_IMAGE_PREFIX = "imagecodecs_"
_IMAGE_CODECS = ("jpegxl", "jpeg2k", "jpeg", "png", "webp")
_MAX_FILE = 1 << 31
_MAX_CHUNK_BYTES = 1 << 31


class Files(Protocol):
    """Named files of a dataset; picklable."""

    root: Path

    def read(self, name: str) -> bytes | None:
        """Content of a file, None where there is none.

        Raises:
            ImportSourceError: it cannot be read, or is larger than any chunk should be.
        """

    def folders(self, name: str) -> list[str]:
        """Names of the folders directly below a folder."""


class FolderFiles:
    """Files below a folder.

    Raises:
        ImportSourceError: there is no such folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ImportSourceError(f"there is no folder {root}")
        self.root = root

    def read(self, name: str) -> bytes | None:
        """See ``Files.read``."""
        path = self.root / name
        try:
            if path.stat().st_size > _MAX_FILE:
                raise ImportSourceError(f"{path} is larger than {_MAX_FILE >> 30} GiB")
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ImportSourceError(f"{path} cannot be read: {error.strerror}") from error

    def folders(self, name: str) -> list[str]:
        """See ``Files.folders``."""
        place = self.root / name
        return sorted(path.name for path in place.iterdir() if path.is_dir()) if place.is_dir() else []


class ZipFiles:
    """Files inside a zip archive, read where they stand.

    Raises:
        ImportSourceError: it is missing or not a zip archive, or a name in it leads out of it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._archive: zipfile.ZipFile | None = None
        for name in self._open().namelist():
            if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts or ":" in name[:3]:
                raise ImportSourceError(f"{root} holds the file {name!r}, which leads out of the archive; not read")
        # An archive of the folder in place of what is in it: everything stands one folder deeper.
        self._prefix = ""
        tops = self.folders("")
        if len(tops) == 1 and tops[0] not in ("data", "meta") and {"data", "meta"} <= set(self.folders(tops[0])):
            self._prefix = f"{tops[0]}/"

    def read(self, name: str) -> bytes | None:
        """See ``Files.read``."""
        try:
            with self._open().open(self._prefix + name) as file:
                data = file.read(_MAX_FILE + 1)
        except KeyError:
            return None
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise ImportSourceError(f"{self.root}: {name} is damaged: {error}") from error
        if len(data) > _MAX_FILE:
            raise ImportSourceError(f"{self.root}: {name} is larger than {_MAX_FILE >> 30} GiB")
        return data

    def folders(self, name: str) -> list[str]:
        """See ``Files.folders``."""
        prefix = self._prefix + (f"{name}/" if name else "")
        below = (entry[len(prefix) :] for entry in self._open().namelist() if entry.startswith(prefix))
        return sorted({entry.split("/")[0] for entry in below if "/" in entry})

    def _open(self) -> zipfile.ZipFile:
        if self._archive is None:
            try:
                self._archive = zipfile.ZipFile(self.root)
            except OSError as error:
                raise ImportSourceError(f"{self.root} cannot be read: {error.strerror}") from error
            except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
                raise ImportSourceError(f"{self.root} is truncated or not a zip archive: {error}") from error
        return self._archive

    def __getstate__(self) -> dict[str, object]:
        """Everything but the open archive."""
        return {"root": self.root, "_archive": None, "_prefix": self._prefix}


def read_document(files: Files, name: str) -> dict[str, object] | None:
    """A JSON object among the files, None where there is none.

    Raises:
        ImportSourceError: it is not JSON object.
    """
    raw = files.read(name)
    if raw is None:
        return None
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ImportSourceError(f"{files.root}: {name} is truncated or not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ImportSourceError(f"{files.root}: {name} must hold a JSON object")
    return document


class ZarrV2Array:
    """One array: ``array.rows(start, stop)`` reads, ``array.shape`` and ``array.dtype`` tell.

    Args:
        files: where it stands.
        name: its path among them, for instance "data/action".
        allow_missing: whether chunks that are not there are read as the fill value.

    Raises:
        ImportSourceError: it is missing, of objects or structures, or has a codec that is not read.
    """

    def __init__(self, files: Files, name: str, allow_missing: bool = False) -> None:
        self._files, self._name, self._allow_missing = files, name, allow_missing
        self.where = f"{files.root}: {name}"
        document = read_document(files, f"{name}/.zarray")
        if document is None:
            raise ImportSourceError(f"{self.where} is missing")
        self.dtype = self._dtype(document.get("dtype"))
        self.shape = self._sides(document.get("shape"), "shape", 0)
        self.chunks = self._sides(document.get("chunks"), "chunks", 1)
        if document.get("zarr_format") != 2 or not self.shape or len(self.chunks) != len(self.shape):
            raise ImportSourceError(
                f"{self.where}: a Zarr v2 array cannot have shape {self.shape} and chunks {self.chunks}"
            )
        self._check_sizes()
        order, separator = document.get("order", "C"), document.get("dimension_separator", ".")
        if order not in ("C", "F") or separator not in (".", "/"):
            raise ImportSourceError(f"{self.where}: order {order!r}, separator {separator!r} are not known")
        self._order: Literal["C", "F"] = "C" if order == "C" else "F"
        self._separator = str(separator)
        self._fill = document.get("fill_value")
        self._filters = self._read_filters(document.get("filters") or [])
        self._compressor, self._image_codec = self._read_compressor(document.get("compressor"))
        self._last: tuple[tuple[int, ...], np.ndarray] | None = None

    def _check_sizes(self) -> None:
        if not self.shape or len(self.chunks) != len(self.shape):
            raise ImportSourceError(f"{self.where}: shape {self.shape} does not fit chunks {self.chunks}")
        self._chunk_bytes = math.prod(self.chunks) * self.dtype.itemsize
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        if self._chunk_bytes > _MAX_CHUNK_BYTES or row > MAX_BYTES_PER_ROW:
            raise ImportSourceError(f"{self.where}: shape {self.shape} with chunks {self.chunks} is larger than read")

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) as (stop - start, *shape[1:]).

        Raises:
            ImportSourceError: a chunk is missing or damaged; names it.
        """
        if not 0 <= start <= stop <= len(self):
            raise ImportSourceError(f"{self.where} has {len(self)} rows; {start} to {stop} are needed")
        result = np.empty((stop - start, *self.shape[1:]), self.dtype.newbyteorder("="))
        if not result.size:
            return result
        bounds = [(start, stop), *((0, side) for side in self.shape[1:])]
        grid = [
            range(low // chunk, (high - 1) // chunk + 1) for (low, high), chunk in zip(bounds, self.chunks, strict=True)
        ]
        for place in itertools.product(*grid):
            source, target = [], []
            for index, chunk, (low, high) in zip(place, self.chunks, bounds, strict=True):
                first, last = max(index * chunk, low), min((index + 1) * chunk, high)
                source.append(slice(first - index * chunk, last - index * chunk))
                target.append(slice(first - low, last - low))
            result[tuple(target)] = self._chunk(place)[tuple(source)]
        return result

    def blocks(self, start: int, stop: int, rows: int = 64) -> Iterator[np.ndarray]:
        """Rows [start, stop) one by one, read a few chunks at a time."""
        step = max(self.chunks[0], min(rows, max(1, (1 << 27) // max(1, self._chunk_bytes))))
        while start < stop:
            end = min(stop, (start // step + 1) * step)
            yield from self.rows(start, end)
            start = end

    def check_ends(self) -> None:
        """Check that the first and the last chunk are there and whole: a copy that broke off lacks the last.

        Raises:
            ImportSourceError: names the chunk.
        """
        self.rows(0, min(1, len(self)))
        self.rows(max(len(self) - 1, 0), len(self))

    def _chunk(self, place: tuple[int, ...]) -> np.ndarray:
        if self._last is not None and self._last[0] == place:
            return self._last[1]
        raw = self._files.read(self._file(place))
        if raw is None:
            if not self._allow_missing:
                raise self._missing(place)
            chunk = np.full(self.chunks, self._fill_value(), self.dtype)
        else:
            chunk = self._decode(raw, self._file(place))
        self._last = place, chunk
        return chunk

    def _decode(self, raw: bytes, name: str) -> np.ndarray:
        try:
            data: ReadableBuffer = raw
            if self._compressor:
                data = decompress(self._compressor, raw, self._chunk_bytes)
            elif self._image_codec:
                data = np.ascontiguousarray(_image_decoder(self._image_codec)(raw)).data
            for codec in reversed(self._filters):
                data = codec.decode(data)
            flat = np.frombuffer(memoryview(data).cast("B"), np.uint8)
        except (ValueError, RuntimeError, TypeError, MemoryError) as error:
            raise ImportSourceError(f"{self._files.root}: {name} is truncated or damaged: {error}") from error
        if len(flat) != self._chunk_bytes:
            raise ImportSourceError(
                f"{self._files.root}: {name} holds {len(flat)} bytes, a chunk {self.chunks} of {self.dtype} has "
                f"{self._chunk_bytes}"
            )
        return flat.view(self.dtype).reshape(self.chunks, order=self._order)

    def _fill_value(self) -> np.generic:
        try:
            return self.dtype.type(0 if self._fill is None else self._fill)
        except (ValueError, TypeError, OverflowError) as error:
            raise ImportSourceError(f"{self.where}: the fill value {self._fill!r} is not {self.dtype}") from error

    def _file(self, place: tuple[int, ...]) -> str:
        return f"{self._name}/{self._separator.join(map(str, place))}"

    def _missing(self, place: tuple[int, ...]) -> ImportSourceError:
        return ImportSourceError(
            f"{self._files.root}: the chunk {self._file(place)} is missing; where the writer left out chunks of zeros, "
            "give missing_chunks=zeros"
        )

    def _dtype(self, value: object) -> np.dtype:
        try:
            dtype = np.dtype(value) if isinstance(value, str) else None
        except TypeError:
            dtype = None
        if dtype is None or dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise ImportSourceError(
                f"{self.where} is of dtype {value!r}; only numbers are read, never objects that need unpickling"
            )
        return dtype

    def _sides(self, value: object, key: str, least: int) -> tuple[int, ...]:
        sides = value if isinstance(value, list) else [None]
        found = tuple(side for side in sides if isinstance(side, int) and not isinstance(side, bool))
        if len(found) < len(sides) or any(not least <= side < 1 << 48 for side in found) or len(found) > 8:
            raise ImportSourceError(f"{self.where}: {key} is {value!r}, a list of whole numbers is needed")
        return found

    def _read_filters(self, filters: object) -> list[Codec]:
        found = []
        for entry in filters if isinstance(filters, list) else [filters]:
            kind = entry.get("id") if isinstance(entry, dict) else None
            if entry is None:
                continue
            if not isinstance(entry, dict) or kind not in _FILTERS:
                raise ImportSourceError(f"{self.where} has the filter {kind!r}, which is not read; known: {_FILTERS}")
            try:
                found.append(numcodecs.get_codec(dict(entry)))
            except (ValueError, TypeError) as error:
                raise ImportSourceError(f"{self.where}: the filter {kind} is malformed: {error}") from error
        return found

    def _read_compressor(self, entry: object) -> tuple[str, str]:
        """Name of the compressor of bytes and of that of images; one of them or both are empty."""
        if entry is None:
            return "", ""
        kind = entry.get("id") if isinstance(entry, dict) else None
        if kind in COMPRESSORS:
            return str(kind), ""
        image = str(kind).removeprefix(_IMAGE_PREFIX)
        if str(kind).startswith(_IMAGE_PREFIX) and image in _IMAGE_CODECS:
            return "", image
        known = (*COMPRESSORS, *(_IMAGE_PREFIX + name for name in _IMAGE_CODECS))
        raise ImportSourceError(f"{self.where} has the codec {kind!r}, which is not read; known are {', '.join(known)}")


def _image_decoder(name: str) -> Callable[[bytes], np.ndarray]:
    try:
        import imagecodecs
    except ImportError as error:
        raise MissingPartError(
            f"frames in {name} need the package imagecodecs; install it with: pip install 'robo-rm[umi]'"
        ) from error
    decoder: Callable[[bytes], np.ndarray] = getattr(imagecodecs, f"{name}_decode")
    return decoder
