"""Bags on the disk: which there are, their topics by channel, and what their messages are made of."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from robo_core.errors import ImportSourceError, MissingPartError
from robo_datasets.importers.files import counting_order
from robo_datasets.importers.rosbag.messages import TopicMapping

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection
    from rosbags.interfaces.typing import Typesdict
    from rosbags.typesys.store import Typestore

CLOCK = "/clock"
_FILES = (".mcap", ".db3")
_ROS1 = ".bag"
_NAMED = 2
"""Kind of a field that holds another message; 1 is a plain value, 3 and 4 are arrays of either."""


@dataclass(frozen=True)
class OpenBag:
    """A bag that is open: its connections by topic and the types that decode their messages."""

    path: Path
    reader: AnyReader
    types: Typestore
    by_topic: dict[str, list[Connection]]
    """Topic to the connections that are read of it; MCAP allows several."""
    assumptions: tuple[str, ...] = ()

    def messages(self) -> Iterator[tuple[Connection, int, bytes]]:
        """Connection, time of arrival (ns) and bytes of every message of the wanted topics, in order of arrival."""
        wanted = [connection for connections in self.by_topic.values() for connection in connections]
        yield from self.reader.messages(connections=wanted)

    def decode(self, connection: Connection, raw: bytes) -> object:
        """The message as an object.

        Raises:
            ImportSourceError: its bytes do not fit the definition of its type.
        """
        from rosbags.serde import SerdeError

        try:
            return self.types.deserialize_cdr(raw, connection.msgtype)
        except (SerdeError, AssertionError, struct.error, IndexError, ValueError) as error:
            detail = " ".join(str(error).split())[:200]
            raise ImportSourceError(
                f"the message is damaged: its {len(raw)} bytes do not fit the definition of {connection.msgtype}"
                + (f" ({detail})" if detail else "")
            ) from error

    def has_header(self, connection: Connection) -> bool:
        """Whether messages of a connection begin with a header."""
        fields = self.types.fielddefs[connection.msgtype][1]
        return bool(fields) and fields[0][0] == "header"


def find_bags(path: Path) -> list[Path]:
    """The bags at a path: itself, or those directly below it, in counting order.

    Raises:
        ImportSourceError: there are none, or they are of ROS 1.
    """
    if path.is_file() and path.suffix == _ROS1:
        raise ImportSourceError(f"{path} is a bag of ROS 1; convert it first: rosbags-convert --src {path.name}")
    if path.is_file() or (path / "metadata.yaml").is_file():
        return [path]
    if not path.is_dir():
        raise ImportSourceError(
            f"there is no bag at {path}; give a rosbag2 folder, a .mcap or .db3 file, or their folder"
        )
    below = sorted(path.iterdir(), key=lambda entry: counting_order(entry.name))
    bags = [entry for entry in below if (entry / "metadata.yaml").is_file()]
    bags += [entry for entry in below if entry.is_file() and entry.suffix in _FILES]
    if not bags and any(entry.suffix == _ROS1 for entry in below):
        raise ImportSourceError(f"{path} holds bags of ROS 1; convert them first with rosbags-convert")
    if not bags:
        raise ImportSourceError(f"{path} holds no rosbag2 folder (with metadata.yaml) and no .mcap or .db3 file")
    return bags


def files_of(bag: Path) -> list[Path]:
    """The files that a bag is made of."""
    return [bag] if bag.is_file() else sorted(entry for entry in bag.iterdir() if entry.is_file())


def storage_of(bag: Path) -> str:
    """ "mcap" or "sqlite3", however the files are compressed."""
    return "mcap" if any(".mcap" in file.suffixes for file in files_of(bag)) else "sqlite3"


@contextmanager
def opened(bag: Path, mappings: Sequence[TopicMapping], definitions: Path | None = None) -> Iterator[OpenBag]:
    """Open a bag for the topics of ``mappings``.

    Args:
        bag: the bag.
        mappings: what is read of it.
        definitions: folder with PACKAGE/msg/NAME.msg files, for types that the bag does not define.

    Raises:
        ImportSourceError: it is damaged, lacks a topic, has one topic in two types, or does not define a type.
        MissingPartError: the package rosbags is not installed.
    """
    try:
        from rosbags.highlevel import AnyReader
    except ImportError as error:
        raise MissingPartError("reading bags needs the package rosbags: pip install 'robo-rm[ros]'") from error
    with guarded(bag):
        reader = AnyReader([bag], default_typestore=_common_types())
        reader.open()
    try:
        with guarded(bag):
            by_topic, said = _choose(reader, bag, mappings)
            types = _typestore(reader, bag, by_topic, definitions)
        yield OpenBag(bag, reader, types, by_topic, tuple(said))
    finally:
        reader.close()


@contextmanager
def guarded(bag: Path) -> Iterator[None]:
    """What the reader raises on a damaged bag, in one form."""
    import apsw
    from rosbags.highlevel.anyreader import AnyReaderError
    from rosbags.rosbag2 import ReaderError
    from rosbags.serde import SerdeError
    from rosbags.typesys import TypesysError

    try:
        yield
    except (AnyReaderError, ReaderError, SerdeError, TypesysError, apsw.Error) as error:
        raise ImportSourceError(_describe(bag, _line(error))) from error
    except (AssertionError, struct.error, KeyError, IndexError, TypeError, AttributeError, EOFError) as error:
        raise ImportSourceError(f"{bag} is damaged: {type(error).__name__}: {_line(error)}") from error
    except ImportSourceError:
        raise
    except (ValueError, OSError, RuntimeError, MemoryError, OverflowError) as error:
        raise ImportSourceError(f"{bag} is truncated or damaged: {_line(error)}") from error


def _describe(bag: Path, line: str) -> str:
    """The reader's error as a sentence that blames what is wrong."""
    if "Profile is not ros2" in line:
        return f"{bag} is an MCAP file that was not written by ROS 2 (its profile is not ros2); only those are read"
    if "database files are missing" in line:
        return f"{bag}: metadata.yaml names files that are not there: {line.split(':', 1)[-1].strip()}"
    if "Unrecognized storage format" in line or "not supported" in line:
        return f"{bag} is not read: {line}"
    if "hash mismatch" in line or "Message definition" in line or "Could not parse" in line:
        return f"{bag} has a message definition that cannot be used: {line}"
    return f"{bag} is truncated or damaged: {line}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _choose(
    reader: AnyReader, bag: Path, mappings: Sequence[TopicMapping]
) -> tuple[dict[str, list[Connection]], list[str]]:
    """The connections of every wanted topic, and what was assumed."""
    there: dict[str, list[Connection]] = {}
    for connection in reader.connections:
        there.setdefault(connection.topic, []).append(connection)
    missing = [mapping.topic for mapping in mappings if mapping.topic not in there]
    if missing:
        raise ImportSourceError(f"{bag} has no topics {missing}; it has {sorted(there)}")
    found: dict[str, list[Connection]] = {}
    said = []
    for mapping in mappings:
        chosen = there[mapping.topic]
        if mapping.type:
            chosen = [connection for connection in chosen if connection.msgtype == mapping.type]
            if not chosen:
                types = sorted({connection.msgtype for connection in there[mapping.topic]})
                raise ImportSourceError(
                    f"{bag}: {mapping.topic} has no messages of type {mapping.type}; it has {types}"
                )
        if mapping.channel is not None:
            chosen = [connection for connection in chosen if connection.id == mapping.channel]
            if not chosen:
                ids = sorted(connection.id for connection in there[mapping.topic])
                raise ImportSourceError(f"{bag}: {mapping.topic} has no channel {mapping.channel}; it has {ids}")
        if len({connection.msgtype for connection in chosen}) > 1:
            counts = ", ".join(f"{c.msgtype} ({c.msgcount} messages)" for c in chosen)
            raise ImportSourceError(
                f"{bag}: {mapping.topic} is there in several types: {counts}; say which in the mapping, for example "
                f"type: {chosen[0].msgtype}"
            )
        before = found.setdefault(mapping.topic, chosen)
        if [connection.id for connection in before] != [connection.id for connection in chosen]:
            raise ImportSourceError(f"{bag}: two mappings of {mapping.topic} choose other types or channels of it")
        if len(chosen) > 1 and before is chosen:
            counts = ", ".join(f"{connection.id} ({connection.msgcount} messages)" for connection in chosen)
            said.append(f"{mapping.topic} stands on several channels: {counts}; all are read (channel: ID takes one)")
    return found, said


@cache
def _common_types() -> Typestore:
    """Definitions for bags of older distributions, which hold none; common messages have not changed since Humble."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_HUMBLE)


def _typestore(
    reader: AnyReader, bag: Path, by_topic: Mapping[str, Sequence[Connection]], folder: Path | None
) -> Typestore:
    """Types for all wanted connections: the bag's own, else the user's, else the common ones."""
    from rosbags.typesys import Stores, get_typestore

    wanted = [connection for connections in by_topic.values() for connection in connections]
    texts = {connection.msgtype for connection in reader.connections if str(connection.msgdef.data).strip()}
    silent = {connection.msgtype for connection in reader.connections} - texts
    # A definition of no text would make an empty message of the type, whatever its bytes hold.
    defined = {name: fields for name, fields in reader.typestore.fielddefs.items() if name not in silent}
    defined = {**_common_types().fielddefs, **defined, **(_own_types(folder) if folder else {})}
    needed: set[str] = set()
    for connection in wanted:
        gone = _undefined(connection.msgtype, defined, needed)
        if gone:
            needs = "" if gone == {connection.msgtype} else f", which {connection.msgtype} needs"
            raise ImportSourceError(
                f"{bag}: {connection.topic} holds messages of type {connection.msgtype}, and the bag does not define "
                f"{', '.join(sorted(gone))}{needs}; give the folder of .msg files as definitions=FOLDER"
            )
    defined |= _checked_definitions(bag, wanted)
    types = get_typestore(Stores.EMPTY)
    types.register({name: defined[name] for name in needed})
    return types


def _undefined(name: str, types: Typesdict, seen: set[str]) -> set[str]:
    """Names of the types that a type is made of and that are not defined; those that are go into ``seen``."""
    if name in seen:
        return set()
    if name not in types:
        return {name}
    seen.add(name)
    gone: set[str] = set()
    for _, (kind, detail) in types[name][1]:
        element = (kind, detail) if int(kind) <= _NAMED else detail[0]  # arrays are (element, length)
        if int(element[0]) == _NAMED:
            gone |= _undefined(str(element[1]), types, seen)
    return gone


def _own_types(folder: Path) -> Typesdict:
    from rosbags.typesys import TypesysError, get_types_from_msg

    if not folder.is_dir():
        raise ImportSourceError(f"there is no folder {folder} with definitions; it holds PACKAGE/msg/NAME.msg files")
    types: Typesdict = {}
    for file in sorted(folder.rglob("*.msg")):
        package = file.parent.parent.name if file.parent.name == "msg" else file.parent.name
        try:
            types |= get_types_from_msg(file.read_text(encoding="utf-8"), f"{package}/msg/{file.stem}")
        except (TypesysError, UnicodeDecodeError, OSError, ValueError) as error:
            raise ImportSourceError(f"{file} is not a message definition: {_line(error)}") from error
    if not types:
        raise ImportSourceError(f"{folder} holds no .msg files; they stand in PACKAGE/msg/NAME.msg")
    return types


def _checked_definitions(bag: Path, wanted: Sequence[Connection]) -> Typesdict:
    """The types as the wanted connections define them.

    Merged files may hold one type in two versions; the reader would take the last one for all messages.
    """
    from rosbags.interfaces import MessageDefinitionFormat
    from rosbags.typesys import get_types_from_msg

    types: Typesdict = {}
    first: dict[str, Connection] = {}
    for connection in wanted:
        text = str(connection.msgdef.data)
        if connection.msgdef.format != MessageDefinitionFormat.MSG or not text.strip():
            continue
        found = get_types_from_msg(text, connection.msgtype)
        differing = [name for name in found if types.setdefault(name, found[name]) != found[name]]
        if differing and connection.msgtype in first:
            known = first[connection.msgtype]
            raise ImportSourceError(
                f"{bag}: {known.topic} (channel {known.id}) and {connection.topic} (channel {connection.id}) define "
                f"{differing[0]} differently; take one with channel: in the mapping"
            )
        first.setdefault(connection.msgtype, connection)
    return types
