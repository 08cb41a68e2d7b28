"""What a contract file has to say, key by key, and which values make sense together."""

from __future__ import annotations

import math
from typing import TypeVar

from robo_hw.contract.lerobot_units import read_section
from robo_hw.contract.parts import (
    UNIT_OF_KIND,
    VERSION,
    Camera,
    ContractFields,
    Deadlines,
    Gripper,
    Joint,
    Rates,
    Safety,
)
from robo_hw.contract.reading import Reader
from robo_hw.contract.topic_rules import Topics, topic_name

ContractT = TypeVar("ContractT", bound=ContractFields)

_TOLERANCE = {"revolute": 0.02, "continuous": 0.0, "prismatic": 0.002, "fraction": 0.02}
"""How far outside its limits a joint of each kind may rest by default, in its unit."""
_MOST_TURNS = 4 * math.pi
"""No revolute joint here turns more than two whole turns from zero; beyond it the file is surely in degrees."""


def build_contract(kind: type[ContractT], data: object) -> tuple[ContractT | None, list[str]]:
    """The contract as a ``kind``, and every problem found; the contract means nothing where there are problems."""
    problems: list[str] = []
    if isinstance(data, dict) and data.get("contract") == 1 and not isinstance(data.get("contract"), bool):
        return None, [
            f"contract: version 1, this is {VERSION}; write contract: {VERSION}, and leave out safety.arm_tolerance or "
            "give it to the joints; what was recorded or trained under version 1 has to be made again"
        ]
    root = Reader(data, "", problems)
    root.whole("contract", f"the version of this file format, {VERSION}", least=VERSION, most=VERSION)
    robot = root.text("robot", "the robot's name")
    rates = _rates(root)
    joints = tuple(_joint(reader, rates) for reader in root.items("joints", "the joints in command order"))
    _unique(problems, "joints", [joint.name for joint in joints])
    _unique(problems, "joints", [joint.state_name for joint in joints if joint.state_name != joint.name], "state_name")
    _clashing_state_names(problems, joints)
    gripper = _gripper(root, joints)
    cameras = tuple(_camera(reader) for reader in root.items("cameras", "the cameras", empty=True))
    _unique(problems, "cameras", [camera.name for camera in cameras])
    topics = Topics(root, problems, [camera.topic for camera in cameras], gripper.joint if gripper else None)
    deadlines = _deadlines(root, rates, cameras)
    _unambiguous_turns(problems, joints, deadlines)
    safety = _safety(root, deadlines, topics.interface)
    lerobot = read_section(root, joints)
    root.finish()
    if problems:
        return None, problems
    return (
        kind(
            robot=robot,
            joints=joints,
            gripper=gripper,
            cameras=cameras,
            command_interface=topics.interface,
            gripper_command=topics.gripper,
            joint_states=topics.joint_states,
            command=topics.command,
            status=topics.status,
            stop=topics.stop,
            estop=topics.estop,
            rates=rates,
            deadlines=deadlines,
            safety=safety,
            lerobot=lerobot,
        ),
        problems,
    )


def _joint(reader: Reader, rates: Rates) -> Joint:
    name = reader.text("name", "the joint's name as policies and controllers have it")
    kind = reader.text("kind", "the kind of joint", choices=tuple(UNIT_OF_KIND))
    expected = UNIT_OF_KIND.get(kind, "rad")
    unit = reader.text("unit", f"the unit, {expected!r}")
    if unit and unit != expected:
        reader.problem("unit", f"{unit!r} does not fit a {kind} joint; convert its limits and give {expected!r}")
    position = _position(reader, kind, expected)
    velocity = reader.number("velocity", f"the highest speed in {expected}/s", above=0)
    if expected == "rad" and velocity > 50:
        reader.problem("velocity", f"{velocity:g} rad/s is not the speed of an arm; this looks like degrees per second")
    acceleration = reader.number("acceleration", f"the highest acceleration in {expected}/s^2", above=0)
    jerk = reader.number("jerk", f"the highest jerk in {expected}/s^3", above=0)
    # A continuous joint has no range; a turn serves as one, and half a turn cannot be distinguished from its opposite.
    turns = kind == "continuous"
    span = 2 * math.pi if turns else position[1] - position[0]
    most = math.pi if turns else None
    saturate = False if turns else reader.flag("saturate", "true or false", default=False)
    travel = velocity / rates.control if rates.control > 0 else math.nan
    step = span if saturate else 0.25 * span if turns else 0.5 * span
    joint = Joint(
        name=name,
        kind=kind,
        unit=unit,
        position=position,
        velocity=velocity,
        acceleration=acceleration,
        jerk=jerk,
        following_error=reader.number(
            "following_error", f"the largest lag behind the command in {expected}", above=0, most=most
        ),
        state_jump=reader.number(
            "state_jump", f"an implausible jump in {expected}", default=0.1 * span, above=0, most=most
        ),
        action_jump=reader.number(
            "action_jump", f"an implausible step in {expected}", default=step, above=0, most=most
        ),
        saturate=saturate,
        state_name=reader.text("state_name", "the joint's name in joint states", default=name or None),
        arm_tolerance=_arm_tolerance(reader, kind, expected, travel),
    )
    reader.finish()
    return joint


def _position(reader: Reader, kind: str, unit: str) -> tuple[float, float]:
    if kind == "continuous":
        if reader.has("position"):
            reader.problem("position", "a continuous joint has no limits; leave it out, or give kind: revolute")
        reader.ignore("position")
        if reader.flag("saturate", "false", default=False):
            reader.problem("saturate", "a continuous joint has no limits to saturate at; leave it out")
        return (-math.inf, math.inf)
    position = reader.interval("position", f"the lowest and highest position, [low, high] in {unit}")
    if kind == "revolute" and max(abs(position[0]), abs(position[1])) > _MOST_TURNS:
        reader.problem("position", f"{list(position)} rad is more than two turns; these look like degrees")
    return position


def _arm_tolerance(reader: Reader, kind: str, unit: str, travel: float) -> float:
    default = min(_TOLERANCE.get(kind, 0.0), travel)
    what = f"how far outside its limits the joint may rest when armed, in {unit}"
    tolerance = reader.number("arm_tolerance", what, default=default, least=0)
    if kind == "continuous" and tolerance > 0:
        reader.problem("arm_tolerance", "a continuous joint has no limits to lie outside of; leave it out")
    elif tolerance > travel * (1 + 1e-9):
        reader.problem(
            "arm_tolerance",
            f"{tolerance:g} {unit} is more than the joint travels in one control period, {travel:.4g} {unit} "
            "(velocity / rates.control): the first command would throw it; give less, and move the joint by hand",
        )
    return tolerance


def _clashing_state_names(problems: list[str], joints: tuple[Joint, ...]) -> None:
    plain = {joint.name for joint in joints if joint.state_name == joint.name}
    for joint in joints:
        if joint.state_name != joint.name and joint.state_name in plain:
            problems.append(
                f"joints: {joint.name} and {joint.state_name} both read {joint.state_name!r} of the joint states; "
                "give each its own state_name"
            )


def _gripper(root: Reader, joints: tuple[Joint, ...]) -> Gripper | None:
    if not root.has("gripper"):
        root.ignore("gripper")
        return None
    reader = root.section("gripper", "the gripper, or leave it out")
    names = {joint.name: joint for joint in joints}
    name = reader.text("joint", "the gripper's joint")
    if name and name not in names:
        reader.problem("joint", f"{name!r} is not a joint of this contract; choose one of {', '.join(names)}")
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
    camera = reader.record(Camera, topic=topic_name(reader, "topic", "its image topic"))
    rate = camera.rate
    if camera.degraded_after >= camera.stop_after:
        reader.problem(
            "degraded_after", f"{camera.degraded_after:g} s must be below stop_after {camera.stop_after:g} s"
        )
    for key in ("degraded_after", "frozen_after"):
        if rate > 0 and getattr(camera, key) <= 1 / rate:
            reader.problem(key, f"{getattr(camera, key):g} s is not longer than one frame at {rate:g} Hz")
    reader.finish()
    return camera


def _rates(root: Reader) -> Rates:
    reader = root.section("rates", "rates in Hz: control, actions, joint_states")
    rates = reader.record(Rates)
    if rates.control < rates.actions:
        reader.problem("control", f"{rates.control:g} Hz must not be below the {rates.actions:g} Hz of the actions")
    reader.finish()
    return rates


def _unambiguous_turns(problems: list[str], joints: tuple[Joint, ...], deadlines: Deadlines) -> None:
    for joint in joints:
        if joint.kind == "continuous" and joint.velocity * deadlines.chunk >= math.pi:
            problems.append(
                f"joints: {joint.name} turns by {joint.velocity * deadlines.chunk:.3g} rad within deadlines.chunk, and "
                "half a turn cannot be distinguished from its opposite; lower its velocity or deadlines.chunk"
            )


def _deadlines(root: Reader, rates: Rates, cameras: tuple[Camera, ...]) -> Deadlines:
    reader = root.section("deadlines", "deadlines in seconds: joint_states, actions, chunk, tick, ...")
    frame = max((1 / camera.rate for camera in cameras if camera.rate > 0), default=0.0)
    deadlines = reader.record(Deadlines, {"skew": max(0.1, 1.5 * frame)})
    if deadlines.skew <= frame:
        reader.problem(
            "skew", f"{deadlines.skew:g} s is not longer than one frame of the slowest camera, {frame:.3g} s"
        )
    for key, rate in (("joint_states", rates.joint_states), ("tick", rates.control)):
        # A rate that is zero, negative or no number has been reported already.
        if rate > 0 and getattr(deadlines, key) <= 1.5 / rate:
            reader.problem(key, f"{getattr(deadlines, key):g} s is less than one and a half periods at {rate:g} Hz")
    reader.finish()
    return deadlines


def _safety(root: Reader, deadlines: Deadlines, interface: str) -> Safety:
    reader = root.section("safety", "how cautious to be: cool_down, max_stop_time, ...")
    # A forward command controller keeps the last command permanently; the others hold, or stop, by themselves.
    in_fault = "follow_measured" if interface == "forward_command" else "silent"
    safety = reader.record(Safety, {"in_fault": in_fault})
    if reader.has("arm_tolerance"):
        reader.ignore("arm_tolerance")
        reader.problem("arm_tolerance", "is given to each joint, in its own unit: joints[].arm_tolerance")
    if safety.max_stop_time < 2 * deadlines.tick:
        reader.problem("max_stop_time", f"{safety.max_stop_time:g} s is less than two late ticks")
    reader.finish()
    return safety


def _unique(problems: list[str], key: str, names: list[str], what: str = "name") -> None:
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        problems.append(f"{key}: the {what} {name!r} is given twice")
