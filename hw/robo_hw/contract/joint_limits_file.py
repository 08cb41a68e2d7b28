"""MoveIt's ``joint_limits.yaml``: limits of velocity, acceleration, jerk and position, each with a flag."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from robo_hw.contract.reading import read_file
from robo_hw.contract.urdf import MOST_TURNS
from robo_hw.errors import ContractError

_MOST_BYTES = 1024 * 1024
_WRAPPERS = ("/**", "ros__parameters", "robot_description_planning", "move_group")
_QUANTITIES = ("velocity", "acceleration", "jerk")


@dataclass(frozen=True)
class JointLimits:
    """Limits of one joint in rad or m and its derivatives; None where the file does not set one."""

    velocity: float | None = None
    acceleration: float | None = None
    jerk: float | None = None
    position: tuple[float, float] | None = None


class _Loader(yaml.SafeLoader):
    """The safe loader with the tags !degrees and !radians, which descriptions of robots use."""


_Loader.add_constructor("!degrees", lambda loader, node: math.radians(float(loader.construct_scalar(node))))
_Loader.add_constructor("!radians", lambda loader, node: float(loader.construct_scalar(node)))


def read_joint_limits(path: Path, joints: Sequence[str], turning: Sequence[str] = ()) -> Mapping[str, JointLimits]:
    """The limits of each joint that the file names.

    Args:
        path: the file, plain or as ROS 2 parameters.
        joints: of the robot; others in the file are refused.
        turning: those of them in rad.

    Raises:
        ContractError: it cannot be read, has another form, names other joints, or has values that are not limits or
        are in degrees; one line with the joint and the key.
    """
    content = read_file(path, "limits", "joint_limits.yaml", _MOST_BYTES)
    try:
        data = yaml.load(content.decode("utf-8"), Loader=_Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ContractError(f"limits {path}: not valid YAML: {' '.join(str(error).split())}") from None
    entries = _entries(data)
    if not entries:
        raise ContractError(
            f"limits {path}: no joint_limits in it; MoveIt's form is joint_limits: {{JOINT: {{has_velocity_limits: "
            "true, max_velocity: ...}}"
        )
    wrong: list[str] = []
    found = {}
    for name, entry in entries.items():
        if str(name) not in joints:
            near = difflib.get_close_matches(str(name), joints, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(joints)}"
            wrong.append(f"{name} is not a joint of the robot{hint}")
        elif not isinstance(entry, dict):
            wrong.append(f"{name}: a mapping of limits is needed")
        else:
            found[str(name)] = _limits(str(name), entry, str(name) in turning, wrong)
    if wrong:
        raise ContractError(f"limits {path}: {'; '.join(wrong)}")
    return found


def _entries(data: object) -> dict[object, object]:
    while isinstance(data, dict):
        if isinstance(data.get("joint_limits"), dict):
            entries: dict[object, object] = data["joint_limits"]
            return entries
        inner = [data[key] for key in data if str(key).strip("/") in {w.strip("/") for w in _WRAPPERS}]
        if len(inner) != 1:
            break
        data = inner[0]
    return {}


def _limits(name: str, entry: Mapping[object, object], turns: bool, wrong: list[str]) -> JointLimits:
    values: dict[str, float | None] = {}
    for quantity in _QUANTITIES:
        value = _value(name, entry, f"has_{quantity}_limits", f"max_{quantity}", wrong)
        if value is not None and value <= 0:
            wrong.append(f"{name}: max_{quantity} {value:g} must be above 0")
        if value is not None and quantity == "velocity" and turns and value > 50:
            wrong.append(
                f"{name}: max_velocity {value:g} rad/s is not an arm's speed; these look like degrees per second"
            )
        values[quantity] = value
    ends = [_value(name, entry, "has_position_limits", key, wrong) for key in ("min_position", "max_position")]
    position = None
    if ends[0] is not None and ends[1] is not None:
        position = (ends[0], ends[1])
        if position[0] >= position[1]:
            wrong.append(f"{name}: min_position {position[0]:g} is not below max_position {position[1]:g}")
        elif turns and max(abs(position[0]), abs(position[1])) > MOST_TURNS:
            wrong.append(
                f"{name}: {position[0]:g} to {position[1]:g} rad is more than two turns; these look like degrees"
            )
    return JointLimits(values["velocity"], values["acceleration"], values["jerk"], position)


def _value(name: str, entry: Mapping[object, object], flag: str, key: str, wrong: list[str]) -> float | None:
    """A limit whose flag is true, or that has no flag."""
    if entry.get(flag, key in entry) is not True:
        return None
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        wrong.append(f"{name}: {flag} is true and {key} is {value!r}, not a number")
        return None
    return float(value)
