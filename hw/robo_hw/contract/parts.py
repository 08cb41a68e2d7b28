"""What a robot contract consists of: joints, cameras, topics, rates, deadlines, safety, and LeRobot's names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from robo_hw.contract.reading import given

VERSION = 2
"""Of the file format."""
UNIT_OF_KIND = {"revolute": "rad", "continuous": "rad", "prismatic": "m", "fraction": "1"}
"""The only unit each kind of joint may have: degrees among radians are the commonest way to break an arm."""
INTERFACES = ("joint_trajectory", "forward_command", "follow_joint_trajectory", "joint_jog")
"""How a controller can be spoken to."""
ENDS: dict[str, tuple[float, float] | None] = {
    "degrees": None,
    "radians": None,
    "metres": None,
    "range_m100_100": (-100.0, 100.0),
    "range_0_100": (0.0, 100.0),
    "fraction": (0.0, 1.0),
}
"""LeRobot's units; the two ends of those that are a fraction of a range."""
_SCALES = {"degrees": math.pi / 180, "radians": 1.0, "metres": 1.0}


@dataclass(frozen=True)
class Joint:
    """One joint; positions in ``unit``, its derivatives in unit/s, unit/s^2 and unit/s^3."""

    name: str
    kind: str
    """``revolute`` (rad), ``continuous`` (rad, without end stops), ``prismatic`` (m) or ``fraction`` (a gripper from 0
    closed to 1 open)."""
    unit: str
    position: tuple[float, float]
    """(-inf, inf) for a continuous joint."""
    velocity: float
    acceleration: float
    jerk: float
    following_error: float
    """How far the measured joint may lie from the commanded one before that is a fault."""
    state_jump: float
    """How far two measurements may differ beyond what the velocity limit explains before that is a fault."""
    action_jump: float
    """How far two successive actions may differ before the chunk is taken for nonsense."""
    saturate: bool
    """Actions beyond the position limit mean "as far as it goes" (a closing gripper); others hold the arm back."""
    state_name: str
    """The joint's name in joint-state messages."""
    arm_tolerance: float
    """How far outside its limits the joint may rest when the arm is armed; at most what it travels in one control
    period, because the first command takes it back to the limit."""


@dataclass(frozen=True)
class Camera:
    """One camera and when its silence matters; times in seconds."""

    name: str = given("the camera's name, as in observation.images.NAME")
    topic: str = given("its image topic")
    width: int = given("pixels", most=16384)
    height: int = given("pixels", most=16384)
    rate: float = given("its frames per second", above=0, most=1000)
    degraded_after: float = given("seconds of silence before slowing down", above=0)
    stop_after: float = given("seconds of silence before stopping", above=0, most=10)
    frozen_after: float = given("seconds of identical images before stopping", above=0, most=60)
    """How long the image may stay the same, pixel for pixel, while the arm moves."""


@dataclass(frozen=True)
class Topic:
    """A ROS topic with its quality of service."""

    name: str
    reliability: str
    durability: str
    depth: int


@dataclass(frozen=True)
class StateTopic(Topic):
    """A topic with joint states of all joints, or of a part of them."""

    publishers: int
    """How many publishers may speak there; with more the arm cannot be armed, since they may contradict each other."""


@dataclass(frozen=True)
class StopSignal:
    """A stop of the robot itself (safety mode, program state): anything but an ``ok`` value disarms."""

    name: str
    type: str
    """As ``std_msgs/msg/Bool``."""
    field: str
    """Where the value stands in the message; dots lead into nested messages."""
    ok: tuple[bool | int | float | str, ...]
    heartbeat: float = given("the longest silence in s, 0 for any", default=0.0, least=0, most=60)
    """Longest silence in seconds before that disarms, too; 0: silence is allowed, as for latched topics."""


@dataclass(frozen=True)
class EstopSource:
    """A topic (std_msgs/msg/Bool) on which ``true`` is an emergency stop; any source stops, each releases its own."""

    name: str
    heartbeat: float = given("the longest silence in s, 0 for any", default=0.0, least=0, most=60)
    """Longest silence in seconds before that is a stop, too; 0: silence is allowed."""


@dataclass(frozen=True)
class GripperCommand:
    """An output of its own for the gripper joint: its position leaves the arm's command and goes there."""

    name: str
    interface: str = given("how it is spoken to", default="gripper_command", choices=("gripper_command",))
    """``gripper_command``: a control_msgs GripperCommand action."""
    max_effort: float = given("the force in N or Nm, 0 for the controller's own", default=0.0, least=0)
    """In N or Nm; 0: the controller's own."""


@dataclass(frozen=True)
class Gripper:
    """Which joint is the gripper, and its two ends in that joint's unit."""

    joint: str
    open: float
    closed: float


@dataclass(frozen=True)
class Rates:
    """Hz."""

    control: float = given("control ticks per second", above=0, most=2000)
    actions: float = given("actions per second, as the policy was trained", above=0, most=1000)
    joint_states: float = given("joint states per second", above=0, most=10000)


@dataclass(frozen=True)
class Deadlines:
    """Seconds on the steady clock."""

    joint_states: float = given("the oldest joint state in s", above=0, most=2)
    """Older joint states are a fault."""
    actions: float = given("the longest time without a new chunk in s", above=0, most=10)
    """Running longer than this without a new chunk stops the arm."""
    chunk: float = given("the oldest observation a chunk may be made from in s", above=0, most=10)
    """A chunk whose observation is older than this is dropped."""
    tick: float = given("the longest control tick in s", above=0, most=1)
    """A control tick later than this finds the arm braking."""
    idle: float = given("how long to hold without a chunk in s", default=30.0, above=0, most=3600)
    """Holding longer than this without a chunk disarms: a motion must not begin when nobody expects it any more."""
    skew: float = given("between image and joint state in s", above=0, most=2)
    """Largest difference in time between an image and the joint state that are given to the policy together."""


@dataclass(frozen=True)
class Safety:
    """How cautious to be."""

    cool_down: float = given("seconds before a fault may be reset", least=0.5)
    """Seconds between the last fault and the earliest reset."""
    reserve: float = given("the fraction left to braking", default=0.5, least=0.1, most=0.9)
    """Share (0..1) of acceleration and jerk that following the path leaves to braking."""
    max_stop_time: float = given("seconds to stop in", above=0, most=10)
    """Seconds within which the arm can always stop; it slows down beforehand rather than exceed it."""
    degraded_rate: float = given("the speed while degraded", default=0.5, above=0, most=1)
    """Speed (fraction of nominal) while an observation is late but not yet past its deadline."""
    max_horizon: int = given("the longest chunk in actions", default=256, most=10_000)
    """Longest chunk accepted, in actions."""
    rejections_before_fault: int = given("chunks", default=5, most=1000)
    """So many malformed chunks in a row are a fault."""
    in_fault: str = given("what to command in a fault", choices=("silent", "follow_measured"))
    """``silent``: command nothing, for controllers that hold by themselves; ``follow_measured``: hold the measured pose
    and let go of it when the arm is moved, for controllers that keep the last command permanently."""
    arm_states: int = given("how many joint states have to agree", default=5, least=2, most=1000)
    """How many consecutive joint states have to agree, with each other and with their velocities, to arm."""
    rearm_after_restart: bool = given("true or false", default=True)
    """Whether a policy server that came back needs a new ``arm``."""
    zero_pose: str = given("whether a pose of zeros is real", default="refuse", choices=("refuse", "allow"))
    """``refuse`` or ``allow``: arming while every joint reads exactly 0, which many drivers say before they know."""
    start_pose: str = given(
        "what to do in a pose far from all demonstrations", default="warn", choices=("off", "warn", "refuse")
    )
    """``off``, ``warn`` or ``refuse``: arming in a pose that no demonstration began near."""


@dataclass(frozen=True)
class MotorRange:
    """One motor of LeRobot's calibration file; positions in encoder ticks."""

    id: int
    drive_mode: int
    homing_offset: int
    range_min: int
    range_max: int


@dataclass(frozen=True)
class LeRobotJoint:
    """One joint as LeRobot has it: q = zero + scale * v, q in the contract's unit, v in ``units``."""

    joint: str
    name: str
    """Its key in LeRobot's observations, actions and data sets."""
    units: str
    sign: int
    """-1 where LeRobot's joint turns the other way; for degrees, radians and metres."""
    offset: float
    """The contract's position at LeRobot's zero, in the contract's unit; for degrees, radians and metres."""
    range: tuple[float, float] | None
    """The contract's positions at the two ends of a fraction of the range."""

    @property
    def scale(self) -> float:
        """Contract units for one of LeRobot's."""
        ends = ENDS[self.units]
        if ends is None or self.range is None:
            return self.sign * _SCALES.get(self.units, 1.0)
        return (self.range[1] - self.range[0]) / (ends[1] - ends[0])

    @property
    def zero(self) -> float:
        """The contract's position where LeRobot says 0."""
        ends = ENDS[self.units]
        return self.offset if ends is None or self.range is None else self.range[0] - self.scale * ends[0]


@dataclass(frozen=True)
class LeRobotSection:
    """The whole section, one entry of ``joints`` for each of the contract's, in its order."""

    robots: tuple[str, ...]
    units: str | None
    ticks: int
    """Encoder steps in a turn."""
    apply_drive_mode: bool | None
    """Whether LeRobot reverses fractions of the range for ``drive_mode`` 1: with Feetech; Dynamixel's motor does it."""
    calibration: Mapping[str, MotorRange] | None = field(hash=False)
    joints: tuple[LeRobotJoint, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """LeRobot's keys in the contract's joint order."""
        return tuple(joint.name for joint in self.joints)

    def to_dict(self) -> dict[str, object]:
        """As ``read_section`` takes it back; the calibration is written out, its file is not needed any more."""
        data: dict[str, object] = {"robots": list(self.robots), "ticks": self.ticks}
        if self.units is not None:
            data["units"] = self.units
        if self.apply_drive_mode is not None:
            data["apply_drive_mode"] = self.apply_drive_mode
        if self.calibration is not None:
            data["calibration"] = {name: asdict(motor) for name, motor in sorted(self.calibration.items())}
        entries = []
        for joint in self.joints:
            if joint == LeRobotJoint(joint.joint, f"{joint.joint}.pos", self.units or "", 1, 0.0, None):
                continue  # what it is without an entry
            entry: dict[str, object] = {"joint": joint.joint, "name": joint.name, "units": joint.units}
            if joint.range is None:
                entry |= {"sign": joint.sign, "offset": joint.offset}
            else:
                entry["range"] = list(joint.range)
            entries.append(entry)
        data["joints"] = entries
        return data


@dataclass(frozen=True)
class ContractFields:
    """All that a contract file says, checked."""

    robot: str
    joints: tuple[Joint, ...]
    gripper: Gripper | None
    cameras: tuple[Camera, ...]
    command_interface: str
    """One of ``INTERFACES``."""
    gripper_command: GripperCommand | None
    joint_states: tuple[StateTopic, ...]
    command: Topic
    status: Topic
    stop: tuple[StopSignal, ...]
    estop: tuple[EstopSource, ...]
    rates: Rates
    deadlines: Deadlines
    safety: Safety
    lerobot: LeRobotSection | None = None
    """LeRobot's names and units of this arm, where it is one of LeRobot's."""

    def to_dict(self) -> dict[str, object]:
        """Plain lists, mappings, numbers and strings, with every default written out; ``from_dict`` takes it back."""
        data = asdict(self)
        for joint in data["joints"]:
            if joint["kind"] == "continuous":
                del joint["position"]
        command = _nested_qos(data.pop("command")) | {"interface": data.pop("command_interface")}
        gripper = data.pop("gripper_command")
        data["topics"] = {
            "joint_states": [_nested_qos(topic) for topic in data.pop("joint_states")],
            "command": command | ({"gripper": gripper} if gripper else {}),
            "status": _nested_qos(data.pop("status")),
            "stop": data.pop("stop"),
            "estop": data.pop("estop"),
        }
        data["contract"] = VERSION
        data.pop("lerobot")
        if self.lerobot is not None:
            data["lerobot"] = self.lerobot.to_dict()
        return {key: _lists(value) for key, value in data.items()}


def _nested_qos(topic: dict[str, object]) -> dict[str, object]:
    named: dict[str, object] = {key: topic.pop(key) for key in ("name", "publishers") if key in topic}
    return {**named, "qos": topic}


def _lists(value: object) -> object:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_lists(item) for item in value]
    return value
