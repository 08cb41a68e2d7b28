"""The robot contract: one file that says what the arm is, how far and fast it may move, and when silence is a fault.

The same file records, converts, trains and deploys. Its hash goes into the store and the checkpoint; where two differ,
``difference`` names the fields.
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

from robo_hw.errors import ContractError, ContractMismatchError
from robo_hw.lerobot_units import LeRobotSection, with_calibration
from robo_hw.reading import load_yaml

UNIT_OF_KIND = {"revolute": "rad", "prismatic": "m", "fraction": "1"}
"""The only unit each kind of joint may have: degrees among radians are the commonest way to break an arm."""


@dataclass(frozen=True)
class Joint:
    """One joint; positions in ``unit``, its derivatives in unit/s, unit/s^2 and unit/s^3."""

    name: str
    kind: str
    """``revolute`` (rad), ``prismatic`` (m) or ``fraction`` (a gripper from 0 closed to 1 open)."""
    unit: str
    position: tuple[float, float]
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
    arm_tolerance: float
    """How far outside its limits (in the joint's unit) a joint may rest when the arm is armed."""


@dataclass(frozen=True)
class RobotContract:
    """A whole, validated contract. Make it with ``load`` or ``from_dict``."""

    robot: str
    joints: tuple[Joint, ...]
    gripper: Gripper | None
    cameras: tuple[Camera, ...]
    command_interface: str
    """``joint_trajectory`` or ``forward_command``."""
    joint_states: Topic
    command: Topic
    status: Topic
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
        from robo_hw.contract_rules import build_contract

        contract, problems = build_contract(data)
        if contract is None or problems:
            lines = "\n".join(f"  - {problem}" for problem in problems)
            count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
            raise ContractError(f"contract {source}: {count}\n{lines}")
        return contract

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, mappings, numbers and strings, with every default written out; ``from_dict`` takes it back."""
        data = asdict(self)
        topics = {name: _nested_qos(data.pop(name)) for name in ("joint_states", "command", "status")}
        topics["command"]["interface"] = data.pop("command_interface")
        data["topics"] = topics
        data["contract"] = 1
        data.pop("lerobot")
        if self.lerobot is not None:
            data["lerobot"] = self.lerobot.to_dict()
        return _lists(data)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the meaning (hex): independent of comments, key order, spelling of numbers, written defaults."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def difference(self, other: RobotContract) -> list[str]:
        """The fields in which ``other`` differs, one line each, empty when the two mean the same."""
        mine, theirs = _flat(self.to_dict()), _flat(other.to_dict())
        lines = [
            f"{key}: {_shown(mine, key)} here, {_shown(theirs, key)} there"
            for key in dict.fromkeys([*mine, *theirs])
            if mine.get(key, _ABSENT) != theirs.get(key, _ABSENT)
        ]
        ours, others = self.joint_names, other.joint_names
        if ours != others and sorted(ours) == sorted(others):
            lines.insert(0, f"joints: order {', '.join(ours)} here, {', '.join(others)} there")
        return lines

    def require_same(self, other: RobotContract, other_name: str = "the other contract") -> None:
        """Refuse to go on unless ``other`` means the same.

        Raises:
            ContractMismatchError: names every field that differs.
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

    def array(self, field: str) -> np.ndarray:
        """One number of every joint as (D,) float64, e.g. ``array("velocity")``; (D, 2) for ``position``."""
        return np.array([getattr(joint, field) for joint in self.joints], dtype=np.float64)


def example_contracts() -> tuple[str, ...]:
    """Names of the contracts that come with the package; ``RobotContract.load`` takes them."""
    folder = resources.files("robo_hw").joinpath("contracts")
    return tuple(sorted(item.name[: -len(".yaml")] for item in folder.iterdir() if item.name.endswith(".yaml")))


_ABSENT = object()


def _nested_qos(topic: dict[str, Any]) -> dict[str, Any]:
    return {"name": topic.pop("name"), "qos": topic}


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_lists(item) for item in value]
    return value


def _flat(value: Any, where: str = "") -> dict[str, Any]:
    """Leaves by path; lists of named things by name, so that an inserted joint does not shift all the others."""
    if isinstance(value, dict):
        items = [(f"{where}.{key}" if where else str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        items = [(f"{where}[{item['name']}]", item) for item in value]
    else:
        return {where: value}
    return {path: leaf for key, item in items for path, leaf in _flat(item, key).items()}


def _shown(leaves: dict[str, Any], key: str) -> str:
    return json.dumps(leaves[key]) if key in leaves else "absent"
