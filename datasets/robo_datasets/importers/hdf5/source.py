"""HDF5 files with a group of arrays for each episode: which there are, which of them hold images, and their content."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
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
from robo_datasets.importers.source import Source, SourceEpisode, SourceFrame
from robo_datasets.store.features import LOW_DIM_DTYPES, FeatureSpec

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


def low_dim(kind: Kind) -> FeatureSpec:
    """The feature of an array of numbers."""
    shape, dtype = kind
    return {"dtype": dtype.newbyteorder("=").name, "shape": shape or (1,), "names": None}


class Hdf5Source(Source):
    """Episodes as groups with the arrays of the first; a layout says which group is an episode's, and what they are.

    A layout fills ``_arrays`` (kind by path below the group), ``_rules`` (those that hold images), ``_rows`` and
    ``_images`` (path by feature) and the attributes of a source.
    """

    robot: str | None = None
    _arrays: dict[str, Kind]
    _rules: dict[str, FrameRule]
    _rows: Mapping[str, str]
    _images: Mapping[str, str]

    def __init__(
        self, path: str | Path, size: tuple[int, int] | None, images: ImageSettings | None, skip: Collection[str]
    ) -> None:
        self.path, self._size = Path(path), size
        self._image_settings, self._skip = images or ImageSettings(), set(skip)
        self._skipped: set[str] = set()
        self._encoded: set[str] = set()
        self.notes: list[str] = []

    @abstractmethod
    def _opened(self, episode: SourceEpisode) -> AbstractContextManager[tuple[h5py.Group, Path]]:
        """The episode's group, and the file that it stands in."""

    def check(self, episode: SourceEpisode) -> None:
        """Check that the episode has the arrays of the first, with the same shapes and types."""
        with self._opened(episode) as (group, path):
            for place, kind in self._arrays.items():
                try:
                    array = dataset(group, place, path)
                except ImportSourceError as error:
                    raise ImportSourceError(f"{error} (drop=[{place}] leaves it out)") from error
                self._check_kind(array, place, episode.length, kind, path)

    def frames(self, episode: SourceEpisode) -> Iterator[SourceFrame]:
        """Yield the episode's frames."""
        with self._opened(episode) as (group, path):
            for span, rows in _blocks(group, self._arrays, episode.length, path):
                columns = self._columns(rows, len(span))
                for row, number in enumerate(span):
                    values = {feature: column[row] for feature, column in columns.items()}
                    for feature, place in self._images.items():
                        where = f"{path}: {group.name.rstrip('/')}/{place}, frame {number}"
                        values[feature] = self._rules[place](rows[place][row], where)
                    yield SourceFrame(values, number / self.fps)

    def identify(self, episode: SourceEpisode, content: ContentHash) -> None:
        """Give ``content`` the arrays as they stand, however images are turned and features put together."""
        with self._opened(episode) as (group, path):
            for place in sorted(self._arrays):
                for _, rows in _blocks(group, (place,), episode.length, path):
                    if place in self._encoded:
                        content.add_images(place, map(encoded_bytes, rows[place]))
                    elif place in self._rules:
                        content.add_images(place, rows[place])
                    else:
                        content.add_rows(place, rows[place])

    def known_keys(self) -> Collection[str]:
        """The features, and the arrays that were left out."""
        return {*self.features, *self._skipped}

    def _columns(self, rows: Mapping[str, np.ndarray], length: int) -> dict[str, np.ndarray]:
        """Values of the low-dimensional features, (length, ...)."""
        return {key: rows[place].reshape(length, *self.features[key]["shape"]) for key, place in self._rows.items()}

    def _kind(self, group: h5py.Group, place: str, path: Path, may_be_images: bool = True) -> Kind:
        """Row and type of an array of numbers or of encoded images, which are noted."""
        array = dataset(group, place, path)
        room = may_be_images and may_be_encoded(array.dtype, array.shape) and bool(len(array))
        if room and is_encoded(read(group, place, 0, 1, path)[0]):
            self._encoded.add(place)
        elif array.dtype.newbyteorder("=").name not in LOW_DIM_DTYPES or not array.shape:
            raise ImportSourceError(
                f"{path}: {array.name} is {array.shape} {array.dtype}; only numbers are read (drop=[{place}] leaves it "
                "out)"
            )
        return tuple(array.shape[1:]), array.dtype

    def _check_kind(self, array: h5py.Dataset, place: str, length: int, kind: Kind, path: Path) -> None:
        """Check an array against that of the first episode."""
        shape, dtype = kind
        if place in self._encoded and array.shape[:1] == (length,) and may_be_encoded(array.dtype, array.shape):
            return  # each episode is padded to the longest of its own images
        if array.shape != (length, *shape) or array.dtype != dtype:
            raise ImportSourceError(
                f"{path}: {array.name} is {array.shape} {array.dtype}; {(length, *shape)} {dtype} is expected from its "
                f"actions and the first demonstration (drop=[{place}] leaves it out)"
            )

    def _read_rules(self, group: h5py.Group, path: Path, names: Mapping[str, str]) -> dict[str, FrameRule]:
        """How rows become frames of the arrays that hold images, by path; ``names``: of the arrays, used in notes."""
        rules: dict[str, FrameRule] = {}
        for place, name in names.items():
            array = dataset(group, place, path)

            def row(number: int, place: str = place) -> np.ndarray:
                return read(group, place, number, number + 1, path)[0]

            where, settings = f"{path}: {array.name}", self._image_settings
            rule: FrameRule | None
            if place in self._encoded:
                rule = encoded_rule(name, len(array), row, settings, where, self._size)
            else:
                rule = image_rule(name, array.shape, array.dtype.newbyteorder("="), row, settings, where, self._size)
            if rule is not None:
                rules[place] = rule
                self.notes += rule.notes
        return rules

    def _keep_cameras(self, there: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
        """Of the cameras ``there`` (path by feature) those named; the arrays of others are left out."""
        missing = [key for key in keys if key not in there]
        if missing:
            raise ImportSourceError(f"{self.path} has no cameras {missing}; it has {sorted(there)}")
        gone = {place for key, place in there.items() if key not in keys}
        self._arrays = {place: kind for place, kind in self._arrays.items() if place not in gone}
        return {key: place for key, place in there.items() if key in keys}


def _blocks(
    group: h5py.Group, places: Collection[str], length: int, path: Path
) -> Iterator[tuple[range, dict[str, np.ndarray]]]:
    """Frame numbers and rows by path of blocks of an episode, in order."""
    for start in range(0, length, _BLOCK):
        span = range(start, min(start + _BLOCK, length))
        yield span, {place: read(group, place, start, span.stop, path) for place in places}
