"""What an importer is: a dataset that says what it holds and yields its episodes frame by frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from robo_core.arrays import Array
from robo_datasets.importers.content import Content, ContentHash
from robo_datasets.store.features import FeatureSpec
from robo_datasets.store.planar import PlanarFrame


class SourceFrame(NamedTuple):
    """One frame: a value for every feature, and its time stamps in seconds."""

    values: Mapping[str, Array | PlanarFrame]
    timestamp: float
    receive_timestamp: float | None = None


@dataclass(frozen=True)
class SourceEpisode:
    """What is known of an episode before its frames are read."""

    number: int
    """Its number in the source."""
    length: int
    task: str
    success: bool | None = None
    attributes: Mapping[str, object] = field(default_factory=dict)
    segments: Sequence[tuple[str, int, int]] = ()
    """Stage annotation carried by the source: (name, start, end), end exclusive."""
    problem: str = ""
    """Why the episode cannot be read, where that was found when the source was opened: ``skip_bad`` leaves it out,
    otherwise it ends the import before anything is written."""
    exported: str = ""
    """Name of the store's episode that this one was exported from, where robo-rm wrote the source."""


@dataclass(frozen=True)
class EpisodeDetails:
    """What is only known once an episode's rows are read."""

    task: str | None = None
    """The instruction, where it differs from what the episode said; None to keep that."""
    attributes: Mapping[str, object] = field(default_factory=dict)
    """Attributes in addition to the episode's."""
    runs: Mapping[str, Sequence[tuple[int, int, object]]] = field(default_factory=dict)
    """Attributes that hold for some of the frames: (start, end, value), end exclusive. Kept as attributes."""
    notes: Sequence[str] = ()
    """What the user should know of how the episode was read."""


class Source(ABC):
    """A dataset to import. Must be picklable: worker processes read its episodes.

    A format has to give the attributes below, ``check`` and ``frames``. The rest has defaults that are right for every
    format and slow for some: ``identify`` decodes the frames, ``files`` is every file of the source.
    """

    format: str
    """For instance "lerobot-2.1"."""
    path: Path
    """Where it stands."""
    features: Mapping[str, FeatureSpec]
    """In LeRobot's form, as they will stand in the store."""
    fps: float
    """Frames per second."""
    robot: str | None = None
    """Name of the robot, where the source says."""
    episodes: Sequence[SourceEpisode]
    """The episodes in the source's order."""
    notes: Sequence[str] = ()
    """What the user should know of how the source was read, a sentence each: printed, and kept in metrics.json."""
    optional: Collection[str] = ()
    """Features of whole numbers that a store need not have: left out, or filled with zeros, as the store demands."""

    @abstractmethod
    def check(self, episode: SourceEpisode) -> None:
        """Check cheaply (files, lengths, columns) that an episode can be read, before anything is written.

        Raises:
            ImportSourceError: names file and episode.
        """

    @abstractmethod
    def frames(self, episode: SourceEpisode) -> Iterator[SourceFrame]:
        """Yield exactly ``episode.length`` frames, with a value for every key of ``features``; more are left out.

        Raises:
            ImportSourceError: names file and episode.
        """

    def details(self, episode: SourceEpisode) -> EpisodeDetails:
        """What only the episode's rows say: per-frame instructions, columns of text.

        Raises:
            ImportSourceError: names file and episode.
        """
        return EpisodeDetails()

    def instruction(self, episode: SourceEpisode) -> str:
        """The instruction that the episode has in a store, found without its images; empty where there is none.

        Raises:
            ImportSourceError: names file and episode.
        """
        return episode.task

    def numbers(self, episode: SourceEpisode) -> Mapping[str, Array]:
        """Low-dimensional features (T, ...) of an episode that robo-rm exported, found without its images.

        Raises:
            ImportSourceError: names file and episode.
        """
        return {}

    def drop(self, keys: Collection[str]) -> None:
        """Leave features out, also such as cannot be read; keys that are not in ``features`` are ignored."""
        self.features = {key: entry for key, entry in self.features.items() if key not in keys}

    def known_keys(self) -> Collection[str]:
        """Keys that ``drop`` may name: the features, and what the source has besides and leaves out."""
        return self.features.keys()

    def identify(self, episode: SourceEpisode, content: ContentHash) -> None:
        """Give ``content`` the episode's numbers and images, as the source keeps them.

        Raises:
            ImportSourceError: names file and episode.
        """
        for frame in self.frames(episode):
            content.add_times(np.array([frame.timestamp]))
            for key, entry in self.features.items():
                value = np.asarray(frame.values[key])
                if len(entry["shape"]) == 3 and value.dtype in (np.uint8, np.uint16):
                    content.add_image(key, value)
                else:
                    content.add_rows(key, value[None])

    def files(self, episode: SourceEpisode) -> tuple[Path, ...]:
        """Files that the episode stands in: while none of them changes, it need not be read to be known again."""
        if self.path.is_file():
            return (self.path,)
        found: tuple[Path, ...] | None = vars(self).get("_all_files")
        if found is None:
            found = tuple(sorted(path for path in self.path.rglob("*") if path.is_file()))
            self._all_files = found
        return found

    def place(self, episode: SourceEpisode) -> str:
        """Which part of its files an episode is; its number by default."""
        return str(episode.number)


def episode_content(source: Source, episode: SourceEpisode) -> Content:
    """The content of an episode.

    Raises:
        ImportSourceError: it cannot be read; names file and episode.
    """
    content = ContentHash()
    source.identify(episode, content)
    return content.finish()


def source_record(source: Source, episode: SourceEpisode, content: Content) -> dict[str, object]:
    """The ``source`` attribute of an imported episode: where it came from, and what it is known by."""
    path = source.path.resolve()
    return {
        "format": source.format,
        "name": path.name,
        "path": str(path),
        "episode": episode.number,
        "content": content.to_json(),
    }
