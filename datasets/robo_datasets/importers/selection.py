"""Which part of a source to import, and under which names: the settings that every format has.

``SelectedSource`` stands in front of any source. Episodes are chosen by their numbers in the source, features left out
and renamed by key, and frames picked for another rate; what an episode is known by is the source's own, so that a
choice of episodes or another rate never makes a demonstration into a second one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from robo_core.errors import ConfigError, ImportSourceError
from robo_datasets.importers.content import ContentHash
from robo_datasets.importers.source import EpisodeDetails, Source, SourceEpisode, SourceFrame
from robo_datasets.store.features import OWN_ARRAYS, FeatureSpec

_RANGE = re.compile(r"\s*([0-9]+)\s*(?:([-:])\s*([0-9]+)\s*)?\Z")

_FOREIGN = re.compile(r"[^A-Za-z0-9_.\-]")


@dataclass(frozen=True)
class Selection:
    """What to take of a source."""

    episodes: Sequence[range] | None = None
    """Episode numbers of the source; all of them by default."""
    drop: Sequence[str] = ()
    """Features to leave out."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """Feature key in the source to key in the store."""
    fps: float | None = None
    """Frames per second to pick; the source's own by default."""

    @property
    def changes_nothing(self) -> bool:
        """Whether the source is taken as it is."""
        return self.episodes is None and not self.drop and not self.rename and self.fps is None


def parse_episodes(value: object) -> list[range] | None:
    """Episode numbers as the user gives them: ``[0,3,10-19]`` or ``"0:20"``; None for all of them.

    ``10-19`` includes its end, ``10:20`` does not.

    Raises:
        ConfigError: names what is not a number or range.
    """
    if value is None or value == "":
        return None
    parts: list[object] = []
    for item in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
        parts += str(item).split(",") if not isinstance(item, bool) else [item]
    ranges = []
    for part in parts:
        match = _RANGE.match(part) if isinstance(part, str) else None
        if match is None:
            raise ConfigError(f"episodes={value}: {part!r} is not a number or a range such as 10-19")
        first, kind, last = match.groups()
        end = int(first) + 1 if kind is None else int(last) + (kind == "-")
        if end <= int(first):
            raise ConfigError(f"episodes={value}: the range {part} is empty")
        ranges.append(range(int(first), end))
    if not ranges:
        raise ConfigError("episodes=[] leaves nothing to import")
    return ranges


def parse_rename(value: object) -> dict[str, str]:
    """Feature key to new key, as the user gives them: ``{observation.image: observation.images.front}``.

    Raises:
        ConfigError: it is of another form.
    """
    if value is None or value == "":
        return {}
    pairs = dict(value) if isinstance(value, Mapping) else {}
    if not pairs or not all(isinstance(text, str) and text for pair in pairs.items() for text in pair):
        raise ConfigError(f"rename={value} must name keys and new keys, for example rename={{image: camera.front}}")
    return pairs


def storable_keys(keys: Collection[str]) -> dict[str, str]:
    """New keys for those that no store can have: ``observation/state`` becomes ``observation.state``.

    Slashes become points and other characters underscores; a name that stores keep for themselves (``stage``) gets
    ``source.`` in front. Keys that would fall together are left as they are, to be refused.
    """
    found: dict[str, str] = {}
    for key in keys:
        new = _FOREIGN.sub("_", key.replace("/", ".")).lstrip(".-") or "feature"
        new = f"source.{new}" if new in OWN_ARRAYS else new
        if new != key and new not in keys and new not in found.values():
            found[key] = new
    return found


class SelectedSource(Source):
    """Part of another source; see ``Selection``.

    Args:
        source: the whole; features that are dropped are dropped from it for good.
        selection: what to take of it.
        zeros: features of whole numbers that the source does not have, to be filled with zeros.

    Raises:
        ConfigError: the selection names an episode or a feature that the source does not have.
    """

    def __init__(self, source: Source, selection: Selection, zeros: Mapping[str, FeatureSpec] | None = None) -> None:
        self._source, self._zeros = source, dict(zeros or {})
        self.format, self.path, self.robot = source.format, source.path, source.robot
        known = source.known_keys()
        for name in selection.drop:
            if name not in known:
                raise ConfigError(f"drop: {source.path} has no feature {name!r}; it has {sorted(known)}")
        source.drop([*selection.drop])
        self._made = {
            key: name for key, name in storable_keys(list(source.features)).items() if key not in selection.rename
        }
        self._rename = {**self._made, **selection.rename}
        self.optional = source.optional
        self.features = {**self._named(source.features), **self._zeros}
        self.fps = source.fps if selection.fps is None else float(selection.fps)
        if not 0 < self.fps < 1e6:
            raise ConfigError(f"resample_fps={selection.fps} is not a positive number of frames per second")
        self._step = source.fps / self.fps
        self._whole = {episode.number: episode for episode in source.episodes}
        chosen = _chosen(self._whole, selection.episodes, source.path)
        self.episodes = [self._shortened(episode) for episode in source.episodes if episode.number in chosen]

    @property
    def notes(self) -> Sequence[str]:  # type: ignore[override]
        """The source's own, features that got other keys, and what a rate above the source's means."""
        more = tuple(f"{key} is stored as {name}" for key, name in self._made.items())
        if self._step < 1:
            more += (
                f"{self._source.fps:g} frames per second are repeated to make {self.fps:g}: "
                f"about {1 / self._step:.3g} frames of the store are one of the source",
            )
        return (*self._source.notes, *more)

    def picks(self, length: int) -> np.ndarray:
        """Frames of the source, (n,) int, that an episode of ``length`` frames is made of: the nearest at each time."""
        if self._step == 1:
            return np.arange(length)
        count = int(np.floor((length - 1) / self._step + 1e-6)) + 1
        return np.minimum(np.round(np.arange(count) * self._step).astype(np.int64), length - 1)

    def picked_labels(self, labels: Mapping[int, np.ndarray] | None) -> dict[int, np.ndarray] | None:
        """Per-frame labels of the source's episodes, as labels of the frames that are picked."""
        if labels is None:
            return None
        return {number: rows[self.picks(len(rows))] for number, rows in labels.items()}

    def check(self, episode: SourceEpisode) -> None:
        """As the source."""
        self._source.check(self._whole[episode.number])

    def frames(self, episode: SourceEpisode) -> Iterator[SourceFrame]:
        """The frames that are picked, with their own time stamps and the features that are kept."""
        whole = self._whole[episode.number]
        picks = self.picks(whole.length)
        wanted = [(key, self._rename.get(key, key)) for key in self._source.features]
        zeros = {key: np.zeros(tuple(entry["shape"]), entry["dtype"]) for key, entry in self._zeros.items()}
        position, count = 0, -1
        # Read to the end even where the last frames are not picked: a source may find its faults there.
        for count, frame in enumerate(self._source.frames(whole)):
            while position < len(picks) and picks[position] == count:
                yield frame._replace(values={name: frame.values[key] for key, name in wanted} | zeros)
                position += 1
        if count + 1 != whole.length:
            raise ImportSourceError(
                f"{self.path}: episode {whole.number} has {count + 1} frames, {whole.length} are declared"
            )

    def details(self, episode: SourceEpisode) -> EpisodeDetails:
        """As the source, with runs of frames in numbers of the frames that are picked."""
        whole = self._whole[episode.number]
        details = self._source.details(whole)
        picks = self.picks(whole.length)
        return replace(details, runs={key: _picked_runs(runs, picks) for key, runs in details.runs.items()})

    def instruction(self, episode: SourceEpisode) -> str:
        """As the source."""
        return self._source.instruction(self._whole[episode.number])

    def numbers(self, episode: SourceEpisode) -> Mapping[str, np.ndarray]:
        """As the source, under the keys of the store."""
        found = self._source.numbers(self._whole[episode.number])
        return {self._rename.get(key, key): rows for key, rows in found.items()}

    def known_keys(self) -> Collection[str]:
        """As the source."""
        return self._source.known_keys()

    def drop(self, keys: Collection[str]) -> None:
        """As the source; keys are those of the store."""
        back = {name: key for key, name in self._rename.items()}
        gone = [back.get(key, key) for key in keys]
        self._source.drop(gone)
        self._rename = {key: name for key, name in self._rename.items() if key not in gone}
        self.features = {**self._named(self._source.features), **self._zeros}

    def identify(self, episode: SourceEpisode, content: ContentHash) -> None:
        """As the source, whatever is picked and however it is named."""
        self._source.identify(self._whole[episode.number], content)

    def files(self, episode: SourceEpisode) -> tuple[Path, ...]:
        """As the source."""
        return self._source.files(self._whole[episode.number])

    def place(self, episode: SourceEpisode) -> str:
        """As the source."""
        return self._source.place(self._whole[episode.number])

    def _shortened(self, episode: SourceEpisode) -> SourceEpisode:
        return replace(episode, length=len(self.picks(episode.length)))

    def _named(self, features: Mapping[str, FeatureSpec]) -> dict[str, FeatureSpec]:
        unknown = [key for key in self._rename if key not in features]
        if unknown:
            raise ConfigError(f"rename: {self.path} has no feature {unknown[0]!r}; it has {sorted(features)}")
        named: dict[str, FeatureSpec] = {}
        for key, entry in features.items():
            name = self._rename.get(key, key)
            if name in named:
                raise ConfigError(f"rename: two features of {self.path} would be {name!r}")
            named[name] = entry
        return named


def _chosen(whole: Mapping[int, SourceEpisode], wanted: Sequence[range] | None, path: Path) -> set[int]:
    if wanted is None:
        return set(whole)
    for numbers in wanted:
        missing = next((number for number in numbers if number not in whole), None)
        if missing is not None:
            have = f"{len(whole)} episodes, {min(whole)} to {max(whole)}" if whole else "none"
            raise ConfigError(f"episodes: {path} has no episode {missing}; it has {have}")
    return {number for numbers in wanted for number in numbers}


def _picked_runs(runs: Sequence[tuple[int, int, object]], picks: np.ndarray) -> list[tuple[int, int, object]]:
    """Runs of the source's frames as runs of those picked; a run between two picks is left out."""
    moved = ((*np.searchsorted(picks, (start, end)).tolist(), value) for start, end, value in runs)
    return [(start, end, value) for start, end, value in moved if end > start]
