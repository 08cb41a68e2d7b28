"""One kind of joint-state message from one publisher: its clock, and whether it keeps saying the same thing."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.safety.watch import StreamWatch

_WINDOW = 0.1
"""Seconds of positions from which velocities are estimated: at 1 kHz the steps of an encoder would drown less."""
_AT_REST = 0.05
"""Fraction of a joint's velocity limit below which it counts as resting."""
_HASTE = 0.49
"""States that come in less than this fraction of their nominal time were waiting in a queue: they say little of now."""

_QUIET = 1.0
"""Seconds in which what is said may jump once, as at a driver's first reading, but not twice."""
_MOST_TURNS = 4
"""So often a stamp may go back between others that go on; a network that reorders does it now and then."""


def never_all_zero(contract: RobotContract, joints: Sequence[int]) -> list[int]:
    """Which of ``joints`` (places in the contract), reported together, are never all exactly 0 unless a driver has no
    reading; empty where they may be. Without the gripper: it often has a driver of its own, that reads already."""
    if contract.safety.zero_pose == "allow":
        return []
    gripper = contract.gripper.joint if contract.gripper is not None else ""
    names = contract.joint_names
    arm = [place for place, name in enumerate(names) if name != gripper] or list(range(len(names)))
    checked = [joint for joint in joints if joint in arm]
    # One joint alone may well be at its zero.
    return checked if len(checked) > 1 or checked == arm else []


class JointSource:
    """``publisher``: who sends; ``joints``: places of its joints in the contract, ascending."""

    def __init__(self, publisher: str, joints: tuple[int, ...], contract: RobotContract) -> None:
        self.publisher, self.joints = publisher, joints
        self.whole = len(joints) == len(contract.joints)
        """Whether it tells of every joint."""
        self.places: np.ndarray | slice = slice(None) if self.whole else np.array(joints, dtype=np.intp)
        self.watch = StreamWatch("joint states", contract.deadlines.joint_states / 2)
        self.arrived = -np.inf
        """Steady-clock time of its last message that counted, s."""
        self.last: np.ndarray | None = None
        """Positions in it."""
        self.plausible = 0
        """States in a row that each differ from the one before by no more than the joints can move."""
        self._zeros = np.isin(joints, never_all_zero(contract, joints))
        self._doubted: float | None = -np.inf
        """Since when it is unknown whether its states follow on from a trusted pose; None: they do."""
        self._anchor: np.ndarray = np.zeros(len(joints))
        """What it said then, for it to stay there."""
        self._turning = np.array([contract.joints[joint].kind == "continuous" for joint in joints])
        self._names = [contract.joints[joint] for joint in joints]
        self._velocity = contract.array("velocity")[list(joints)]
        self._travel = self._velocity / contract.rates.control
        self._needed = contract.safety.arm_states
        self._deadline = contract.deadlines.joint_states
        self._silence = 0.0
        self._least_time = max(_HASTE * (self._needed - 1), 1.2) / contract.rates.joint_states
        self._recent: deque[tuple[float, np.ndarray]] = deque(maxlen=512)
        self._reported: np.ndarray | None = None
        self._conflicts: deque[float] = deque(maxlen=2)
        self._broke: tuple[int, float, float] | None = None
        self._low = self._high = np.zeros(len(joints))
        self._since = -np.inf
        self.forget_run()

    def restart(self) -> None:
        """Believe nothing of before: another clock, or a broken message."""
        self.watch.forget()
        self.forget_run()

    def forget_run(self) -> None:
        """Forget how long it has said the same thing."""
        self._count = self.plausible = 0
        self._turns, self._forward = 0.0, False
        self._recent.clear()

    @property
    def sure(self) -> bool:
        """Whether its states follow on from a pose that was armed on, or have been the same long enough to be trusted.

        After a step that no joint makes, or elsewhere after a silence, the driver may have restarted with a pose of
        its own.
        """
        return self._doubted is None

    def trust(self) -> None:
        """It was armed on."""
        self._doubted = None

    def note_armed(self, now: float, values: np.ndarray, stepped: bool) -> None:
        """A state while armed, which the core compares with its command; ``stepped``: it is further from the one before
        than the joints travel."""
        if self._breaks(now, values, stepped):
            self._doubted, self._anchor = now, values
        elif self._doubted is not None and now - self._doubted > _QUIET:
            self._doubted = None  # the arm followed its commands by what it said
        self.last, self.arrived = values, now
        self._turns, self._forward = max(self._turns - 0.2, 0.0), True

    def restarts(self, values: np.ndarray, stepped: np.ndarray) -> bool:
        """Whether ``values`` (n,) of its joints are what a driver says before its first reading, and no motion led to
        them. ``stepped`` (n,): which joints are further from where they were than they travel."""
        return bool(stepped[self._zeros].any()) and not values[self._zeros].any()

    def note_conflict(self, now: float) -> None:
        """What it says jumps, in position or in time, as when two publishers speak by turns."""
        self._conflicts.append(now)

    def contradicts_itself(self, now: float) -> bool:
        """Whether what it says jumped twice lately, as no arm does."""
        return len(self._conflicts) > 1 and now - self._conflicts[0] < _QUIET

    def takes_turns(self) -> bool:
        """Told of a stamp that went back: whether stamps go on and back by turns, as two clocks in one stream do."""
        self._turns, self._forward = self._turns + self._forward, False
        return self._turns >= _MOST_TURNS

    def note(self, now: float, values: np.ndarray, velocities: np.ndarray | None, stepped: bool) -> None:
        """A state while nothing is commanded; ``velocities`` NaN where not given, ``stepped``: it is further from the
        last state of anybody than the joints travel."""
        taken, self._reported = self.watch.taken_at, velocities
        if self._breaks(now, values, stepped) or (self._doubted is not None and self._moved(values, self._anchor)):
            self._doubted, self._anchor = now, values
        elif self._doubted is not None and now - self._doubted > _QUIET:
            self._doubted = None
        if self._recent:
            self._silence = now - self.arrived
            if self._silence > self._deadline:
                self.forget_run()
        if self._recent and self.last is not None:
            before = self._recent[-1][1]
            turn = np.round((values - before) / (2 * np.pi))
            values = values - 2 * np.pi * np.where(self._turning, turn, 0.0)
            step = np.abs(values - before)
            elapsed = max(taken - self._recent[-1][0], 0.0)
            self.plausible += 1
            if (step > self._travel + self._velocity * elapsed).any():
                self.plausible, self._doubted, self._anchor = 1, now, values
                self.note_conflict(now)
        else:
            self.plausible = 1
        self.arrived, self.last = now, values
        self._recent.append((taken, values))
        while len(self._recent) > self._needed and self._recent[0][0] < taken - _WINDOW:
            self._recent.popleft()
        self._follow_run(now, values)

    def _breaks(self, now: float, values: np.ndarray, stepped: bool) -> bool:
        """Whether ``values`` do not go on from what it said before: after a step, or somewhere else after a silence."""
        silent = now - self.arrived > self._deadline
        return stepped or self.last is None or (silent and self._moved(values, self.last))

    def _moved(self, values: np.ndarray, since: np.ndarray) -> bool:
        """Whether ``values`` (n,) are further from ``since`` (n,) than the joints travel in one control period."""
        gap = values - since
        turn = np.where(self._turning, 2 * np.pi * np.round(gap / (2 * np.pi)), 0.0)
        return bool((np.abs(gap - turn) > self._travel).any())

    def _follow_run(self, now: float, values: np.ndarray) -> None:
        if self._count:
            low, high = np.minimum(self._low, values), np.maximum(self._high, values)
            if (high - low <= self._travel).all():
                self._low, self._high = low, high
                self._count += 1
                return
            worst = int(np.argmax((high - low) / self._travel))
            self._broke = (worst, float(low[worst]), float(high[worst]))
            while len(self._recent) > 1:  # what was said before says nothing of how it moves now
                self._recent.popleft()
        self._low = self._high = values
        self._count, self._since = 1, now

    def speeds(self) -> np.ndarray | None:
        """Speeds (n,) of its joints: what it tells or what its positions say, whichever is more."""
        estimated = self._estimated()
        if self._reported is None:
            return estimated
        reported = np.abs(np.nan_to_num(self._reported, nan=0.0, posinf=1e9, neginf=-1e9))
        return reported if estimated is None else np.maximum(reported, estimated)

    def _estimated(self) -> np.ndarray | None:
        if len(self._recent) < 2:
            return None
        times = np.array([time for time, _ in self._recent])
        values = np.array([value for _, value in self._recent])
        half = len(times) // 2
        # Means of the older and the newer half: one step of an encoder is not taken for motion.
        gap = times[-half:].mean() - times[:half].mean()
        if gap <= 0.0:
            return None
        return np.abs(values[-half:].mean(axis=0) - values[:half].mean(axis=0)) / gap

    def reasons(self, now: float) -> list[str]:
        """Why what it says cannot be armed on; empty where it can."""
        reasons = self._moving()
        if self._count < self._needed:
            text = f"only {self._count} of {self._needed} consecutive joint states agree"
            if self.publisher:
                text += f" ({self.publisher})"
            if self._broke is not None:
                worst, low, high = self._broke
                joint = self._names[worst]
                text += f"; {joint.name} was reported at {low:.4g} and at {high:.4g} {joint.unit}: it moves, or two"
                text += " publishers contradict each other"
            else:
                text += f"; let {self._needed - self._count} more come, then arm again"
            if self._silence > self._deadline:
                text += (
                    f"; they come {self._silence:.3g} s apart, more than deadlines.joint_states {self._deadline:g} s"
                )
            reasons.append(text)
        elif self.contradicts_itself(now):
            reasons.append(
                f"joint states jumped twice within {_QUIET:g} s, in position or in time: two publishers take turns; "
                "stop one"
            )
        elif now - self._since < self._least_time:
            reasons.append(
                f"{self._count} joint states came within {now - self._since:.3f} s, as out of a queue; wait a moment"
            )
        return reasons

    def _moving(self) -> list[str]:
        estimated, reasons = self._estimated(), []
        for place, joint in enumerate(self._names):
            reported = abs(float(self._reported[place])) if self._reported is not None else float("nan")
            seen = float(estimated[place]) if estimated is not None else 0.0
            most = _AT_REST * joint.velocity
            if reported > most:
                reasons.append(f"{joint.name} moves at {reported:.3g} {joint.unit}/s; let it rest")
            elif seen > most:
                says = "" if np.isnan(reported) else f", though its velocity is given as {reported:.3g}"
                reasons.append(
                    f"{joint.name} moves at {seen:.3g} {joint.unit}/s, estimated from its positions{says}; let it rest"
                )
        return reasons
