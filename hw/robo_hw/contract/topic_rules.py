"""What a contract may say about topics: names as ROS 2 takes them, quality of service, who speaks and what stops."""

from __future__ import annotations

import re

from robo_hw.contract.parts import INTERFACES, EstopSource, GripperCommand, StateTopic, StopSignal, Topic
from robo_hw.contract.reading import REQUIRED, Reader

_LONGEST_NAME = 200
"""Characters. DDS takes 255, and ROS puts prefixes and a namespace before them."""
_TYPE = re.compile(r"[A-Za-z]\w*/msg/[A-Z][A-Za-z0-9]*", re.ASCII)
_FIELD = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*", re.ASCII)
_SUBSTITUTION = re.compile(r"\{(node|ns|namespace)\}")
_TOKEN = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def name_problem(name: str) -> str:
    """Why ROS 2 does not take a topic or action name; empty where it does.

    Source: "Topic and Service name mapping to DDS", design.ros2.org.
    """
    if len(name) > _LONGEST_NAME:
        return f"has {len(name)} characters, more than {_LONGEST_NAME}"
    # A substitution stands for a part of a token, and is not one itself.
    plain = _SUBSTITUTION.sub("x", name)
    if plain in ("~", "~/", "/"):
        return "is a namespace, not a name"
    if plain.startswith("~"):
        if not plain.startswith("~/"):
            return "has no / after ~"
        plain = plain[2:]
    elif "~" in plain:
        return "has ~ elsewhere than at its start"
    if plain.endswith("/"):
        return "ends with /"
    for token in plain.removeprefix("/").split("/"):
        if not token:
            return "has // in it"
        if not _TOKEN.fullmatch(token):
            if token[0].isdigit():
                return f"has a part that begins with a digit ({token})"
            bad = next(letter for letter in token if not re.fullmatch(r"\w", letter, re.ASCII))
            return f"has {bad!r} in it; letters, digits, _ and / are allowed"
        if "__" in token:
            return "has __ in it"
    return ""


def absolute(name: str) -> str:
    """A relative name as it is without a namespace; other names as they are."""
    return name if name.startswith(("/", "~")) else f"/{name}"


def topic_name(reader: Reader, key: str, what: str, default: object = REQUIRED) -> str:
    """A topic or action name that ROS 2 takes."""
    name = reader.text(key, what, default=default)
    problem = name_problem(name) if name else ""
    if problem:
        reader.problem(key, f"{name!r} is not a ROS name: it {problem}")
    return name


def quality(reader: Reader, reliability: str, durability: str, name: object = REQUIRED) -> Topic:
    """Name and quality of service; the caller finishes the reader."""
    name = topic_name(reader, "name", "the topic's name", default=name)
    qos = reader.section("qos", "reliability, durability, depth", default={})
    topic = Topic(
        name=name,
        reliability=qos.text("reliability", "the policy", reliability, ("reliable", "best_effort")),
        durability=qos.text("durability", "the policy", durability, ("volatile", "transient_local")),
        depth=qos.whole("depth", "the queue's length", 1, most=1000),
    )
    qos.finish()
    return topic


class Topics:
    """The ``topics`` section of a contract."""

    def __init__(self, root: Reader, problems: list[str], cameras: list[str], gripper: str | None) -> None:
        topics = root.section("topics", "the topics: joint_states, command, status, stop, estop")
        self.joint_states = tuple(
            _state_topic(reader) for reader in topics.one_or_many("joint_states", "its name, qos and publishers")
        )
        sink = topics.section("command", "its name, interface and qos")
        self.interface = sink.text("interface", "how the controller is spoken to", choices=INTERFACES)
        self.gripper = _gripper_command(sink, gripper)
        self.command = quality(sink, "reliable", "volatile")
        sink.finish()
        status = topics.section("status", "its name and qos", default={})
        # A late joiner has to learn of a fault that happened before it came: transient local.
        self.status = quality(status, "reliable", "transient_local", "robo_rm/status")
        status.finish()
        self.stop = tuple(_stop_signal(reader) for reader in topics.items("stop", "stop signals", empty=True))
        self.estop: tuple[EstopSource, ...] = (EstopSource("/estop", 0.0),)
        if topics.has("estop"):  # an empty list is refused: nobody is to believe that a button stops the arm
            sources = topics.items("estop", "emergency stops, one at least, or leave it out for /estop")
            self.estop = tuple(_estop_source(reader) for reader in sources)
        else:
            topics.ignore("estop")
        topics.finish()
        listened = [topic.name for topic in self.joint_states] + [source.name for source in self.estop]
        spoken = [self.command.name, self.status.name] + ([self.gripper.name] if self.gripper else [])
        # One topic may have two cameras' names, and a status message more than one field that can stop.
        _once(problems, [*listened, *spoken])
        stops = [signal.name for signal in self.stop]
        taken = [absolute(name) for name in [*listened, *spoken] if name]
        for name in sorted({absolute(name) for name in [*cameras, *stops] if name and absolute(name) in taken}):
            problems.append(f"topics: {name} is given twice, for different things")


def _state_topic(reader: Reader) -> StateTopic:
    publishers = reader.whole("publishers", "how many may speak there", default=1, most=64)
    topic = quality(reader, "best_effort", "volatile")
    reader.finish()
    return StateTopic(topic.name, topic.reliability, topic.durability, topic.depth, publishers)


def _gripper_command(sink: Reader, gripper: str | None) -> GripperCommand | None:
    if not sink.has("gripper"):
        sink.ignore("gripper")
        return None
    reader = sink.section("gripper", "name and interface, or leave it out")
    if gripper is None:
        reader.problem("name", "there is no gripper in this contract; add the gripper section or leave this out")
    output = reader.record(GripperCommand, name=topic_name(reader, "name", "the action's name"))
    reader.finish()
    return output


def _stop_signal(reader: Reader) -> StopSignal:
    kind = reader.text("type", "the message's type, as std_msgs/msg/Bool")
    if kind and not _TYPE.fullmatch(kind):
        reader.problem("type", f"{kind!r} is not a message type; give one as std_msgs/msg/Bool")
    field = reader.text("field", "where the value stands in the message", default="data")
    if field and not _FIELD.fullmatch(field):
        reader.problem("field", f"{field!r} is not a field's name; give one as data or status.mode")
    name = topic_name(reader, "name", "the topic's name")
    ok = reader.scalars("ok", "the values, in a list, with which the arm may be commanded")
    signal = reader.record(StopSignal, name=name, type=kind, field=field, ok=ok)
    reader.finish()
    return signal


def _estop_source(reader: Reader) -> EstopSource:
    source = reader.record(EstopSource, name=topic_name(reader, "name", "the topic's name"))
    reader.finish()
    return source


def _once(problems: list[str], names: list[str]) -> None:
    full = [absolute(name) for name in names if name]
    for name in sorted({name for name in full if full.count(name) > 1}):
        problems.append(f"topics: {name} is given twice, for different things")
