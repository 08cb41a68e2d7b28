"""Whether an arm is in a pose from which it may be armed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from robo_hw.contract.parts import Joint
from robo_hw.contract.robot_contract import RobotContract
from robo_hw.observation.joint_source import never_all_zero
from robo_hw.observation.joint_states import JointStates, wrapped

_ROOM = 0.5
"""A pose counts as near the demonstrations' first poses up to this fraction of their range beyond it,"""
_LEAST_ROOM = 0.05
"""and up to this fraction of the joint's own range: demonstrations that all began in one pose leave some room, too."""

_LONG_WAIT = 0.5
"""Seconds without a first command after which it is said why."""


def arming_reasons(
    contract: RobotContract, states: JointStates, now: float, start_poses: Mapping[str, Sequence[float]] | None
) -> tuple[list[str], list[str]]:
    """Why the arm cannot be armed by what its joint states say, and what to be warned of."""
    reasons, warnings = states.reasons(now), []
    if np.isfinite(states.measured).all() and states.age(now) <= contract.deadlines.joint_states:
        reasons += pose_reasons(contract, states.measured)
        reasons += unread_reasons(contract, states)
        far = start_pose_reasons(contract, states.measured, start_poses or {})
        if contract.safety.start_pose == "refuse":
            reasons += far
        elif contract.safety.start_pose == "warn":
            warnings = far
    return reasons, warnings


def pose_reasons(contract: RobotContract, measured: np.ndarray) -> list[str]:
    """Why joints at ``measured`` (D,) cannot be armed; empty: they can."""
    reasons = []
    for joint, value in zip(contract.joints, measured, strict=True):
        low, high = joint.position
        if not low - joint.arm_tolerance <= value <= high + joint.arm_tolerance:
            reasons.append(f"{joint.name} is at {value:.4g}, outside [{low:.4g}, {high:.4g}]; move it by hand")
    return reasons


def unread_reasons(contract: RobotContract, states: JointStates) -> list[str]:
    """Why the pose may be what a driver says before its first reading; empty: it is a reading.

    Each source is checked by itself.
    """
    names = contract.joint_names
    arm = never_all_zero(contract, range(len(names)))
    for joints in (tuple(range(len(names))), *states.parts()):
        checked = never_all_zero(contract, joints)
        if checked and not states.measured[checked].any():
            which = "every joint" if checked == arm else f"each of {', '.join(names[joint] for joint in checked)}"
            return [
                f"{which} reads exactly 0, as drivers say before their first reading; wait for a reading, or, if the "
                "arm really is there, move a joint or give safety.zero_pose: allow"
            ]
    return []


def waiting_reason(contract: RobotContract, age: float, waited: float) -> str | None:
    """Why no command has come ``waited`` seconds after arming, by joint states ``age`` seconds old, or None."""
    if waited <= _LONG_WAIT:
        return None
    period = 1 / contract.rates.control
    return (
        f"armed, but no command yet: the first needs joint states of all joints at most one control period "
        f"({period:.3g} s) old, in which nothing moved; the oldest is {age:.3g} s old. Where joints come on several "
        "slow topics, let their drivers publish faster"
    )


def start_pose_reasons(
    contract: RobotContract, measured: np.ndarray, start_poses: Mapping[str, Sequence[float]]
) -> list[str]:
    """Which joints of ``measured`` (D,) lie far from where the demonstrations began, one text each.

    ``start_poses``: joint -> (low, high) of the demonstrations' first states; joints that it lacks are not checked.
    """
    reasons = []
    for joint, value in zip(contract.joints, measured, strict=True):
        if joint.name not in start_poses:
            continue
        found = start_poses[joint.name]
        try:
            low, high = (float(end) for end in found)
        except (TypeError, ValueError):
            low, high = np.nan, np.nan
        if not (np.isfinite([low, high]).all() and low <= high):
            reasons.append(f"the start poses of {joint.name} are {found}, not [low, high]")
            continue
        away = _away(joint, float(value), low, high)
        if away > max(_ROOM * (high - low), _LEAST_ROOM * _span(joint)):
            reasons.append(
                f"{joint.name} is at {value:.4g} {joint.unit}, demonstrations began between {low:.4g} and {high:.4g}"
            )
    return reasons


def _span(joint: Joint) -> float:
    return 2 * np.pi if joint.kind == "continuous" else joint.position[1] - joint.position[0]


def _away(joint: Joint, value: float, low: float, high: float) -> float:
    if joint.kind == "continuous":
        middle = (low + high) / 2
        value = middle + float(wrapped(value - middle))
    return max(low - value, value - high, 0.0)
