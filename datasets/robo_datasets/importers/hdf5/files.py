"""HDF5 files of others: nothing outside the file is read, no link is followed, no shape is believed over its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from robo_core.errors import ImportSourceError
from robo_datasets.store.unreadable import why_unreadable

# gzip packs at most about 1030 to 1; a shape that promises more was made up.
_MOST_PACKED = 1100


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, read only.

    Raises:
        ImportSourceError: it is missing, truncated, or not HDF5.
    """
    if not path.is_file():
        raise ImportSourceError(f"there is no file {path}; give the robomimic .hdf5 file as source=FILE")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        why = why_unreadable(path, f"is truncated or not an HDF5 file: {str(error).splitlines()[0]}")
        raise ImportSourceError(f"{path} {why}") from error
    with file:
        yield file


def member(group: h5py.Group, name: str, path: Path) -> h5py.HLObject:
    """A member of a group that stands in this very file."""
    try:
        for part in name.split("/"):
            link = group.get(part, getlink=True)
            if link is None:
                raise ImportSourceError(f"{path}: {group.name} has no {part}")
            if not isinstance(link, h5py.HardLink):
                raise ImportSourceError(f"{path}: {group.name}/{part} is a link to elsewhere, which is not followed")
            group = group[part]
    except ImportSourceError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ImportSourceError(f"{path}: {group.name}/{name} is damaged: {str(error).splitlines()[0]}") from error
    return group


def is_group(group: h5py.Group, name: str) -> bool:
    """Whether a member is a group; what cannot be opened is none."""
    try:
        return group.get(name, getclass=True) is h5py.Group
    except (OSError, RuntimeError, KeyError, ValueError):
        return False


def subgroup(group: h5py.Group, name: str, path: Path) -> h5py.Group:
    """A group in a group.

    Raises:
        ImportSourceError: it is missing, damaged, a link or not a group.
    """
    found = member(group, name, path)
    if not isinstance(found, h5py.Group):
        raise ImportSourceError(f"{path}: {found.name} is not a group")
    return found


def dataset(group: h5py.Group, name: str, path: Path) -> h5py.Dataset:
    """An array in a group.

    Raises:
        ImportSourceError: it is missing, damaged, a link or not an array, or its data stand elsewhere or nowhere.
    """
    found = member(group, name, path)
    if not isinstance(found, h5py.Dataset):
        raise ImportSourceError(f"{path}: {found.name} is not an array")
    if found.external or found.is_virtual:
        raise ImportSourceError(f"{path}: {found.name} keeps its data in other files, which are not read")
    if found.size and found.nbytes > _MOST_PACKED * max(found.id.get_storage_size(), 1):
        raise ImportSourceError(
            f"{path}: {found.name} is declared {found.shape} {found.dtype}, the file holds "
            f"{found.id.get_storage_size()} bytes of it"
        )
    return found


def read(group: h5py.Group, name: str, start: int, stop: int, path: Path) -> np.ndarray:
    """Rows [start, stop) of an array, in the machine's byte order.

    Raises:
        ImportSourceError: they are damaged.
    """
    array = dataset(group, name, path)
    try:
        rows = np.asarray(array[start:stop])
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        raise ImportSourceError(f"{path}: {array.name} is damaged: {str(error).splitlines()[0]}") from error
    return rows.astype(rows.dtype.newbyteorder("="), copy=False)


def masks(file: h5py.File, path: Path) -> dict[str, set[str]]:
    """Names of demonstrations by the split that they are in.

    Raises:
        ImportSourceError: a split is damaged.
    """
    if "mask" not in file:
        return {}
    found = {}
    splits = subgroup(file, "mask", path)
    for name in splits:
        array = dataset(splits, name, path)
        try:
            found[name] = {
                item.decode() if isinstance(item, bytes) else str(item) for item in array[()].ravel().tolist()
            }
        except (OSError, AttributeError, UnicodeDecodeError) as error:
            raise ImportSourceError(f"{path}: {array.name} is not a list of names: {error}") from error
    return found
