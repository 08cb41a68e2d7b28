"""rosbag2 folders (SQLite and MCAP), single .mcap and .db3 files, through the package ``rosbags``; no ROS is needed.

Every bag is an episode, or several where a topic fell silent. Frames stand at a steady rate on the clock of the message
headers; each takes from every topic the message that the mapping says. When the last of them arrived is kept too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from robo_core.console import progress_bar
from robo_core.errors import ImportSourceError
from robo_datasets.importers.content import ContentHash
from robo_datasets.importers.restored import restored_feature
from robo_datasets.importers.rosbag.alignment import Aligned, TopicTimes, align, good_runs
from robo_datasets.importers.rosbag.bags import CLOCK, OpenBag, files_of, find_bags, guarded, opened, storage_of
from robo_datasets.importers.rosbag.clock import CLOCKS, RawTimes, settle_clock
from robo_datasets.importers.rosbag.messages import TopicMapping, decode, header_stamp, is_depth, joints_of
from robo_datasets.importers.source import Source, SourceEpisode, SourceFrame
from robo_datasets.store.depth import depth_record
from robo_datasets.store.features import FeatureSpec
from robo_datasets.store.jpeg import resize

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

GAPS = ("error", "split")
_NAMES = ["height", "width", "channel"]


@dataclass(frozen=True)
class _Part:
    """What one group of messages of a topic gives of a feature: all of it, or the joints that one publisher names."""

    mapping: TopicMapping
    """Of these joints alone; its feature names the part."""
    feature: str
    columns: tuple[int, ...] | None
    """Places in the feature; None for all of it."""
    numbers: np.ndarray
    """The messages of the topic that hold it, (n,) in order of arrival."""


@dataclass(frozen=True)
class _Bag:
    parts: dict[str, _Part]
    aligned: Aligned


@dataclass
class _Seen:
    """What one reading of a bag's stamps brought, for one feature."""

    topic: str
    times: list[tuple[int, int]]
    """Stamp (0: none) and arrival of every message."""
    joints: list[tuple[str, ...]]
    """The joints of every message, for messages that name them."""
    first: np.ndarray | None = None


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
        fps: frames per second.
        size: (height, width) to scale colour images to.
        task: the instruction of all episodes.
        gaps: what to do where a topic has no message young enough: "error", or "split" the episode there.
        min_seconds: pieces shorter than this are left out.
        robot: name of the robot.
        clock: "auto", "header" or "arrival"; see ``robo_datasets.importers.rosbag.clock``.
        definitions: folder of .msg files for types that the bags do not define.

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
        clock: str = "auto",
        definitions: Path | None = None,
    ) -> None:
        self.path = Path(path)
        self.fps = float(fps)
        self.robot = robot
        self._mappings = {mapping.feature: mapping for mapping in mappings}
        self._size = size
        self._clock, self._definitions = clock, definitions
        self._check_mappings(mappings)
        bags = find_bags(self.path)
        self.notes: list[str] = []
        self._bags: dict[Path, _Bag] = {}
        self.features: dict[str, FeatureSpec] = {}
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
        parts, aligned = self._bags[piece.bag].parts, self._bags[piece.bag].aligned
        rows = range(piece.start, piece.end)
        picks = {name: part.numbers[aligned.picks[name]] for name, part in parts.items()}
        last_use = {
            name: {int(pick): row for row, pick in zip(rows, found[piece.start : piece.end], strict=True)}
            for name, found in picks.items()
        }
        held: dict[str, dict[int, np.ndarray]] = {name: {} for name in parts}
        messages = self._messages(piece.bag, parts, last_use)
        for row in rows:
            wanted = {name: int(found[row]) for name, found in picks.items()}
            while any(pick not in held[name] for name, pick in wanted.items()):
                found_message = next(messages, None)
                if found_message is None:
                    raise ImportSourceError(f"{piece.bag} ends before frame {row}: it changed while it was read")
                held[found_message[0]][found_message[1]] = found_message[2]
            values = self._assemble(parts, {name: held[name][pick] for name, pick in wanted.items()})
            yield SourceFrame(values, aligned.times[row] / 1e9, aligned.received[row] / 1e9)
            for name, pick in wanted.items():
                if last_use[name][pick] == row:
                    del held[name][pick]

    def identify(self, episode: SourceEpisode, content: ContentHash) -> None:
        """Give ``content`` the messages that the frames are made of, as recorded, and the frames' times.

        Compression, chunks and file names do not count; bags of another storage are other recordings.
        """
        piece = self._pieces[episode.number]
        parts, aligned = self._bags[piece.bag].parts, self._bags[piece.bag].aligned
        content.add_times((aligned.times[piece.start : piece.end] - aligned.times[piece.start]) / 1e9)
        content.add_image("\0storage", storage_of(piece.bag).encode())
        used: dict[str, set[int]] = {}
        for name, part in parts.items():
            picks = part.numbers[aligned.picks[name][piece.start : piece.end]]
            content.add_rows(f"{name}\0messages", picks - picks[0])
            used.setdefault(part.mapping.topic, set()).update(picks.tolist())
        counts = dict.fromkeys(used, -1)
        with opened(piece.bag, list(self._mappings.values()), self._definitions) as there, guarded(piece.bag):
            for connection, _, raw in there.messages():
                counts[connection.topic] += 1
                if counts[connection.topic] in used[connection.topic]:
                    content.add_image(connection.topic, bytes(raw))

    def files(self, episode: SourceEpisode) -> tuple[Path, ...]:
        """The files of the episode's bag."""
        return tuple(files_of(self._pieces[episode.number].bag))

    def place(self, episode: SourceEpisode) -> str:
        """Which frames of the bag, at which rate and of which topics."""
        piece = self._pieces[episode.number]
        return f"{piece.start}-{piece.end} {self.fps:g} {self._clock} {sorted(self._mappings.values(), key=str)}"

    def _assemble(self, parts: Mapping[str, _Part], found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values: dict[str, np.ndarray] = {}
        for name, part in parts.items():
            if part.columns is None:
                values[part.feature] = found[name]
                continue
            feature = self.features[part.feature]
            whole = values.setdefault(part.feature, np.empty(feature["shape"], feature["dtype"]))
            whole[list(part.columns)] = found[name]
        return values

    def _messages(
        self, bag: Path, parts: Mapping[str, _Part], wanted: Mapping[str, Mapping[int, int]]
    ) -> Iterator[tuple[str, int, np.ndarray]]:
        """Part, number and decoded value of every message that is wanted, in the order of the bag."""
        by_topic: dict[str, list[str]] = {}
        for name, part in parts.items():
            by_topic.setdefault(part.mapping.topic, []).append(name)
        counts = dict.fromkeys(by_topic, -1)
        with opened(bag, list(self._mappings.values()), self._definitions) as there, guarded(bag):
            for connection, _, raw in there.messages():
                counts[connection.topic] += 1
                number = counts[connection.topic]
                for name in by_topic.get(connection.topic, ()):
                    if number in wanted[name]:
                        where = f"{bag}, {connection.topic}, message {number}"
                        yield name, number, self._value(there, connection, raw, parts[name], where)

    def _value(self, there: OpenBag, connection: Connection, raw: bytes, part: _Part, where: str) -> np.ndarray:
        try:
            value = decode(there.decode(connection, raw), connection.msgtype, part.mapping)
        except ImportSourceError as error:
            raise ImportSourceError(f"{where}: {error}") from error
        if value.ndim == 3 and value.dtype == np.uint8 and self._size is not None:
            value = resize(value, self._size).reshape(*self._size, value.shape[2])
        feature = self.features.get(part.feature)
        if feature is not None and part.columns is None and value.shape != tuple(feature["shape"]):
            raise ImportSourceError(f"{where} has the shape {value.shape}, the first has {feature['shape']}")
        return value

    def _read_bag(self, bag: Path, gaps: str, task: str, min_seconds: float) -> None:
        seen, simulated, said = self._read_times(bag)
        raw = {feature: RawTimes(found.topic, *np.array(found.times, np.int64).T) for feature, found in seen.items()}
        times, assumed = settle_clock(raw, self._clock, simulated, str(bag))
        parts: dict[str, _Part] = {}
        for feature, found in seen.items():
            parts |= self._parts(bag, feature, found)
        self.notes += [f"{bag}: {line}" for line in (*said, *assumed)]
        part_times = {
            name: TopicTimes(times[part.feature].stamps[part.numbers], times[part.feature].received[part.numbers])
            for name, part in parts.items()
        }
        aligned = align(part_times, [part.mapping for part in parts.values()], self.fps)
        if gaps == "error" and aligned.gaps:
            gap = aligned.gaps[0]
            most = next(mapping.max_age for mapping in self._mappings.values() if mapping.topic == gap.topic)
            raise ImportSourceError(
                f"{bag}: {gap.topic} has no message within {most:g} s of {gap.time / 1e9:.3f} s (it is {gap.age:.3f} s "
                "away); give gaps=split, or a larger max_age"
            )
        least = max(1, round(min_seconds * self.fps))
        self._bags[bag] = _Bag(parts, aligned)
        for piece, (start, end) in enumerate(good_runs(aligned.good, least)):
            number = len(self._pieces)
            self._pieces.append(_Piece(bag, start, end))
            attributes: dict[str, object] = {"bag": bag.name, "piece": piece}
            if said or assumed:
                attributes["assumed"] = [*said, *assumed]
            self.episodes.append(SourceEpisode(number, end - start, task, attributes=attributes))

    def _read_times(self, bag: Path) -> tuple[dict[str, _Seen], RawTimes | None, list[str]]:
        """Stamps of all messages, the joints that they name, the first value of each feature, and /clock."""
        seen = {feature: _Seen(mapping.topic, [], []) for feature, mapping in self._mappings.items()}
        with opened(bag, list(self._mappings.values()), self._definitions) as there, guarded(bag):
            stamped = {topic: there.has_header(found[0]) for topic, found in there.by_topic.items()}
            by_topic: dict[str, list[TopicMapping]] = {}
            for mapping in self._mappings.values():
                by_topic.setdefault(mapping.topic, []).append(mapping)
            for connection, received, raw in there.messages():
                stamp = header_stamp(raw) if stamped[connection.topic] else 0
                for mapping in by_topic[connection.topic]:
                    self._note(there, connection, raw, mapping, seen[mapping.feature])
                    seen[mapping.feature].times.append((stamp, received))
            simulated = _read_clock(there)
            said = list(there.assumptions)
        silent = [found.topic for found in seen.values() if not found.times]
        if silent:
            raise ImportSourceError(f"{bag} has no messages on {silent}")
        return seen, simulated, said

    def _note(self, there: OpenBag, connection: Connection, raw: bytes, mapping: TopicMapping, seen: _Seen) -> None:
        """Take down the joints of a message that names them, or the first value of any other."""
        where = f"{there.path}, {mapping.topic}, message {len(seen.times)}"
        if seen.first is None or seen.joints:
            try:
                message = there.decode(connection, raw)
                joints = joints_of(message, connection.msgtype, mapping)
            except ImportSourceError as error:
                raise ImportSourceError(f"{where}: {error}") from error
            if joints is not None:
                seen.joints.append(joints)
                return
            seen.first = self._value(there, connection, raw, _Part(mapping, mapping.feature, None, _NONE), where)
            if getattr(message, "encoding", "") == "8UC3":
                self.notes.append(f"{mapping.topic} is 8UC3, which does not say the order of its colours: taken as RGB")
            if mapping.feature not in self.features:
                depth = is_depth(message, connection.msgtype)
                self.features[mapping.feature] = self._feature(mapping.feature, seen.first, depth)

    def _parts(self, bag: Path, feature: str, seen: _Seen) -> dict[str, _Part]:
        """The groups of messages that together give a feature: one for each set of joints that come together."""
        mapping = self._mappings[feature]
        everything = np.arange(len(seen.times))
        if not seen.joints:
            return {feature: _Part(mapping, feature, None, everything)}
        known = self.features.get(feature)
        named = list(dict.fromkeys(joint for joints in seen.joints for joint in joints))
        wanted = list(mapping.names) or (list(cast(list[str], known["names"])) if known else named)
        missing = [joint for joint in wanted if joint not in named]
        if missing or not wanted:
            raise ImportSourceError(f"{bag}, {mapping.topic}: no message has the joints {missing}; they have {named}")
        if known is None:
            made: FeatureSpec = {"dtype": mapping.dtype, "shape": (len(wanted),), "names": wanted}
            self.features[feature] = restored_feature(feature, made, None, str(self.path))
        sets = {joints: frozenset(joints) for joints in set(seen.joints)}
        groups: dict[frozenset[tuple[str, ...]], list[int]] = {}
        for column, joint in enumerate(wanted):
            groups.setdefault(frozenset(j for j, members in sets.items() if joint in members), []).append(column)
        parts = {}
        for number, (holders, columns) in enumerate(groups.items()):
            numbers = np.flatnonzero([joints in holders for joints in seen.joints])
            name = feature if len(groups) == 1 else f"{feature}/{number}"
            own = replace(mapping, feature=name, names=tuple(wanted[column] for column in columns))
            parts[name] = _Part(own, feature, tuple(columns), numbers)
        return parts

    def _feature(self, feature: str, value: np.ndarray, depth: bool) -> FeatureSpec:
        names: object = list(self._mappings[feature].names) or None
        if value.ndim == 3:
            names = _NAMES
        made: FeatureSpec = {"dtype": value.dtype.name, "shape": value.shape, "names": names}
        if depth:
            made["depth"] = depth_record()
        return restored_feature(feature, made, None, str(self.path))

    def _check_mappings(self, mappings: Sequence[TopicMapping]) -> None:
        if not mappings:
            raise ImportSourceError("the mapping names no topic")
        if len(self._mappings) != len(mappings):
            raise ImportSourceError(f"a feature is mapped twice: {[mapping.feature for mapping in mappings]}")
        if self._clock not in CLOCKS:
            raise ImportSourceError(f"clock={self._clock} is not one of: {', '.join(CLOCKS)}")
        for mapping in mappings:
            mapping.check("the mapping")


_NONE = np.zeros(0, np.int64)


def _read_clock(there: OpenBag) -> RawTimes | None:
    """The messages of /clock; None where the bag has none."""
    found = [connection for connection in there.reader.connections if connection.topic == CLOCK]
    if not found:
        return None
    pairs = [(header_stamp(raw), received) for _, received, raw in there.reader.messages(connections=found)]
    return RawTimes(CLOCK, *np.array(pairs, np.int64).T) if pairs else None
