"""The robot contract: one file that says what the arm is, how far and fast it may move, and when silence is a fault.

The same file records, converts, trains and deploys. What a policy learns from it (joints, order, units, cameras, action
rate) is hashed into stores and checkpoints and has to agree; the rest is deployment and may differ.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from robo_hw.contract import differences as contract_differences
from robo_hw.contract.lerobot_units import LeRobotSection, with_calibration
from robo_hw.contract.reading import load_yaml
from robo_hw.errors import ContractError, ContractMismatchError

VERSION = 2
"""Of the file format."""
UNIT_OF_KIND = {"revolute": "rad", "continuous": "rad", "prismatic": "m", "fraction": "1"}
"""The only unit each kind of joint may have: degrees among radians are the commonest way to break an arm."""
INTERFACES = ("joint_trajectory", "forward_command", "follow_joint_trajectory", "joint_jog")
"""How a controller can be spoken to."""


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

    name: str
    topic: str
    width: int
    height: int
    rate: float
    degraded_after: float
    stop_after: float
    frozen_after: float
    """How long the picture may stay the same, pixel for pixel, while the arm moves."""


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
    heartbeat: float
    """Longest silence in seconds before that disarms, too; 0: silence is allowed, as for latched topics."""


@dataclass(frozen=True)
class EstopSource:
    """A topic (std_msgs/msg/Bool) on which ``true`` is an emergency stop; any source stops, each releases its own."""

    name: str
    heartbeat: float
    """Longest silence in seconds before that is a stop, too; 0: silence is allowed."""


@dataclass(frozen=True)
class GripperCommand:
    """An output of its own for the gripper joint: its position leaves the arm's command and goes there."""

    name: str
    interface: str
    """``gripper_command``: a control_msgs GripperCommand action."""
    max_effort: float
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

    control: float
    actions: float
    joint_states: float


@dataclass(frozen=True)
class Deadlines:
    """Seconds on the steady clock."""

    joint_states: float
    """Older joint states are a fault."""
    actions: float
    """Running longer than this without a new chunk stops the arm."""
    chunk: float
    """A chunk whose observation is older than this is dropped."""
    tick: float
    """A control tick later than this finds the arm braking."""
    idle: float
    """Holding longer than this without a chunk disarms: a motion must not begin when nobody expects it any more."""
    skew: float
    """Largest difference in time between a picture and the joint state that are given to the policy together."""


@dataclass(frozen=True)
class Safety:
    """How cautious to be."""

    cool_down: float
    """Seconds between the last fault and the earliest reset."""
    reserve: float
    """Share (0..1) of acceleration and jerk that following the path leaves to braking."""
    max_stop_time: float
    """Seconds within which the arm can always stop; it slows down beforehand rather than exceed it."""
    degraded_rate: float
    """Speed (share of nominal) while an observation is late but not yet past its deadline."""
    max_horizon: int
    """Longest chunk accepted, in actions."""
    rejections_before_fault: int
    """So many malformed chunks in a row are a fault."""
    in_fault: str
    """``silent``: command nothing, for controllers that hold by themselves; ``follow_measured``: hold the measured pose
    and let go of it when the arm is moved, for controllers that keep the last command for ever."""
    arm_states: int
    """How many consecutive joint states have to agree, with each other and with their velocities, to arm."""
    rearm_after_restart: bool
    """Whether a policy server that came back needs a new ``arm``."""
    zero_pose: str
    """``refuse`` or ``allow``: arming while every joint reads exactly 0, which many drivers say before they know."""
    start_pose: str
    """``off``, ``warn`` or ``refuse``: arming in a pose that no demonstration began near."""


@dataclass(frozen=True)
class RobotContract:
    """A whole, validated contract. Make it with ``load`` or ``from_dict``."""

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

    @classmethod
    def load(cls, path: str | Path) -> RobotContract:
        """Read and validate a contract file; a bare name such as ``so101`` means a packaged example.

        Raises:
            ContractError: lists every problem of the file at once, each with its key and what to give instead.
        """
        found = Path(path)
        if not found.exists() and found.suffix == "" and str(path) in example_contracts():
            found = Path(str(resources.files("robo_hw").joinpath("contracts", f"{path}.yaml")))
        elif not found.exists():
            raise ContractError(
                f"contract {path}: no such file; give a YAML file or one of the examples: "
                + ", ".join(example_contracts())
            )
        return cls.from_dict(with_calibration(load_yaml(found), found.parent), source=str(path))

    @classmethod
    def from_dict(cls, data: Any, source: str = "contract") -> RobotContract:
        """Validate a mapping of the form ``to_dict`` gives.

        Raises:
            ContractError: lists every problem at once.
        """
        from robo_hw.contract.rules import build_contract

        contract, problems = build_contract(data)
        if contract is None or problems:
            lines = "\n".join(f"  - {problem}" for problem in problems)
            count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
            raise ContractError(f"contract {source}: {count}\n{lines}")
        return contract

    def to_dict(self) -> dict[str, Any]:
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
        return _lists(data)

    def learned(self) -> dict[str, Any]:
        """What a policy learns from the contract: joints with kind, unit and order, gripper, cameras, action rate.

        The order of the cameras has no meaning: they go by name.
        """
        return contract_differences.learned_part(self.to_dict())

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of ``learned``: independent of comments, key order, spelling of numbers, and of deployment."""
        text = json.dumps(self.learned(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def difference(self, other: RobotContract) -> list[str]:
        """The fields of the learned part in which ``other`` differs, one line each; empty: a policy fits both."""
        return contract_differences.learned_differences(self.to_dict(), other.to_dict())

    def deployment_difference(self, other: RobotContract) -> list[str]:
        """The other fields that differ (limits, topics, QoS, deadlines, ...), one line each: allowed, to be logged."""
        return contract_differences.deployment_differences(self.to_dict(), other.to_dict())

    def wider_limits(self, other: RobotContract) -> list[str]:
        """Limits here that lie beyond those of ``other``, which a policy was trained with; one line each.

        A policy never saw what is out there, so a person has to confirm them. Joints are compared by name.
        """
        return contract_differences.wider_limits(self, other)

    def require_same(self, other: RobotContract, other_name: str = "the other contract") -> None:
        """Refuse to go on unless a policy for one fits the other.

        Raises:
            ContractMismatchError: names every field of the learned part that differs.
        """
        lines = self.difference(other)
        if lines:
            raise ContractMismatchError(
                f"the contract of {self.robot} differs from {other_name} in {len(lines)} field"
                f"{'s' if len(lines) != 1 else ''}; use the contract that the policy was trained with:\n"
                + "\n".join(f"  - {line}" for line in lines)
            )

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The joints in command order."""
        return tuple(joint.name for joint in self.joints)

    @property
    def state_names(self) -> tuple[str, ...]:
        """The joints' names in joint-state messages, in command order."""
        return tuple(joint.state_name for joint in self.joints)

    def array(self, field: str) -> np.ndarray:
        """One number of every joint as (D,) float64, e.g. ``array("velocity")``; (D, 2) for ``position``, which
        is infinite where a joint is continuous."""
        return np.array([getattr(joint, field) for joint in self.joints], dtype=np.float64)


def example_contracts() -> tuple[str, ...]:
    """Names of the contracts that come with the package; ``RobotContract.load`` takes them."""
    folder = resources.files("robo_hw").joinpath("contracts")
    return tuple(sorted(item.name[: -len(".yaml")] for item in folder.iterdir() if item.name.endswith(".yaml")))


def _nested_qos(topic: dict[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = {key: topic.pop(key) for key in ("name", "publishers") if key in topic}
    return {**named, "qos": topic}


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_lists(item) for item in value]
    return value
