"""A contract to complete, from what a robot's own files say; what no file can say is marked TODO by name.

A TODO is never a default: loading the contract lists every one that is left, and refuses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from robo_hw.contract.joint_limits_file import JointLimits
from robo_hw.contract.parts import MotorRange
from robo_hw.contract.reading import TODO
from robo_hw.contract.urdf import Urdf, UrdfJoint
from robo_hw.errors import ContractError

_PLACEHOLDER = 50.0
"""rad/s: descriptions that were converted from CAD say 100 or 1000 where nobody knew."""
_LEROBOT_TICKS = 4096


@dataclass(frozen=True)
class Draft:
    """The text of the contract, and what was noticed on the way, one line each."""

    text: str
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _Line:
    name: str
    kind: str
    position: tuple[float, float] | None
    velocity: float | None
    acceleration: float | None
    jerk: float | None


def draft_contract(
    urdf: Urdf | None,
    limits: Mapping[str, JointLimits] | None = None,
    calibration: Mapping[str, MotorRange] | None = None,
    calibration_file: str = "",
    sources: str = "",
) -> Draft:
    """Write a contract to complete.

    Args:
        urdf: the robot's joints; None where only ``calibration`` says them.
        limits: of MoveIt, by joint; the narrower of the two counts.
        calibration: of LeRobot, by motor.
        calibration_file: what the contract shall call it, relative to the contract's own place.
        sources: named in the first comment.

    Raises:
        ContractError: neither ``urdf`` nor ``calibration`` is given.
    """
    remarks: list[str] = []
    if urdf is not None:
        robot = urdf.robot
        lines = [_line(joint, (limits or {}).get(joint.name), remarks) for joint in urdf.joints]
        remarks += [f"left out: {line}" for line in urdf.left_out]
    elif calibration:
        robot = TODO
        lines = [_of_motor(name, motor) for name, motor in sorted(calibration.items(), key=lambda item: item[1].id)]
        remarks.append("joints and positions are the calibration's alone: zero is the middle of each calibrated range")
    else:
        raise ContractError("a contract is made from urdf=FILE, lerobot=CALIBRATION, or both; neither was given")
    text = [
        f"# A contract to complete{': from ' + sources if sources else ''}. Replace every TODO; loading it lists them.",
        "contract: 2",
        f"robot: {json.dumps(robot) if robot != TODO else TODO}",
        "# In the order of commands: check it against controller and recordings. Velocity, acceleration and jerk:",
        "# what you want to see, not what the arm can do. following_error: lag behind the command that is a fault.",
        "joints:",
    ]
    for line in lines:
        text += _joint_text(line)
    text += _rest(lines)
    if calibration is not None:
        text += _lerobot(lines, calibration, calibration_file, remarks)
    return Draft("\n".join(text) + "\n", tuple(remarks))


def _line(joint: UrdfJoint, limit: JointLimits | None, remarks: list[str]) -> _Line:
    position, velocity = joint.position, joint.velocity
    if joint.soft:
        remarks.append(f"{joint.name}: position is that of its safety_controller, narrower than its limit")
    if limit is not None and limit.position is not None and joint.kind != "continuous":
        low, high = limit.position
        inner = limit.position if position is None else (max(low, position[0]), min(high, position[1]))
        if position is not None and inner[0] >= inner[1]:
            raise ContractError(
                f"{joint.name}: position [{low:g}, {high:g}] of the limits lies outside [{position[0]:g}, "
                f"{position[1]:g}] of the URDF; one of the two is another robot's"
            )
        position = inner
    if velocity is not None and joint.kind != "prismatic" and velocity > _PLACEHOLDER:
        remarks.append(f"{joint.name}: velocity {velocity:g} rad/s of the URDF is a placeholder or degrees; left TODO")
        velocity = None
    if limit is not None and limit.velocity is not None:
        velocity = limit.velocity if velocity is None else min(velocity, limit.velocity)
    if joint.kind == "continuous":
        remarks.append(f"{joint.name} is continuous: it has no position limits and wraps at +-pi")
    acceleration, jerk = (limit.acceleration, limit.jerk) if limit is not None else (None, None)
    return _Line(joint.name, joint.kind, position, velocity, acceleration, jerk)


def _of_motor(name: str, motor: MotorRange) -> _Line:
    half = (motor.range_max - motor.range_min) / 2 * 2 * math.pi / (_LEROBOT_TICKS - 1)
    half = math.floor(half * 1000) / 1000  # inwards
    return _Line(name, "revolute", (-half, half), None, None, None)


def _joint_text(line: _Line) -> list[str]:
    unit = "m" if line.kind == "prismatic" else "rad"
    place = "" if line.kind == "continuous" else f", position: {_pair(line.position)}"
    values = {"velocity": line.velocity, "acceleration": line.acceleration, "jerk": line.jerk, "following_error": None}
    shown = ", ".join(f"{key}: {_shown(value)}" for key, value in values.items())
    return [
        f"  - {{name: {json.dumps(line.name)}, kind: {line.kind}, unit: {unit}{place},",
        f"     {shown}}}",
    ]


def _rest(lines: list[_Line]) -> list[str]:
    grippers = [line for line in lines if any(word in line.name.lower() for word in ("gripper", "finger", "jaw"))]
    gripper = ["# No file says which joint is the gripper. Where there is one, give it saturate: true above, and:"]
    named = json.dumps(grippers[0].name if grippers else lines[-1].name)
    gripper.append(f"# gripper: {{joint: {named}, open: ..., closed: ...}}")
    return [
        *gripper,
        "# What the policy sees, at the size that is recorded; [] where it sees nothing. For example:",
        "#   - {name: front, topic: front/image_raw, width: 640, height: 480, rate: 30,",
        "#      degraded_after: 0.15, stop_after: 0.4, frozen_after: 1.0}",
        f"cameras: {TODO}",
        "# Relative names get the node's namespace.",
        "topics:",
        "  joint_states: {name: joint_states}",
        "  # interface: joint_trajectory, forward_command, follow_joint_trajectory or joint_jog; without ROS, any.",
        f"  command: {{name: {TODO}, interface: {TODO}}}",
        "# Hz. actions: the rate of the recordings.",
        f"rates: {{control: {TODO}, actions: {TODO}, joint_states: {TODO}}}",
        "# Seconds: oldest joint state, longest time without a chunk, oldest observation of a chunk, latest tick.",
        f"deadlines: {{joint_states: {TODO}, actions: {TODO}, chunk: {TODO}, tick: {TODO}}}",
        f"safety: {{cool_down: {TODO}, max_stop_time: {TODO}}}",
    ]


def _lerobot(lines: list[_Line], calibration: Mapping[str, MotorRange], file: str, remarks: list[str]) -> list[str]:
    text = [
        "lerobot:",
        f"  robots: [{TODO}]",
        "  # degrees, or range_m100_100 (use_degrees: false): LeRobot's files do not say which.",
        f"  units: {TODO}",
        f"  calibration: {json.dumps(file)}",
    ]
    if any(motor.drive_mode for motor in calibration.values()):
        text += [
            "  # true: Feetech, where LeRobot turns the value round; false: Dynamixel.",
            f"  apply_drive_mode: {TODO}",
        ]
    entries = []
    for line in lines:
        if line.name not in calibration:
            entries.append(f"    - {{joint: {json.dumps(line.name)}, name: {TODO}}}")
            remarks.append(f"{line.name}: the calibration has no motor of this name; it has {', '.join(calibration)}")
        elif "gripper" in line.name.lower():
            entries.append(
                f"    # LeRobot's grippers go from 0 (closed) to 100; range: positions there.\n"
                f"    - {{joint: {json.dumps(line.name)}, units: range_0_100, range: [{TODO}, {TODO}]}}"
            )
    left = [name for name in calibration if name not in {line.name for line in lines}]
    if left:
        remarks.append(f"motors of the calibration without a joint: {', '.join(left)}")
    return [*text, *(["  joints:", *entries] if entries else [])]


def _pair(position: tuple[float, float] | None) -> str:
    return TODO if position is None else f"[{_shown(position[0])}, {_shown(position[1])}]"


def _shown(value: float | None) -> str:
    if value is None:
        return TODO
    text = repr(float(value))
    # YAML 1.1 reads 1e-05 as text.
    return text if "e" not in text else f"{value:.12f}"
