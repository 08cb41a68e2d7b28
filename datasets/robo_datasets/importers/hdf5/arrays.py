"""Arrays of one demonstration in an HDF5 group: which there are, which of them hold images, and their content."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from robo_core.errors import ImportSourceError
from robo_datasets.importers.content import ContentHash
from robo_datasets.importers.encoded_images import (
    EncodedRule,
    encoded_bytes,
    encoded_rule,
    is_encoded,
    may_be_encoded,
)
from robo_datasets.importers.hdf5.files import dataset, is_group, read, subgroup
from robo_datasets.importers.images import ImageRule, ImageSettings, image_rule
from robo_datasets.store.features import LOW_DIM_DTYPES

Kind = tuple[tuple[int, ...], np.dtype]
"""Shape of a row, and type."""
FrameRule = ImageRule | EncodedRule
_BLOCK = 64


def dotted(place: str) -> str:
    """The path of an array as part of a feature's key."""
    return re.sub(r"[^A-Za-z0-9_.\-]", "_", place.replace("/", "."))


def leaves(group: h5py.Group, place: str, depth: int, path: Path) -> Iterator[str]:
    """Paths of the arrays at or below a member of a group, ``depth`` groups deep."""
    if depth < 1 or not is_group(group, place):
        yield place
        return
    for name in subgroup(group, place, path):
        yield from leaves(group, f"{place}/{name}", depth - 1, path)


def holds_encoded(group: h5py.Group, place: str, path: Path) -> bool:
    """Whether an array holds JPEG or PNG images."""
    array = dataset(group, place, path)
    return (
        may_be_encoded(array.dtype, array.shape) and bool(len(array)) and is_encoded(read(group, place, 0, 1, path)[0])
    )


def check_numbers(array: h5py.Dataset, place: str, path: Path) -> None:
    """Raise ImportSourceError where an array holds anything but numbers."""
    if array.dtype.newbyteorder("=").name not in LOW_DIM_DTYPES or not array.shape:
        raise ImportSourceError(
            f"{path}: {array.name} is {array.shape} {array.dtype}; only numbers are read (drop=[{place}] leaves it out)"
        )


def check_kind(array: h5py.Dataset, place: str, length: int, kind: Kind, encoded: bool, path: Path) -> None:
    """Check an array against that of the first demonstration.

    Raises:
        ImportSourceError: it has another type, shape or length.
    """
    shape, dtype = kind
    if encoded and array.shape[:1] == (length,) and may_be_encoded(array.dtype, array.shape):
        return  # each demonstration is padded to the longest of its own images
    if array.shape != (length, *shape) or array.dtype != dtype:
        raise ImportSourceError(
            f"{path}: {array.name} is {array.shape} {array.dtype}; {(length, *shape)} {dtype} is expected from its "
            f"actions and the first demonstration (drop=[{place}] leaves it out)"
        )


def frame_rule(
    group: h5py.Group, place: str, name: str, encoded: bool, settings: ImageSettings, size: tuple[int, int] | None
) -> FrameRule | None:
    """How the rows of an array become frames; None where it holds no images. ``name`` is used in notes."""
    path = Path(group.file.filename)
    array = dataset(group, place, path)

    def row(number: int) -> np.ndarray:
        return read(group, place, number, number + 1, path)[0]

    where = f"{path}: {array.name}"
    if encoded:
        return encoded_rule(name, len(array), row, settings, where, size)
    return image_rule(name, array.shape, array.dtype.newbyteorder("="), row, settings, where, size)


def blocks(
    group: h5py.Group, places: Collection[str], length: int, path: Path
) -> Iterator[tuple[range, dict[str, np.ndarray]]]:
    """Frame numbers and rows by path of blocks of a demonstration, in order."""
    for start in range(0, length, _BLOCK):
        span = range(start, min(start + _BLOCK, length))
        yield span, {place: read(group, place, start, span.stop, path) for place in places}


def add_content(
    content: ContentHash,
    group: h5py.Group,
    arrays: Collection[str],
    encoded: Collection[str],
    rules: Mapping[str, FrameRule],
    length: int,
    path: Path,
) -> None:
    """Give ``content`` the arrays of a demonstration as they stand, however their images are turned."""
    for place in sorted(arrays):
        for _, rows in blocks(group, (place,), length, path):
            if place in encoded:
                content.add_images(place, map(encoded_bytes, rows[place]))
            elif place in rules:
                content.add_images(place, rows[place])
            else:
                content.add_rows(place, rows[place])
