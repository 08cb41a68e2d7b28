"""What a contract file has to say, key by key, and which values make sense together."""

from __future__ import annotations

import math
from typing import Any

from robo_hw.contract import (
    UNIT_OF_KIND,
    Camera,
    Deadlines,
    Gripper,
    Joint,
    Rates,
    RobotContract,
    Safety,
    Topic,
)
from robo_hw.lerobot_units import read_section
from robo_hw.reading import REQUIRED, Reader

_MOST_TURNS = 4 * math.pi
"""No revolute joint here turns more than two whole turns from zero; beyond it the file is surely in degrees."""


def build_contract(data: Any) -> tuple[RobotContract | None, list[str]]:
    """The contract, and every problem found; the contract means nothing where there are problems."""
    problems: list[str] = []
    root = Reader(data, "", problems)
    root.whole("contract", "the version of this file format, 1", least=1, most=1)
    robot = root.text("robot", "the robot's name")
    joints = tuple(_joint(reader) for reader in root.items("joints", "the joints in command order"))
    _unique(problems, "joints", [joint.name for joint in joints])
    gripper = _gripper(root, joints)
    cameras = tuple(_camera(reader) for reader in root.items("cameras", "the cameras", empty=True))
    _unique(problems, "cameras", [camera.name for camera in cameras])
    topics = root.section("topics", "the topics: joint_states, command, status")
    joint_states = _topic(topics.section("joint_states", "its name and qos"), "best_effort", "volatile")
    sink = topics.section("command", "its name, interface and qos")
    interface = sink.text(
        "interface", "how the controller is spoken to", choices=("joint_trajectory", "forward_command")
    )
    command = _topic(sink, "reliable", "volatile")
    # A late joiner has to learn of a fault that happened before it came: transient local.
    status = _topic(
        topics.section("status", "its name and qos", default={}), "reliable", "transient_local", "/robo_rm/status"
    )
    topics.finish()
    rates = _rates(root)
    deadlines = _deadlines(root, rates)
    safety = _safety(root, deadlines)
    lerobot = read_section(root, joints)
    root.finish()
    if problems:
        return None, problems
    return (
        RobotContract(
            robot,
            joints,
            gripper,
            cameras,
            interface,
            joint_states,
            command,
            status,
            rates,
            deadlines,
            safety,
            lerobot,
        ),
        problems,
    )


def _joint(reader: Reader) -> Joint:
    name = reader.text("name", "the joint's name as /joint_states has it")
    kind = reader.text("kind", "the kind of joint", choices=tuple(UNIT_OF_KIND))
    expected = UNIT_OF_KIND.get(kind, "rad")
    unit = reader.text("unit", f"the unit, {expected!r}")
    if unit and unit != expected:
        reader.problem("unit", f"{unit!r} does not fit a {kind} joint; convert its limits and give {expected!r}")
    position = reader.interval("position", f"the lowest and highest position, [low, high] in {expected}")
    if kind == "revolute" and max(abs(position[0]), abs(position[1])) > _MOST_TURNS:
        reader.problem("position", f"{list(position)} rad is more than two turns; these look like degrees")
    velocity = reader.number("velocity", f"the highest speed in {expected}/s", above=0)
    if kind == "revolute" and velocity > 50:
        reader.problem("velocity", f"{velocity:g} rad/s is no arm's speed; this looks like degrees per second")
    acceleration = reader.number("acceleration", f"the highest acceleration in {expected}/s^2", above=0)
    jerk = reader.number("jerk", f"the highest jerk in {expected}/s^3", above=0)
    span = position[1] - position[0]
    saturate = reader.flag("saturate", "true or false", default=False)
    joint = Joint(
        name=name,
        kind=kind,
        unit=unit,
        position=position,
        velocity=velocity,
        acceleration=acceleration,
        jerk=jerk,
        following_error=reader.number("following_error", f"the largest lag behind the command in {expected}", above=0),
        state_jump=reader.number("state_jump", f"an implausible jump in {expected}", default=0.1 * span, above=0),
        action_jump=reader.number(
            "action_jump", f"an implausible step in {expected}", default=span if saturate else 0.5 * span, above=0
        ),
        saturate=saturate,
    )
    reader.finish()
    return joint


def _gripper(root: Reader, joints: tuple[Joint, ...]) -> Gripper | None:
    if not root.has("gripper"):
        root.ignore("gripper")
        return None
    reader = root.section("gripper", "the gripper, or leave it out")
    names = {joint.name: joint for joint in joints}
    name = reader.text("joint", "the gripper's joint")
    if name and name not in names:
        reader.problem("joint", f"{name!r} is no joint of this contract; choose one of {', '.join(names)}")
    ends = {}
    for key in ("open", "closed"):
        ends[key] = reader.number(key, f"the {key} position in the joint's unit")
        if name in names:
            low, high = names[name].position
            if not low <= ends[key] <= high:
                reader.problem(key, f"{ends[key]:g} is outside the joint's limits [{low:g}, {high:g}]")
    if ends["open"] == ends["closed"]:
        reader.problem("closed", "the same as open")
    reader.finish()
    return Gripper(name, **ends)


def _camera(reader: Reader) -> Camera:
    rate = reader.number("rate", "its frames per second", above=0, most=1000)
    camera = Camera(
        name=reader.text("name", "the camera's name, as in observation.images.NAME"),
        topic=reader.text("topic", "its image topic"),
        width=reader.whole("width", "pixels", most=16384),
        height=reader.whole("height", "pixels", most=16384),
        rate=rate,
        degraded_after=reader.number("degraded_after", "seconds of silence before slowing down", above=0),
        stop_after=reader.number("stop_after", "seconds of silence before stopping", above=0, most=10),
        frozen_after=reader.number("frozen_after", "seconds of identical pictures before stopping", above=0, most=60),
    )
    if camera.degraded_after >= camera.stop_after:
        reader.problem(
            "degraded_after", f"{camera.degraded_after:g} s must be below stop_after {camera.stop_after:g} s"
        )
    for key in ("degraded_after", "frozen_after"):
        if rate > 0 and getattr(camera, key) <= 1 / rate:
            reader.problem(key, f"{getattr(camera, key):g} s is not longer than one frame at {rate:g} Hz")
    reader.finish()
    return camera


def _topic(reader: Reader, reliability: str, durability: str, name: Any = REQUIRED) -> Topic:
    name = reader.text("name", "the topic's name", default=name)
    qos = reader.section("qos", "reliability, durability, depth", default={})
    topic = Topic(
        name=name,
        reliability=qos.text("reliability", "the policy", reliability, ("reliable", "best_effort")),
        durability=qos.text("durability", "the policy", durability, ("volatile", "transient_local")),
        depth=qos.whole("depth", "the queue's length", 1, most=1000),
    )
    qos.finish()
    reader.finish()
    return topic


def _rates(root: Reader) -> Rates:
    reader = root.section("rates", "rates in Hz: control, actions, joint_states")
    rates = Rates(
        control=reader.number("control", "control ticks per second", above=0, most=2000),
        actions=reader.number("actions", "actions per second, as the policy was trained", above=0, most=1000),
        joint_states=reader.number("joint_states", "joint states per second", above=0, most=10000),
    )
    if rates.control < rates.actions:
        reader.problem("control", f"{rates.control:g} Hz must not be below the {rates.actions:g} Hz of the actions")
    reader.finish()
    return rates


def _deadlines(root: Reader, rates: Rates) -> Deadlines:
    reader = root.section("deadlines", "deadlines in seconds: joint_states, actions, chunk, tick")
    deadlines = Deadlines(
        joint_states=reader.number("joint_states", "the oldest joint state in s", above=0, most=2),
        actions=reader.number("actions", "the longest time without a new chunk in s", above=0, most=10),
        chunk=reader.number("chunk", "the oldest observation a chunk may be made from in s", above=0, most=10),
        tick=reader.number("tick", "the longest control tick in s", above=0, most=1),
    )
    for key, rate in (("joint_states", rates.joint_states), ("tick", rates.control)):
        # A rate that is zero, negative or no number has been reported already.
        if rate > 0 and getattr(deadlines, key) <= 1.5 / rate:
            reader.problem(key, f"{getattr(deadlines, key):g} s is less than one and a half periods at {rate:g} Hz")
    reader.finish()
    return deadlines


def _safety(root: Reader, deadlines: Deadlines) -> Safety:
    reader = root.section("safety", "how cautious to be: cool_down, max_stop_time, ...")
    safety = Safety(
        cool_down=reader.number("cool_down", "seconds before a fault may be reset", least=0.5),
        reserve=reader.number("reserve", "the share left to braking", default=0.5, least=0.1, most=0.9),
        max_stop_time=reader.number("max_stop_time", "seconds to stop in", above=0, most=10),
        degraded_rate=reader.number("degraded_rate", "the speed while degraded", default=0.5, above=0, most=1),
        max_horizon=reader.whole("max_horizon", "the longest chunk in actions", default=256, most=10_000),
        rejections_before_fault=reader.whole("rejections_before_fault", "chunks", default=5, most=1000),
        arm_tolerance=reader.number("arm_tolerance", "in the joint's unit", default=0.02, least=0),
    )
    if safety.max_stop_time < 2 * deadlines.tick:
        reader.problem("max_stop_time", f"{safety.max_stop_time:g} s is less than two late ticks")
    reader.finish()
    return safety


def _unique(problems: list[str], key: str, names: list[str]) -> None:
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        problems.append(f"{key}: the name {name!r} is given twice")
