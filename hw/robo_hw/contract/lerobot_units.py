"""The contract's optional section ``lerobot``: how LeRobot's names and units of an arm become the contract's.

LeRobot's data sets name a value ``shoulder_pan.pos`` and give it in degrees, or as a fraction of the calibrated range
(-100 to 100, grippers 0 to 100); nothing in a data set says which. The contract says it, so nothing is ever guessed:

    lerobot:
      robots: [so101_follower]               # types of lerobot.robots that this section is for
      units: degrees                         # of every joint that says nothing else
      calibration: my_arm.json               # LeRobot's file; needed where a fraction of the range has no `range`
      joints:
        - {joint: gripper, name: gripper.pos, units: range_0_100, range: [-0.174, 1.745]}

Every joint is one straight line, q = zero + scale * v, with q in the contract's unit and v in LeRobot's. As in
``lerobot.motors.motors_bus`` (0.4 to 0.6): degrees count from the middle of the calibrated range, a turn has
``ticks - 1`` steps, and ``drive_mode`` turns fractions of the range round, never degrees.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robo_hw.contract.parts import ENDS, UNIT_OF_KIND, ContractFields, Joint, LeRobotJoint, LeRobotSection, MotorRange
from robo_hw.contract.reading import Reader, read_file
from robo_hw.errors import ContractError

SHOWN = {
    "degrees": "degrees",
    "radians": "rad",
    "metres": "m",
    "range_m100_100": "-100..100",
    "range_0_100": "0..100",
    "fraction": "0..1",
}
_FITS = {
    "rad": ("degrees", "radians", "range_m100_100", "range_0_100", "fraction"),
    "m": ("metres", "range_m100_100", "range_0_100", "fraction"),
    "1": ("fraction", "range_0_100", "range_m100_100"),
}
_SAME = {"radians": "rad", "metres": "m", "fraction": "1"}


class LeRobotUnits:
    """Converts positions between a contract and LeRobot.

    Raises:
        ContractError: the contract has no section ``lerobot``.
    """

    def __init__(self, contract: ContractFields) -> None:
        section = contract.lerobot
        if section is None:
            raise ContractError(
                f"contract {contract.robot} has no section lerobot: add one that says LeRobot's names and units"
            )
        self.section = section
        self.names = section.names
        self._scale = np.array([joint.scale for joint in section.joints])
        self._zero = np.array([joint.zero for joint in section.joints])

    def to_contract(self, values: npt.ArrayLike) -> np.ndarray:
        """Positions (..., D) in LeRobot's units as float64 in the contract's, its joint order kept."""
        return np.asarray(self._zero + self._scale * np.asarray(values, np.float64))

    def from_contract(self, positions: npt.ArrayLike) -> np.ndarray:
        """Positions (..., D) in the contract's units as float64 in LeRobot's."""
        return np.asarray((np.asarray(positions, np.float64) - self._zero) / self._scale)

    def described(self) -> str:
        """The units in a few words, for people."""
        found: dict[str, list[str]] = {}
        for joint in self.section.joints:
            found.setdefault(SHOWN[joint.units], []).append(joint.joint)
        if len(found) == 1:
            return next(iter(found))
        most = max(found, key=lambda unit: len(found[unit]))
        return ", ".join([most, *(f"{' and '.join(names)} {unit}" for unit, names in found.items() if unit != most)])

    def unit(self, index: int) -> str:
        """LeRobot's unit of one joint, for people."""
        return SHOWN[self.section.joints[index].units]


def read_section(root: Reader, joints: Sequence[Joint]) -> LeRobotSection | None:
    """The contract's section ``lerobot``, or None where it has none; problems are recorded with the reader."""
    if not root.has("lerobot"):
        root.ignore("lerobot")
        return None
    reader = root.section("lerobot", "LeRobot's names and units, or leave it out")
    robots = reader.texts("robots", "the types of lerobot.robots that this is for, e.g. [so101_follower]", default=())
    units = _units(reader, None)
    ticks = reader.whole("ticks", "encoder steps in a turn", default=4096, least=16, most=10_000_000)
    flips = reader.flag("apply_drive_mode", "true (Feetech) or false (Dynamixel)", default=None)
    apply = flips if reader.has("apply_drive_mode") else None
    calibration = _calibration(reader)
    entries = _entries(reader, joints)
    made = []
    for joint in joints:
        entry = entries.get(joint.name)
        made.append(_joint(entry, reader, joint, units, ticks, apply, calibration))
    names = [one.name for one in made]
    for name in sorted({name for name in names if names.count(name) > 1}):
        reader.problem("joints", f"the name {name!r} is given twice")
    reader.finish()
    return LeRobotSection(tuple(robots), units, ticks, apply, calibration, tuple(made))


def _entries(reader: Reader, joints: Sequence[Joint]) -> dict[str, Reader]:
    known = [joint.name for joint in joints]
    found: dict[str, Reader] = {}
    for entry in reader.items("joints", "a list of {joint, name, units, ...}", empty=True):
        name = entry.text("joint", "the joint's name in this contract")
        if name and name not in known:
            entry.problem("joint", f"{name!r} is not a joint of this contract; choose one of {', '.join(known)}")
        elif name in found:
            entry.problem("joint", f"{name!r} is given twice")
        found[name] = entry
    return found


def _units(reader: Reader, default: str | None) -> str | None:
    if not reader.has("units"):
        reader.ignore("units")
        return default
    return reader.text("units", "LeRobot's unit", choices=tuple(ENDS)) or default


def _joint(
    entry: Reader | None,
    section: Reader,
    joint: Joint,
    units: str | None,
    ticks: int,
    apply: bool | None,
    calibration: Mapping[str, MotorRange] | None,
) -> LeRobotJoint:
    key, unit = joint.name, UNIT_OF_KIND.get(joint.kind, joint.unit)
    name, sign, offset, span = f"{key}.pos", 1, 0.0, None
    if entry is not None:
        name = entry.text("name", "LeRobot's name of this joint", default=name)
        units = _units(entry, units)
        sign = entry.whole("sign", "1 or -1", default=1, least=-1, most=1)
        if sign == 0:
            entry.problem("sign", "0 is neither 1 nor -1")
            sign = 1
        offset = entry.number("offset", f"the position at LeRobot's zero in {unit}", default=0.0)
        span = entry.pair("range", f"positions in {unit} at both ends of LeRobot's range") or None
        entry.finish()
        if span is not None and units in ENDS:
            _far_range(section, joint, span)
    if units is None:
        section.problem("units", f"missing for {key}; give one of {', '.join(ENDS)}")
        units = "radians"
    elif units in ENDS and units not in _FITS.get(unit, ()):
        section.problem("joints", f"{key}: {units} does not fit a {joint.kind} joint, which is in {unit}")
    fraction = ENDS.get(units) is not None
    if span is not None and not fraction:
        section.problem("joints", f"{key}: range is for fractions of a range, not for {units}; leave it out")
    if fraction and span is None:
        span = _span(section, joint, name, units, sign, offset, ticks, apply, calibration)
    if name == key and _SAME.get(units) != unit:
        section.problem(
            "joints",
            f"{key}: LeRobot's name is the joint's own, but not its unit ({units}, not {unit}): recordings in "
            "one could not be distinguished from the other; rename the joint of the contract",
        )
    return LeRobotJoint(key, name, units if units in ENDS else "radians", sign, offset, span if fraction else None)


def _far_range(section: Reader, joint: Joint, span: tuple[float, float]) -> None:
    low, high = joint.position
    room = high - low
    if math.isfinite(room) and (min(span) < low - room or max(span) > high + room):
        section.problem(
            "joints",
            f"{joint.name}: range {list(span)} reaches far beyond the joint's limits [{low:g}, {high:g}] {joint.unit}; "
            f"give {joint.unit}, as the contract does" + (", not degrees" if joint.unit == "rad" else ""),
        )


def _span(
    section: Reader,
    joint: Joint,
    name: str,
    units: str,
    sign: int,
    offset: float,
    ticks: int,
    apply: bool | None,
    calibration: Mapping[str, MotorRange] | None,
) -> tuple[float, float]:
    """The contract's positions at the ends of a fraction of the range, from the calibration."""
    if joint.unit == "1":
        return (0.0, 1.0)
    motor = (calibration or {}).get(name.removesuffix(".pos"))
    if motor is None or joint.unit != "rad":
        missing = "the calibration has no such motor; " if calibration else ""
        what = f"range: [low, high] in {joint.unit}" + (", or calibration: FILE" if joint.unit == "rad" else "")
        section.problem("joints", f"{joint.name}: {SHOWN[units]} is a fraction of a range: {missing}give {what}")
        return (0.0, 1.0)
    if motor.drive_mode and apply is None:
        section.problem(
            "apply_drive_mode",
            f"missing; the calibration has drive_mode {motor.drive_mode} for {name}: give true (Feetech: LeRobot turns "
            "the value round) or false (Dynamixel: the motor does)",
        )
    half = sign * (motor.range_max - motor.range_min) / 2 * 2 * math.pi / (ticks - 1)
    if motor.drive_mode and apply:
        half = -half
    return (offset - half, offset + half)


def _calibration(reader: Reader) -> dict[str, MotorRange] | None:
    if not reader.has("calibration"):
        reader.ignore("calibration")
        return None
    given = reader.raw("calibration")
    if isinstance(given, str):
        reader.problem("calibration", f"{given!r}: a file can be named only in a contract file; give its content here")
        return None
    motors, problems = parse_calibration(given)
    for problem in problems:
        reader.problem("calibration", problem)
    return motors


def parse_calibration(data: object) -> tuple[dict[str, MotorRange], list[str]]:
    """LeRobot's calibration, motor -> range, and what is wrong with it, one line each."""
    if not isinstance(data, dict) or not data:
        return {}, ["not a LeRobot calibration: a mapping of motors to id, homing_offset, range_min, range_max"]
    motors, problems = {}, []
    keys = ("id", "drive_mode", "homing_offset", "range_min", "range_max")
    for name, entry in data.items():
        if not isinstance(entry, dict):
            problems.append(f"{name}: a mapping with {', '.join(keys)} is needed")
            continue
        wrong = [key for key in keys if isinstance(entry.get(key), bool) or not isinstance(entry.get(key), int)]
        if wrong:
            # Before 0.3 LeRobot wrote lists: homing_offset, drive_mode, start_pos, motor_names.
            problems.append(f"{name}: {', '.join(wrong)} is missing or not a whole number")
        elif not entry["range_min"] < entry["range_max"]:
            problems.append(f"{name}: range_min {entry['range_min']} is not below range_max {entry['range_max']}")
        else:
            motors[str(name)] = MotorRange(**{key: int(entry[key]) for key in keys})
    if "motor_names" in data:
        problems = [
            "a calibration of LeRobot before 0.3 (motor_names, start_pos); calibrate again with lerobot-calibrate"
        ]
    return motors, problems


def load_calibration(path: Path) -> dict[str, MotorRange]:
    """Read LeRobot's calibration file (``~/.cache/huggingface/lerobot/calibration/robots/TYPE/ID.json``).

    Raises:
        ContractError: it is missing, too long, not JSON, or not a calibration; names the motor.
    """
    motors, problems = parse_calibration(_read_json(path))
    if problems:
        raise ContractError(f"calibration {path}: {'; '.join(problems)}")
    return motors


def with_calibration(data: object, folder: Path) -> object:
    """A contract's mapping with the calibration file that its section ``lerobot`` names read in.

    ``folder``: of the contract file, to which the file's path is relative.

    Raises:
        ContractError: the file cannot be read.
    """
    section = data.get("lerobot") if isinstance(data, dict) else None
    given = section.get("calibration") if isinstance(section, dict) else None
    if not isinstance(data, dict) or not isinstance(section, dict) or not isinstance(given, str):
        return data
    content = _read_json(folder / Path(given).expanduser())
    return {**data, "lerobot": {**section, "calibration": content}}


def _read_json(path: Path) -> object:
    content = read_file(path, "calibration", "calibration", fix="lerobot-calibrate writes it")
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ContractError(f"calibration {path}: not valid JSON ({error})") from None


def reach_problems(contract: ContractFields, calibration: Mapping[str, MotorRange] | None = None) -> list[str]:
    """Joints that LeRobot cannot bring to the contract's limits, or that were not calibrated from end to end.

    ``calibration``: of the connected arm; the contract's own where it is None. LeRobot holds a fraction of the range at
    its ends, and the motor itself a position at its calibrated limits, without a word. One line a joint.
    """
    section = contract.lerobot
    if section is None:
        return []
    motors = calibration if calibration is not None else section.calibration
    lines = []
    for joint, mapped in zip(contract.joints, section.joints, strict=True):
        low, high = joint.position
        room = _ROOM * (high - low)
        span, source = mapped.range, f"{SHOWN[mapped.units]} of LeRobot"
        motor = (motors or {}).get(mapped.name.removesuffix(".pos"))
        if mapped.units == "degrees" and motor is not None:
            half = (motor.range_max - motor.range_min) / 2 * 2 * math.pi / (section.ticks - 1)
            span, source = (mapped.offset - half, mapped.offset + half), "the calibrated range"
        if span is None or joint.saturate:
            continue
        if min(span) > low + room or max(span) < high - room:
            lines.append(
                f"{joint.name}: {source} is [{min(span):.3g}, {max(span):.3g}] {joint.unit}, the contract's position "
                f"[{low:.3g}, {high:.3g}] goes beyond; calibrate the joint from end to end, or narrow the contract"
            )
    return lines


_ROOM = 0.06
"""Fraction of a joint's travel by which a calibration may fall short of the contract's limits."""
