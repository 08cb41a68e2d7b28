"""What a URDF says of a robot's joints; only what a contract needs, and nothing outside the file is ever read."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

from robo_hw.contract.reading import read_file
from robo_hw.errors import ContractError

_MOST_BYTES = 64 * 1024 * 1024
MOST_TURNS = 4 * math.pi
"""Position limits beyond two turns are degrees."""
_MOVING = ("revolute", "continuous", "prismatic")


@dataclass(frozen=True)
class UrdfJoint:
    """One joint that moves; limits in rad or m, None where the file does not say them."""

    name: str
    kind: str
    position: tuple[float, float] | None
    velocity: float | None
    soft: bool = False
    """Whether the position is that of its safety_controller, which is narrower than its limit."""


@dataclass(frozen=True)
class Urdf:
    """A robot's name, its joints in the order of the file, and what was left out, one line each."""

    robot: str
    joints: tuple[UrdfJoint, ...]
    left_out: tuple[str, ...] = field(default=())


def read_urdf(path: Path) -> Urdf:
    """Read a URDF.

    Raises:
        ContractError: it is missing, not XML, xacro (says the command to run), another format, has no joint that
        moves, or has limits in degrees; one line, with the joint.
    """
    text = read_file(path, "urdf", "URDF", _MOST_BYTES)
    if path.suffix == ".xacro" or b"xmlns:xacro" in text or b"<xacro:" in text:
        out = path.name.removesuffix(".xacro").removesuffix(".urdf") + ".urdf"
        out = out if out != path.name else f"expanded_{out}"
        raise ContractError(
            f"urdf {path}: this is xacro, which has to be expanded first: xacro {path} > {out} "
            "(ros2 run xacro xacro; give the arguments that its launch file gives, such as name:=ur ur_type:=ur5e)"
        )
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ContractError(f"urdf {path}: has a document type or entities, which a URDF does not need; remove them")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ContractError(f"urdf {path}: not valid XML: {error}") from None
    if root.tag != "robot":
        kind = {"mujoco": "MJCF", "sdf": "SDF", "launch": "a launch file"}.get(root.tag, f"<{root.tag}>")
        raise ContractError(f"urdf {path}: this is {kind}, not a URDF, whose first element is <robot>")
    return _read(path, root)


def _read(path: Path, root: ElementTree.Element) -> Urdf:
    joints: list[UrdfJoint] = []
    left_out: list[str] = []
    wrong: list[str] = []
    fixed, seen = 0, set()
    # Only children of <robot>: transmissions and ros2_control have elements of the same name.
    for element in root.findall("joint"):
        name, kind = element.get("name", ""), element.get("type", "")
        if not name:
            wrong.append("a joint has no name")
            continue
        if name in seen:
            wrong.append(f"{name}: given twice")
        seen.add(name)
        mimic = element.find("mimic")
        if kind == "fixed":
            fixed += 1
        elif mimic is not None:
            left_out.append(f"{name} follows {mimic.get('joint')} (mimic)")
        elif kind not in _MOVING:
            left_out.append(f"{name} is of type {kind or 'unknown'}, which a contract has no joint for")
        else:
            joints.append(_joint(element, name, kind, wrong))
    if fixed:
        left_out.append(f"{fixed} fixed joint{'s' if fixed != 1 else ''}")
    if not joints and not wrong:
        wrong.append("no joint moves")
    if wrong:
        raise ContractError(f"urdf {path}: {'; '.join(wrong)}")
    return Urdf(root.get("name") or path.stem, tuple(joints), tuple(left_out))


def _joint(element: ElementTree.Element, name: str, kind: str, wrong: list[str]) -> UrdfJoint:
    limit, soft = element.find("limit"), element.find("safety_controller")
    lower, upper = (_number(limit, key, name, wrong) for key in ("lower", "upper"))
    velocity = _number(limit, "velocity", name, wrong)
    if kind == "continuous":
        return UrdfJoint(name, kind, None, velocity or None)
    # The format's default is 0 for both: a limit without them says nothing.
    position = None if lower is None and upper is None else (lower or 0.0, upper or 0.0)
    if position is not None and position[0] >= position[1]:
        if position != (0.0, 0.0):
            wrong.append(f"{name}: lower limit {position[0]:g} is not below upper limit {position[1]:g}")
        position = None
    narrowed = False
    if position is not None and soft is not None:
        low, high = (_number(soft, f"soft_{end}_limit", name, wrong) for end in ("lower", "upper"))
        inner = (
            max(position[0], position[0] if low is None else low),
            min(position[1], position[1] if high is None else high),
        )
        if inner[0] < inner[1]:
            narrowed, position = inner != position, inner
    if position is not None and kind == "revolute" and max(abs(position[0]), abs(position[1])) > MOST_TURNS:
        wrong.append(
            f"{name}: limits {position[0]:g} to {position[1]:g} rad are more than two turns: these are degrees, and a "
            "URDF is in radians"
        )
    return UrdfJoint(name, kind, position, velocity or None, narrowed)


def _number(element: ElementTree.Element | None, key: str, joint: str, wrong: list[str]) -> float | None:
    text = None if element is None else element.get(key)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        wrong.append(f"{joint}: {key}={text!r} is not a number")
        return None
    if not math.isfinite(value):
        wrong.append(f"{joint}: {key}={text!r} is not finite")
        return None
    return value
