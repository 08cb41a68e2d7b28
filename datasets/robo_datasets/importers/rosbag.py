"""rosbag2 folders (SQLite and MCAP), single .mcap and .db3 files, through the package ``rosbags``; no ROS is needed.

Every bag is an episode, or several where a topic fell silent. Frames stand at a steady rate on the clock of the message
headers; each takes from every topic the message that the mapping says. When the last of them arrived is kept too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from robo_datasets.console import progress_bar
from robo_datasets.errors import ImportSourceError, MissingPartError
from robo_datasets.importers.files import counting_order
from robo_datasets.importers.restored import restored_feature
from robo_datasets.importers.ros_alignment import Aligned, TopicTimes, align, good_runs
from robo_datasets.importers.ros_messages import TopicMapping, decode, header_stamp
from robo_datasets.importers.source import Source, SourceEpisode, SourceFrame
from robo_datasets.jpeg import resize

GAPS = ("error", "split")
_FILES = (".mcap", ".db3")
_NAMES = ["height", "width", "channel"]


@dataclass(frozen=True)
class _Piece:
    """The frames [start, end) of a bag that are an episode."""

    bag: Path
    start: int
    end: int


class RosbagSource(Source):
    """A bag, or a folder of bags; see ``robo_datasets.importers.source.Source``.

    Args:
        path: the bag's folder, a .mcap or .db3 file, or a folder of such.
        mappings: topics to features.
        fps: frames a second.
        size: (height, width) to scale colour pictures to.
        task: the instruction of all episodes.
        gaps: what to do where a topic has no message young enough: "error", or "split" the episode there.
        min_seconds: pieces shorter than this are left out.
        robot: name of the robot.

    Raises:
        ImportSourceError: a bag is damaged, lacks a topic, or falls silent.
        MissingPartError: the package rosbags is not installed.
    """

    format = "rosbag"

    def __init__(
        self,
        path: str | Path,
        mappings: Sequence[TopicMapping],
        fps: float,
        size: tuple[int, int] | None = None,
        task: str = "",
        gaps: str = "error",
        min_seconds: float = 1.0,
        robot: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.fps = float(fps)
        self.robot = robot
        self._mappings = {mapping.feature: mapping for mapping in mappings}
        self._size = size
        self._check_mappings(mappings)
        bags = find_bags(self.path)
        self._aligned: dict[Path, Aligned] = {}
        self.features: dict[str, dict[str, Any]] = {}
        self._pieces: list[_Piece] = []
        self.episodes: list[SourceEpisode] = []
        with progress_bar("read stamps", total=len(bags), unit="bags") as bar:
            for bag in bags:
                self._read_bag(bag, gaps, task, min_seconds)
                bar.advance()
        if not self.episodes:
            raise ImportSourceError(f"{self.path} holds no stretch of {min_seconds:g} s in which every topic speaks")

    def check(self, episode: SourceEpisode) -> None:
        """Nothing is left to check: every message's stamp was read when the source was opened."""

    def frames(self, episode: SourceEpisode) -> Iterator[SourceFrame]:
        """Yield the episode's frames, reading its bag once from beginning to end."""
        piece = self._pieces[episode.number]
        aligned = self._aligned[piece.bag]
        rows = range(piece.start, piece.end)
        last_use = {
            feature: {int(pick): row for row, pick in zip(rows, picks[piece.start : piece.end], strict=True)}
            for feature, picks in aligned.picks.items()
        }
        held: dict[str, dict[int, np.ndarray]] = {feature: {} for feature in self._mappings}
        messages = self._messages(piece.bag, last_use)
        for row in rows:
            wanted = {feature: int(picks[row]) for feature, picks in aligned.picks.items()}
            while any(pick not in held[feature] for feature, pick in wanted.items()):
                found = next(messages, None)
                if found is None:
                    raise ImportSourceError(f"{piece.bag} ends before frame {row}: it changed while it was read")
                held[found[0]][found[1]] = found[2]
            values = {feature: held[feature][pick] for feature, pick in wanted.items()}
            yield SourceFrame(values, aligned.times[row] / 1e9, aligned.received[row] / 1e9)
            for feature, pick in wanted.items():
                if last_use[feature][pick] == row:
                    del held[feature][pick]

    def _messages(self, bag: Path, wanted: Mapping[str, Mapping[int, int]]) -> Iterator[tuple[str, int, np.ndarray]]:
        """Feature, number and decoded value of every message that is wanted, in the order of the bag."""
        counts = dict.fromkeys(self._mappings, -1)
        with _opened(bag) as reader, _guarded(bag):
            by_topic = self._by_topic(reader, bag)
            for connection, _, raw in reader.messages(connections=[c for c, _ in by_topic.values()]):
                for mapping in by_topic[connection.topic][1]:
                    counts[mapping.feature] += 1
                    number = counts[mapping.feature]
                    if number in wanted[mapping.feature]:
                        where = f"{bag}, {mapping.topic}, message {number}"
                        value = self._value(reader, connection, raw, mapping, where)
                        yield mapping.feature, number, value

    def _value(self, reader: Any, connection: Any, raw: bytes, mapping: TopicMapping, where: str) -> np.ndarray:
        try:
            value = decode(reader.deserialize(raw, connection.msgtype), connection.msgtype, mapping)
        except ImportSourceError as error:
            raise ImportSourceError(f"{where}: {error}") from error
        if value.ndim == 3 and value.dtype == np.uint8 and self._size is not None:
            value = resize(value, self._size).reshape(*self._size, value.shape[2])
        feature = self.features.get(mapping.feature)
        if feature is not None and value.shape != tuple(feature["shape"]):
            raise ImportSourceError(f"{where} has the shape {value.shape}, the first has {feature['shape']}")
        return value

    def _read_bag(self, bag: Path, gaps: str, task: str, min_seconds: float) -> None:
        times, firsts = self._read_times(bag)
        if not self.features:
            self.features = {feature: self._feature(feature, value) for feature, value in firsts.items()}
        aligned = align(times, list(self._mappings.values()), self.fps)
        if gaps == "error" and aligned.gaps:
            gap = aligned.gaps[0]
            most = next(mapping.max_age for mapping in self._mappings.values() if mapping.topic == gap.topic)
            raise ImportSourceError(
                f"{bag}: {gap.topic} has no message within {most:g} s of {gap.time / 1e9:.3f} s (it is {gap.age:.3f} s "
                "away); give gaps=split, or a larger max_age"
            )
        least = max(1, round(min_seconds * self.fps))
        self._aligned[bag] = aligned
        for piece, (start, end) in enumerate(good_runs(aligned.good, least)):
            number = len(self._pieces)
            self._pieces.append(_Piece(bag, start, end))
            attributes = {"bag": bag.name, "piece": piece}
            self.episodes.append(SourceEpisode(number, end - start, task, attributes=attributes))

    def _read_times(self, bag: Path) -> tuple[dict[str, TopicTimes], dict[str, np.ndarray]]:
        """Stamps of all messages, and the first value of each feature."""
        stamps: dict[str, list[tuple[int, int]]] = {feature: [] for feature in self._mappings}
        firsts: dict[str, np.ndarray] = {}
        with _opened(bag) as reader, _guarded(bag):
            by_topic = self._by_topic(reader, bag)
            stamped = {topic: _has_header(reader, connection) for topic, (connection, _) in by_topic.items()}
            for connection, received, raw in reader.messages(connections=[c for c, _ in by_topic.values()]):
                stamp = header_stamp(raw) if stamped[connection.topic] else 0
                for mapping in by_topic[connection.topic][1]:
                    # A header of zero means "now": a command that was not stamped.
                    stamps[mapping.feature].append((stamp or received, received))
                    if mapping.feature not in firsts:
                        where = f"{bag}, {mapping.topic}, message 0"
                        firsts[mapping.feature] = self._value(reader, connection, raw, mapping, where)
        silent = [self._mappings[feature].topic for feature, found in stamps.items() if not found]
        if silent:
            raise ImportSourceError(f"{bag} has no messages on {silent}")
        arrays = {feature: np.array(found, np.int64) for feature, found in stamps.items()}
        return {feature: TopicTimes(array[:, 0], array[:, 1]) for feature, array in arrays.items()}, firsts

    def _by_topic(self, reader: Any, bag: Path) -> dict[str, tuple[Any, list[TopicMapping]]]:
        connections = {connection.topic: connection for connection in reader.connections}
        missing = [mapping.topic for mapping in self._mappings.values() if mapping.topic not in connections]
        if missing:
            raise ImportSourceError(f"{bag} has no topics {missing}; it has {sorted(connections)}")
        found: dict[str, tuple[Any, list[TopicMapping]]] = {}
        for mapping in self._mappings.values():
            found.setdefault(mapping.topic, (connections[mapping.topic], []))[1].append(mapping)
        return found

    def _feature(self, feature: str, value: np.ndarray) -> dict[str, Any]:
        names: Any = list(self._mappings[feature].names) or None
        if value.ndim == 3:
            names = _NAMES
        made = {"dtype": value.dtype.name, "shape": value.shape, "names": names}
        return restored_feature(feature, made, None, str(self.path))

    def _check_mappings(self, mappings: Sequence[TopicMapping]) -> None:
        if not mappings:
            raise ImportSourceError("the mapping names no topic")
        if len(self._mappings) != len(mappings):
            raise ImportSourceError(f"a feature is mapped twice: {[mapping.feature for mapping in mappings]}")
        for mapping in mappings:
            mapping.check("the mapping")


def find_bags(path: Path) -> list[Path]:
    """The bags at a path: itself, or those directly below it, in counting order.

    Raises:
        ImportSourceError: there are none.
    """
    if path.is_file() or (path / "metadata.yaml").is_file():
        return [path]
    if not path.is_dir():
        raise ImportSourceError(
            f"there is no bag at {path}; give a rosbag2 folder, a .mcap or .db3 file, or their folder"
        )
    below = sorted(path.iterdir(), key=lambda entry: counting_order(entry.name))
    bags = [entry for entry in below if (entry / "metadata.yaml").is_file()]
    bags += [entry for entry in below if entry.is_file() and entry.suffix in _FILES]
    if not bags:
        raise ImportSourceError(f"{path} holds no rosbag2 folder (with metadata.yaml) and no .mcap or .db3 file")
    return bags


@contextmanager
def _opened(bag: Path) -> Iterator[Any]:
    try:
        from rosbags.highlevel import AnyReader
    except ImportError as error:
        raise MissingPartError("reading bags needs the package rosbags: pip install 'robo-rm[ros]'") from error
    with _guarded(bag):
        reader = AnyReader([bag], default_typestore=_common_types())
        reader.open()
    try:
        yield reader
    finally:
        reader.close()


@cache
def _common_types() -> Any:
    """Definitions for bags of older distributions, which hold none; common messages have not changed since Humble."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_HUMBLE)


@contextmanager
def _guarded(bag: Path) -> Iterator[None]:
    """What the reader raises on a damaged bag, in one form."""
    import apsw
    from rosbags.highlevel.anyreader import AnyReaderError
    from rosbags.rosbag2 import ReaderError
    from rosbags.serde import SerdeError
    from rosbags.typesys import TypesysError

    try:
        yield
    except (AnyReaderError, ReaderError, SerdeError, TypesysError, apsw.Error) as error:
        raise ImportSourceError(f"{bag} is truncated or damaged: {_line(error)}") from error
    except (AssertionError, struct.error, KeyError, IndexError, TypeError, AttributeError, EOFError) as error:
        raise ImportSourceError(f"{bag} is damaged: {type(error).__name__}: {_line(error)}") from error
    except ImportSourceError:
        raise
    except (ValueError, OSError, RuntimeError, MemoryError, OverflowError) as error:
        raise ImportSourceError(f"{bag} is truncated or damaged: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _has_header(reader: Any, connection: Any) -> bool:
    """Whether messages of a connection begin with a header."""
    fields = reader.typestore.fielddefs[connection.msgtype][1]
    return bool(fields) and fields[0][0] == "header"


def _files_of(bag: Path) -> list[Path]:
    return [bag] if bag.is_file() else [entry for entry in bag.iterdir() if entry.is_file()]
