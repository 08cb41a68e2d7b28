"""Action chunks: what a policy sends, and whether it may be believed.

A chunk is taken whole or not at all. It is never repaired: a NaN clipped to a limit is still a NaN in most
languages, and a chunk with one bad number was made by something that is broken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robo_hw.contract.robot_contract import RobotContract

_MOST_ANGLE = 1000.0
"""No continuous joint has turned further than this (rad) since its zero; beyond it angles lose their digits."""


@dataclass(frozen=True)
class ActionChunk:
    """Actions for the moments after one observation.

    ``actions`` (H, D): joint positions at the contract's action rate, in the contract's units; row i is meant for
    ``i / rate`` seconds after the observation. ``joints``: names of the columns. ``epoch``: the core's ``epoch``
    that came with the observation. ``sequence``: grows with every chunk of an epoch. ``observed_at``: steady-clock
    time (s) of the observation. ``contract_hash``: of the contract that the policy was trained with, where it is known.
    """

    actions: npt.ArrayLike
    joints: tuple[str, ...]
    epoch: int
    sequence: int
    observed_at: float
    contract_hash: str | None = None


@dataclass(frozen=True)
class SubmitResult:
    """What became of a chunk.

    ``used``: how many control points of the path it set. ``malformed``: whether the chunk itself is broken, so that the
    arm brakes; a chunk that merely came too late is dropped and the motion goes on.
    """

    accepted: bool
    message: str
    used: int = 0
    malformed: bool = False
    joint: str | None = None
    value: float | None = None
    limit: float | None = None


def rejected(
    message: str, joint: str | None = None, value: float | None = None, limit: float | None = None
) -> SubmitResult:
    """A broken chunk: the arm brakes."""
    return SubmitResult(False, message, malformed=True, joint=joint, value=value, limit=limit)


def dropped(message: str) -> SubmitResult:
    """A sound chunk that cannot be used now: the motion goes on without it."""
    return SubmitResult(False, message)


def check_header(
    chunk: ActionChunk, now: float, epoch: int, sequence: int, since: float, oldest: float
) -> SubmitResult | None:
    """Why a chunk cannot be used at ``now``, or None: another epoch, out of order, from before ``since``, or late.

    ``sequence``: of the last chunk taken; ``oldest``: seconds that may lie between observation and now.
    """
    if not isinstance(chunk.epoch, (int, np.integer)) or chunk.epoch != epoch:
        return dropped(f"made in epoch {chunk.epoch}, the core is in epoch {epoch}; observe again")
    if not isinstance(chunk.sequence, (int, np.integer)) or chunk.sequence <= sequence:
        return dropped(f"out of order: sequence {chunk.sequence} after {sequence}")
    observed = chunk.observed_at
    if not isinstance(observed, (int, float)) or not since <= observed <= now:
        return dropped(f"observed at {observed}, not between the epoch's start {since:.3f} and now")
    if now - observed > oldest:
        return dropped(f"late: observed {now - observed:.3f} s ago, the limit is {oldest:g} s")
    return None


def check_form(
    chunk: ActionChunk, contract: RobotContract, near: np.ndarray | None = None
) -> tuple[np.ndarray | None, SubmitResult | None]:
    """The actions as (H, D) float64, or why the chunk is broken: shape, names and their order, NaN, Inf, wild steps.

    ``near`` (D,): the commanded pose, to whose turns the angles of continuous joints are brought; by default those of
    the first action. The step into the chunk is not checked here: it depends on where the arm is.
    """
    expected = contract.joint_names
    names = tuple(str(name) for name in chunk.joints) if isinstance(chunk.joints, (tuple, list)) else ()
    if names != expected:
        joint, message = _name_fault(names, expected)
        return None, rejected(message, joint=joint)
    if chunk.contract_hash is not None and chunk.contract_hash != contract.hash:
        theirs = str(chunk.contract_hash)[:12]
        return None, rejected(f"the policy was made for another contract ({theirs} instead of {contract.hash[:12]})")
    try:
        raw = np.asarray(chunk.actions)
        if raw.dtype.kind not in "fiu":
            raise ValueError(f"{raw.dtype} is not a number")
        actions = raw.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        return None, rejected(f"the actions are not an array of numbers ({error})")
    if actions.ndim != 2 or actions.shape[1] != len(expected) or actions.shape[0] < 1:
        return None, rejected(f"the actions have shape {actions.shape}; (H, {len(expected)}) is needed")
    if actions.shape[0] > contract.safety.max_horizon:
        return None, rejected(f"{actions.shape[0]} actions are more than max_horizon {contract.safety.max_horizon}")
    finite = np.isfinite(actions)
    if not finite.all():
        step, column = (int(i) for i in np.argwhere(~finite)[0])
        value = float(actions[step, column])
        return None, rejected(f"{expected[column]}: action {step} is {value}", joint=expected[column], value=value)
    fault = _check_magnitude(actions, contract)
    if fault is not None:
        return None, fault
    actions = unwrapped(actions, contract, actions[0] if near is None else near)
    fault = check_steps(actions, contract)
    return (None, fault) if fault is not None else (actions, None)


def _check_magnitude(actions: np.ndarray, contract: RobotContract) -> SubmitResult | None:
    """A rejection where an action lies further outside the position limits than these are wide: no robot was meant."""
    low, high = contract.array("position").T
    turning = np.isinf(high)
    low, high = np.where(turning, -_MOST_ANGLE, low), np.where(turning, _MOST_ANGLE, high)
    absurd = (actions < low - (high - low)) | (actions > high + (high - low))
    if not absurd.any():
        return None
    step, column = (int(i) for i in np.argwhere(absurd)[0])
    joint, value = contract.joints[column], float(actions[step, column])
    limit = float(high[column] if value > high[column] else low[column])
    return rejected(
        f"{joint.name}: action {step} is {value:.4g} {joint.unit}, far beyond {limit:.4g}; are the units right?",
        joint=joint.name,
        value=value,
        limit=limit,
    )


def check_steps(actions: np.ndarray, contract: RobotContract, before: np.ndarray | None = None) -> SubmitResult | None:
    """A rejection where two successive actions differ by more than ``action_jump``; ``before`` precedes the first.

    Units, joint order or a diverged policy: a step as wide as that is a mistake, not a fast motion.
    """
    rows = saturated(actions, contract)
    if before is not None:
        rows = np.concatenate([before[None], rows])
    if len(rows) < 2:
        return None
    steps = np.abs(np.diff(rows, axis=0))
    allowed = contract.array("action_jump")
    wild = steps > allowed
    if not wild.any():
        return None
    step, column = (int(i) for i in np.argwhere(wild)[0])
    joint = contract.joints[column]
    value, limit = float(steps[step, column]), joint.action_jump
    return rejected(
        f"{joint.name}: an action jumps by {value:.4g} {joint.unit}, more than action_jump {limit:.4g}",
        joint=joint.name,
        value=value,
        limit=limit,
    )


def saturated(actions: np.ndarray, contract: RobotContract) -> np.ndarray:
    """The actions with the columns of ``saturate`` joints held inside their limits: "close" may mean "as far as it
    goes"."""
    columns = [i for i, joint in enumerate(contract.joints) if joint.saturate]
    if not columns:
        return actions
    held = actions.copy()
    low, high = contract.array("position")[columns].T
    held[:, columns] = np.clip(held[:, columns], low, high)
    return held


def unwrapped(actions: np.ndarray, contract: RobotContract, near: np.ndarray) -> np.ndarray:
    """The actions (H, D) with the angles of continuous joints on the turns that make each step the shortest.

    ``near`` (D,): where the arm is commanded to be; the first action is put on the turn next to it. Policies learn from
    angles within +-pi, and what looks like a jump from pi to -pi is none.
    """
    columns = [i for i, joint in enumerate(contract.joints) if joint.kind == "continuous"]
    if not columns:
        return actions
    turned = actions.copy()
    rows = np.concatenate([near[None, columns], actions[:, columns]])
    steps = np.remainder(np.diff(rows, axis=0) + np.pi, 2 * np.pi) - np.pi
    turned[:, columns] = near[columns] + np.cumsum(steps, axis=0)
    return turned


@dataclass(frozen=True)
class Shortened:
    """A step that was shortened because a joint asked for a position beyond its limit."""

    joint: str
    value: float
    limit: float


def inside_limits(
    actions: np.ndarray, before: np.ndarray, contract: RobotContract
) -> tuple[np.ndarray, Shortened | None]:
    """Hold every action inside the position limits by shortening the whole step to it, all joints by the same fraction.

    ``actions`` (H, D), ``before`` (D,) the (lawful) point they follow. Returns the held actions and the worst excess.
    Clipping joints one by one would bend the path; this waits on it.
    """
    low, high = contract.array("position").T
    actions = saturated(actions, contract)
    span = np.where(np.isfinite(high - low), high - low, 1.0)  # a continuous joint is never outside
    outside = (actions < low) | (actions > high)
    if not outside.any():
        return actions, None
    held = actions.copy()
    previous = before
    for i in range(len(held)):
        step = held[i] - previous
        if outside[i].any():
            # The largest lambda in [0, 1] with low <= previous + lambda step <= high for every joint.
            room = np.where(step > 0, high - previous, previous - low)
            blocked = outside[i] & (step != 0)
            fraction = float(np.min(room[blocked] / np.abs(step[blocked]))) if blocked.any() else 0.0
            # Rounding must not leave the box by a last bit.
            held[i] = np.clip(previous + min(max(fraction, 0.0), 1.0) * step, low, high)
        previous = held[i]
    excess = np.maximum(low - actions, actions - high) / span
    row, column = np.unravel_index(int(np.argmax(excess)), excess.shape)
    value = float(actions[row, column])
    limit = float(high[column] if value > high[column] else low[column])
    return held, Shortened(contract.joints[int(column)].name, value, limit)


def _name_fault(names: tuple[str, ...], expected: tuple[str, ...]) -> tuple[str | None, str]:
    missing = [name for name in expected if name not in names]
    unknown = [name for name in names if name not in expected]
    if missing:
        return missing[0], f"{missing[0]}: missing from the chunk's joints ({', '.join(names) or 'none'})"
    if unknown or len(names) != len(expected):
        extra = unknown[0] if unknown else next(name for name in names if names.count(name) > 1)
        return extra, f"{extra}: not expected among the chunk's joints; the contract has {', '.join(expected)}"
    place = next(i for i, name in enumerate(names) if name != expected[i])
    return expected[place], f"{expected[place]}: expected in place {place}, found {names[place]}; the order differs"
