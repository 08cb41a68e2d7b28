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
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from robo_core.errors import ImportSourceError
from robo_datasets.importers.files import counting_order
from robo_datasets.importers.hdf5.attributes import attributes_of, instruction_in, outcome_in
from robo_datasets.importers.hdf5.files import dataset, is_group, opened
from robo_datasets.importers.hdf5.source import Hdf5Source, Kind, dotted, leaves, low_dim
from robo_datasets.importers.images import ImageSettings
from robo_datasets.importers.restored import restored_feature
from robo_datasets.importers.source import SourceEpisode

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


class Hdf5EpisodesSource(Hdf5Source):
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
        super().__init__(path, size, images, skip)
        self._files = episode_files(self.path)
        self.episodes = [self._episode(number, task) for number in range(len(self._files))]
        first = next((episode for episode in self.episodes if not episode.problem), None)
        if first is None:
            raise ImportSourceError(self.episodes[0].problem)
        with self._opened(first) as (file, path):
            self._arrays = self._read_arrays(file, first.length, path)
            self._rules = self._read_rules(file, path, {place: place for place in self._arrays})
            rate = fps or attributes_of(file, path).get("fps")
        if not isinstance(rate, int | float) or not 0 < rate < 1e6:
            raise ImportSourceError(f"{self.path} does not say how many frames per second it has; give, say, fps=50")
        self.fps = float(rate)
        if cameras is not None:
            there = {self._feature_of(place): place for place in self._rules}
            self._keep_cameras(there, [name if name in there else f"observation.images.{name}" for name in cameras])
        keys = {self._feature_of(place): place for place in self._arrays}
        if len(keys) < len(self._arrays):
            raise ImportSourceError(f"{self.path}: two arrays would be one feature: {sorted(self._arrays)}; give drop=")
        self._images = {feature: place for feature, place in keys.items() if place in self._rules}
        self._rows = {feature: place for feature, place in keys.items() if place not in self._rules}
        self.features = {}
        for feature, place in keys.items():
            made = self._rules[place].feature if place in self._rules else low_dim(self._arrays[place])
            self.features[feature] = restored_feature(feature, made, None, str(self.path))
        if not any(episode.task for episode in self.episodes):
            self.notes.append("the files hold no instruction; task= gives one")

    @contextmanager
    def _opened(self, episode: SourceEpisode) -> Iterator[tuple[h5py.Group, Path]]:
        path = self._files[episode.number]
        with opened(path) as file:
            yield file, path

    def files(self, episode: SourceEpisode) -> tuple[Path, ...]:
        """The episode's file."""
        return (self._files[episode.number],)

    def place(self, episode: SourceEpisode) -> str:
        """The whole of its file."""
        return f"{sorted(self._arrays)} {self.fps:g}"

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

    def _read_arrays(self, file: h5py.Group, length: int, path: Path) -> dict[str, Kind]:
        found: dict[str, Kind] = {}
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
            found[place] = self._kind(file, place, path)
        return found

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
