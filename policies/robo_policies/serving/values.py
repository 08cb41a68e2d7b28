"""Are these values the contract's joints, in its order and units, or LeRobot's, which the contract says how to convert?

Nothing is guessed: names decide. What the numbers themselves look like can only contradict them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robo_hw import RobotContract
from robo_hw.contract.lerobot_units import SHOWN, LeRobotUnits
from robo_hw.contract.parts import ENDS
from robo_policies.feature_names import NamesError, flat_names

if TYPE_CHECKING:
    from robo_hw.contract.parts import Joint

_BEYOND = 0.05
"""Fraction of LeRobot's range by which a value may lie outside it: rounding, not another unit."""
_WILD = 3.0
"""So many times a position limit in radians is degrees."""
_STILL = 7.0
"""Degrees: an arm that moves no joint farther in a whole recording was recorded in radians."""


@dataclass(frozen=True)
class Values:
    """What the names of a feature's values say.

    ``units`` converts to and from the contract's; None where the values are in them. ``problem`` is empty where they
    fit; ``named`` is false where there are no names.
    """

    units: LeRobotUnits | None = None
    problem: str = ""
    named: bool = True

    def to_contract(self, values: npt.ArrayLike) -> np.ndarray:
        """Values (..., D) in the contract's units."""
        return np.asarray(values) if self.units is None else self.units.to_contract(values)

    def from_contract(self, positions: npt.ArrayLike) -> np.ndarray:
        """Positions (..., D) in the units of these values, float32."""
        found = positions if self.units is None else self.units.from_contract(positions)
        return np.asarray(found, np.float32)


def match_values(names: object, contract: RobotContract, what: str) -> Values:
    """How the values named ``names`` (in any form) become the contract's joints. ``what``: for messages, "action".

    Names in another order than the contract's are never accepted, whatever their form.
    """
    try:
        found = flat_names(names)
    except NamesError as error:
        return Values(problem=f"{what}: {error}")
    if found is None:
        return Values(named=False)
    joints, section = contract.joint_names, contract.lerobot
    if found == joints:
        return Values()
    if section is not None and found == section.names:
        return Values(LeRobotUnits(contract))
    if section is not None and len(set(found) & set(section.names)) > len(set(found) & set(joints)):
        return Values(problem=_difference(found, section.names, what, "of the contract's section lerobot"))
    if section is None and all(name.endswith(".pos") for name in found) and len(found) == len(joints):
        return Values(
            problem=f"{what} 0 is {found[0]!r}: LeRobot's name, in degrees or in fractions of a range; the contract "
            "has no section lerobot that says in which (docs/lerobot_arms.md)"
        )
    return Values(problem=_difference(found, joints, what, "of the contract"))


def _difference(found: Sequence[str], wanted: Sequence[str], what: str, whose: str) -> str:
    if len(found) != len(wanted):
        return f"{len(found)} names of {what}s, {len(wanted)} joints in the contract"
    for place, (name, joint) in enumerate(zip(found, wanted, strict=True)):
        if name != joint:
            order = "; the order differs" if sorted(found) == sorted(wanted) else ""
            return f"{what} {place} is {name!r}, joint {place} {whose} is {joint!r}{order}"
    return ""


def unit_problem(values: Values, contract: RobotContract, low: np.ndarray, high: np.ndarray) -> str:
    """Whether numbers that run from ``low`` to ``high``, (D,) each, can be in the units that their names say.

    Returns one line that names joint and unit, or nothing.
    """
    if values.units is None:
        return _degrees_among_radians(contract, low, high)
    section, still = values.units.section, []
    for i, (joint, mapped) in enumerate(zip(contract.joints, section.joints, strict=True)):
        ends = ENDS[mapped.units]
        if ends is not None:
            room = _BEYOND * (ends[1] - ends[0])
            if low[i] < ends[0] - room or high[i] > ends[1] + room:
                return (
                    f"{mapped.name} runs from {low[i]:.4g} to {high[i]:.4g}, beyond {SHOWN[mapped.units]}, the unit "
                    "that the contract's section lerobot gives it; is it in degrees?"
                )
        elif mapped.units == "degrees" and not joint.saturate:
            still.append((high[i] - low[i], i, max(abs(low[i]), abs(high[i])) <= 1.1 * _limit(joint)))
    if still and all(small for _, _, small in still) and max(still)[0] < _STILL:
        travel, i, _ = max(still)
        return (
            f"{section.joints[i].name} moves farthest, by {travel:.3g}, the unit that the contract's section lerobot "
            "gives it is degrees; these look like radians"
        )
    return ""


def _degrees_among_radians(contract: RobotContract, low: np.ndarray, high: np.ndarray) -> str:
    reach = np.maximum(np.abs(low), np.abs(high))
    times = [
        r / max(_limit(joint), 1.0) if joint.unit == "rad" else 0.0
        for r, joint in zip(reach, contract.joints, strict=True)
    ]
    worst = int(np.argmax(times))
    if times[worst] <= _WILD:
        return ""
    joint = contract.joints[worst]
    return (
        f"{joint.name} runs from {low[worst]:.4g} to {high[worst]:.4g}, its limits are {joint.position[0]:.3g} to "
        f"{joint.position[1]:.3g} rad; these look like degrees"
    )


def _limit(joint: Joint) -> float:
    """The farthest limit from zero; two turns for a joint without end stops."""
    return min(max(abs(joint.position[0]), abs(joint.position[1])), 4 * math.pi)


def recorded_ranges(folder: Path) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
    """Feature -> (lowest, highest) of the demonstrations, (D,) each, from the statistics beside LeRobot's weights."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for path in sorted(folder.glob("policy_*processor*.safetensors")):
        try:
            with safe_open(str(path), "numpy") as file:
                keys = set(file.keys())
                for key in sorted(key.removesuffix(".min") for key in keys if key.endswith(".min")):
                    if f"{key}.max" in keys:
                        ends = (file.get_tensor(f"{key}.min"), file.get_tensor(f"{key}.max"))
                        found[key] = (ends[0].astype(np.float64), ends[1].astype(np.float64))
        except (OSError, SafetensorError):  # the loader says so, with the file's name
            continue
    return found
