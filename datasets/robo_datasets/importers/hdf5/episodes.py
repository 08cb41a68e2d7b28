"""HDF5 files of one episode each, as ALOHA, ACT and RoboTwin write them; a folder of such is a dataset.

action                                 (T, D); RoboTwin: joint_action/vector
observations/qpos  qvel  effort        (T, D); RoboTwin: observation/..., endpose/...
observations/images/<camera>           (T, H, W, 3), or JPEG, filled up with zeros to one length (compress_len)
observation/<camera>/rgb               RoboTwin: JPEG
language_raw, language_instruction     the instruction, as an array or an attribute of the file
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from robo_core.errors import ImportSourceError
from robo_datasets.importers.content import ContentHash
from robo_datasets.importers.files import counting_order
from robo_datasets.importers.hdf5.arrays import (
    FrameRule,
    Kind,
    add_content,
    blocks,
    check_kind,
    check_numbers,
    dotted,
    frame_rule,
    holds_encoded,
    leaves,
)
from robo_datasets.importers.hdf5.attributes import attributes_of, instruction_in, outcome_in
from robo_datasets.importers.hdf5.files import dataset, is_group, opened
from robo_datasets.importers.images import ImageSettings
from robo_datasets.importers.restored import restored_feature
from robo_datasets.importers.source import Source, SourceEpisode, SourceFrame
from robo_datasets.store.features import FeatureSpec

ENDINGS = (".hdf5", ".h5")
_ACTIONS = ("action", "actions", "joint_action/vector")
_OBSERVATIONS = ("observations", "observation", "obs")
_NAMES = {"qpos": "observation.state", "reward": "next.reward", "rewards": "next.reward", "done": "next.done"}
_WORDS = ("language_raw", "language_instruction", "instruction")
_DEPTH = 6


def episode_files(path: Path) -> list[Path]:
    """The HDF5 files that ``path`` is or holds, in counting order."""
    if path.is_dir():
        found = [file for file in path.iterdir() if file.suffix.lower() in ENDINGS and not file.name.startswith(".")]
        return sorted(found, key=lambda file: counting_order(file.name))
    return [path]


def is_episode_file(path: Path) -> bool:
    """Whether a file holds one episode: an action and observations at its top.

    Raises:
        ImportSourceError: it is missing, truncated, or not HDF5.
    """
    with opened(path) as file:
        return "data" not in file and any(name in file for name in _ACTIONS) and any(n in file for n in _OBSERVATIONS)


class Hdf5EpisodesSource(Source):
    """HDF5 files of one episode each; see ``robo_datasets.importers.source.Source``.

    Args:
        path: the file, or the folder of files.
        cameras: cameras to keep, all by default.
        size: (height, width) to scale frames to.
        fps: frames per second; what the files say by default.
        task: the instruction of all episodes; what the files say by default.
        images: which way up they are, their colours and scale.
        skip: arrays (by path, or feature) to leave out, also such as cannot be read.

    Raises:
        ImportSourceError: a file is missing, truncated, or of another layout.
    """

    format = "hdf5-episodes"
    robot: str | None = None

    def __init__(
        self,
        path: str | Path,
        cameras: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
        task: str = "",
        images: ImageSettings | None = None,
        skip: Collection[str] = (),
    ) -> None:
        self.path = Path(path)
        self._size, self._image_settings, self._skip = size, images or ImageSettings(), set(skip)
        self._files = episode_files(self.path)
        self._encoded: set[str] = set()
        self._skipped: set[str] = set()
        self.notes: list[str] = []
        self.episodes = [self._episode(number, task) for number in range(len(self._files))]
        first = next((episode for episode in self.episodes if not episode.problem), None)
        if first is None:
            raise ImportSourceError(self.episodes[0].problem)
        with opened(self._files[first.number]) as file:
            self._arrays = self._read_arrays(file, first.length)
            self._rules = self._image_rules(file)
            rate = fps or attributes_of(file, self._files[first.number]).get("fps")
        if not isinstance(rate, int | float) or not 0 < rate < 1e6:
            raise ImportSourceError(f"{self.path} does not say how many frames per second it has; give, say, fps=50")
        self.fps = float(rate)
        self._choose(cameras)
        self._keys = {self._feature_of(place): place for place in self._arrays}
        if len(self._keys) < len(self._arrays):
            raise ImportSourceError(f"{self.path}: two arrays would be one feature: {sorted(self._arrays)}; give drop=")
        self.features = {}
        for feature, place in self._keys.items():
            shape, dtype = self._arrays[place]
            entry: FeatureSpec = {"dtype": dtype.newbyteorder("=").name, "shape": shape or (1,), "names": None}
            made = self._rules[place].feature if place in self._rules else entry
            self.features[feature] = restored_feature(feature, made, None, str(self.path))
        if not any(episode.task for episode in self.episodes):
            self.notes.append("the files hold no instruction; task= gives one")

    def check(self, episode: SourceEpisode) -> None:
        """Check that the file has the arrays of the first, with the same shapes and types."""
        path = self._files[episode.number]
        with opened(path) as file:
            for place, kind in self._arrays.items():
                check_kind(dataset(file, place, path), place, episode.length, kind, place in self._encoded, path)

    def frames(self, episode: SourceEpisode) -> Iterator[SourceFrame]:
        """Yield the file's frames."""
        path = self._files[episode.number]
        with opened(path) as file:
            for span, rows in blocks(file, self._arrays, episode.length, path):
                for row, number in enumerate(span):
                    values = {}
                    for feature, place in self._keys.items():
                        cell = rows[place][row]
                        if place in self._rules:
                            values[feature] = self._rules[place](cell, f"{path}: {place}, frame {number}")
                        else:
                            values[feature] = np.asarray(cell).reshape(self.features[feature]["shape"])
                    yield SourceFrame(values, number / self.fps)

    def identify(self, episode: SourceEpisode, content: ContentHash) -> None:
        """Give ``content`` the arrays as they stand."""
        path = self._files[episode.number]
        with opened(path) as file:
            add_content(content, file, self._arrays, self._encoded, self._rules, episode.length, path)

    def files(self, episode: SourceEpisode) -> tuple[Path, ...]:
        """The episode's file."""
        return (self._files[episode.number],)

    def place(self, episode: SourceEpisode) -> str:
        """The whole of its file."""
        return f"{sorted(self._arrays)} {self.fps:g}"

    def known_keys(self) -> Collection[str]:
        """The features, and the arrays that were left out."""
        return {*self.features, *self._skipped}

    def _episode(self, number: int, task: str) -> SourceEpisode:
        path = self._files[number]
        attributes = {"file": path.name}
        try:
            with opened(path) as file:
                length = dataset(file, self._action(file, path), path).shape[0]
                own = attributes_of(file, path)
                said = task or instruction_in(own) or self._words(file, path)
                if length:
                    return SourceEpisode(number, int(length), said, outcome_in(own), attributes)
                problem = f"{path} has no frames"
        except ImportSourceError as error:
            problem = str(error)
        return SourceEpisode(number, 0, task, attributes=attributes, problem=problem)

    def _action(self, file: h5py.File, path: Path) -> str:
        place = next((name for name in _ACTIONS if name in file and not is_group(file, name)), None)
        if place is None:
            raise ImportSourceError(
                f"{path} has no array of actions ({', '.join(_ACTIONS)}); it has {sorted(file)[:8]}"
            )
        return place

    def _words(self, file: h5py.File, path: Path) -> str:
        for name in _WORDS:
            if name in file and not is_group(file, name):
                found = dataset(file, name, path)
                for text in np.ravel(found[()])[:1].tolist() if found.dtype.kind in "OS" else []:
                    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)
        return ""

    def _read_arrays(self, file: h5py.File, length: int) -> dict[str, Kind]:
        found: dict[str, Kind] = {}
        path = Path(file.filename)
        for place in sorted(place for name in file for place in leaves(file, name, _DEPTH - 1, path)):
            if {place, self._feature_of(place)} & self._skip:
                self._skipped |= {place, self._feature_of(place)}
                continue
            if place in _WORDS:
                continue
            array = dataset(file, place, path)
            if array.shape[:1] != (length,):
                self._skipped.add(place)
                if place != "compress_len":
                    self.notes.append(f"{place} is {array.shape}, not one row a frame; left out")
                continue
            if holds_encoded(file, place, path):
                self._encoded.add(place)
            else:
                check_numbers(array, place, path)
            found[place] = (tuple(array.shape[1:]), array.dtype)
        return found

    def _image_rules(self, file: h5py.File) -> dict[str, FrameRule]:
        rules: dict[str, FrameRule] = {}
        for place in self._arrays:
            rule = frame_rule(file, place, place, place in self._encoded, self._image_settings, self._size)
            if rule is not None:
                rules[place] = rule
                self.notes += rule.notes
        return rules

    def _choose(self, cameras: Sequence[str] | None) -> None:
        if cameras is None:
            return
        there = {self._feature_of(place): place for place in self._rules}
        keys = [name if name in there else f"observation.images.{name}" for name in cameras]
        missing = [key for key in keys if key not in there]
        if missing:
            raise ImportSourceError(f"{self.path} has no cameras {missing}; it has {sorted(there)}")
        gone = {place for key, place in there.items() if key not in keys}
        self._arrays = {place: kind for place, kind in self._arrays.items() if place not in gone}

    def _feature_of(self, place: str) -> str:
        if place in _ACTIONS:
            return "action"
        top, _, rest = place.partition("/")
        name = rest if top in _OBSERVATIONS and rest else place
        if place in getattr(self, "_rules", ()):
            name = re.sub(r"\Aimages/|/(?:rgb|color|image)\Z", "", name)
            return f"observation.images.{dotted(name)}"
        if top not in _OBSERVATIONS and "action" in top:
            return f"action.{dotted(place)}"
        return _NAMES.get(name, f"observation.{dotted(name)}")
