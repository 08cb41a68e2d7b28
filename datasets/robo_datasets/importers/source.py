"""What an importer is: a data set that says what it holds and yields its episodes frame by frame."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

# Namespace of episode names that follow from their source, so that importing again finds what is there.
_NAMESPACE = uuid.UUID("8b4f1d0e-6f0c-5b1e-9d3e-2f6a0c7b5a11")


class SourceFrame(NamedTuple):
    """One frame: a value for every feature, and its time stamps in seconds."""

    values: dict[str, np.ndarray]
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
    attributes: Mapping[str, Any] = field(default_factory=dict)
    segments: Sequence[tuple[str, int, int]] = ()
    """Stage annotation carried by the source: (name, start, end), end exclusive."""


class Source(Protocol):
    """A data set to import. Must be picklable: worker processes read its episodes."""

    @property
    def format(self) -> str:
        """For instance "lerobot-2.1"."""

    @property
    def path(self) -> Path:
        """Where it stands."""

    @property
    def features(self) -> Mapping[str, Mapping[str, Any]]:
        """In LeRobot's form, as they will stand in the store."""

    @property
    def fps(self) -> float:
        """Frames a second."""

    @property
    def robot(self) -> str | None:
        """Name of the robot, where the source says."""

    @property
    def fingerprint(self) -> str:
        """Follows from the content alone; the same data set elsewhere has the same."""

    @property
    def episodes(self) -> Sequence[SourceEpisode]:
        """The episodes in the source's order."""

    def check(self, episode: SourceEpisode) -> None:
        """Check cheaply (files, lengths, columns) that an episode can be read, before anything is written.

        Raises:
            ImportSourceError: names file and episode.
        """

    def frames(self, episode: SourceEpisode) -> Iterator[SourceFrame]:
        """Yield exactly ``episode.length`` frames.

        Raises:
            ImportSourceError: names file and episode.
        """


def episode_uuid(source: Source, episode: SourceEpisode) -> str:
    """The name that an episode of this source always has."""
    return str(uuid.uuid5(_NAMESPACE, f"{source.fingerprint}/{episode.number}"))


def source_record(source: Source, episode: SourceEpisode) -> dict[str, Any]:
    """The ``source`` attribute of an imported episode."""
    return {
        "format": source.format,
        "name": source.path.resolve().name,
        "episode": episode.number,
        "fingerprint": source.fingerprint,
    }
