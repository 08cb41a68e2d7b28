"""Joint states as robots really send them, put together into one pose: who says what, how old, and can it be believed.

A message may carry all joints, a part of them, or none of ours (wheels, fingers); parts may come on several topics,
from several publishers, each with its own clock. Each kind of message is a *source* with its own watch on time. To arm,
every source has to say the same thing several times in a row; while armed, only the sources that were there may speak.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.observation.joint_source import JointSource

_MEMORY = 5.0
"""Seconds for which a publisher that fell silent is still counted: a stray one may speak once a second."""
_MOST_LAYOUTS, _MOST_SOURCES, _MOST_PUBLISHERS = 64, 32, 256
"""Orders of names and kinds of messages that are remembered; a sender with ever new ones must not fill the memory."""


@dataclass(frozen=True)
class Reading:
    """What became of one message."""

    fresh: bool
    """Whether it holds joints of ours and counts."""
    broken: bool = False
    """Whether it is a fault while armed."""
    message: str = ""
    joint: str | None = None
    value: float | None = None
    limit: float | None = None


_FRESH = Reading(True)


@dataclass(frozen=True)
class _Layout:
    """What one order of names of one publisher means."""

    source: JointSource | None
    columns: np.ndarray | None
    """Where in the message our joints stand; None: it is ours exactly."""
    problem: str = ""
    joint: str | None = None


class JointStates:
    """All sources, and the pose they give together."""

    def __init__(self, contract: RobotContract) -> None:
        self._contract = contract
        self._names = contract.joint_names
        self._index = {name: place for place, name in enumerate(contract.state_names)}
        self._allowed = sum(topic.publishers for topic in contract.joint_states)
        self._jump, self._velocity = contract.array("state_jump"), contract.array("velocity")
        self._travel = self._velocity / contract.rates.control
        self._turning = np.array([joint.kind == "continuous" for joint in contract.joints])
        self._turns = bool(self._turning.any())
        self._layouts: dict[tuple[str, tuple[str, ...]], _Layout] = {}
        self._sources: dict[tuple[str, tuple[int, ...]], JointSource] = {}
        self._publishers: dict[str, float] = {}
        self._trusted: frozenset[int] | None = None
        self._foreign: tuple[str, ...] = ()
        self._refused = ""
        self.forget()

    def forget(self) -> None:
        """Start again, as after a reset; who spoke lately is still known."""
        self._layouts.clear()
        self._sources.clear()
        self._trusted = None
        size = len(self._names)
        self.measured = np.full(size, np.nan)
        """Newest position of each joint (D,), NaN where none came."""
        self._arrived = np.full(size, -np.inf)
        self._taken = np.full(size, -np.inf)
        self.leapt = False
        """Whether a joint moved as no arm does since the arm was armed last: nobody can say which pose is right."""
        self.oldest = -np.inf
        """Steady-clock time at which the oldest of the joints' newest positions was taken, s."""

    def age(self, now: float) -> float:
        """Seconds since the joint that was reported last was measured; infinite while one is missing."""
        return now - self.oldest

    # Taking messages ------------------------------------------------------------------------------------------------

    def take(
        self,
        now: float,
        names: Sequence[str],
        positions: npt.ArrayLike,
        velocities: npt.ArrayLike | None,
        stamp: float | None,
        publisher: str,
        armed: bool,
        lenient: bool,
    ) -> Reading:
        """Take one message, see ``SafetyCore.observe``. ``armed``: only trusted sources, no jumps; ``lenient``: a
        sender may begin a new clock."""
        try:
            key = (publisher, tuple(names))
            layout = self._layouts.get(key)
        except TypeError:
            return Reading(False, True, "the joint state has no list of joint names, or its publisher is not a text")
        if layout is None:
            layout = self._learn(key)
        source = layout.source
        if source is None:
            if layout.problem:
                return Reading(False, True, layout.problem, layout.joint)
            self._foreign = tuple(map(str, key[1][:8])) or self._foreign
            return Reading(False)  # no joint of ours: not about this arm, neither good nor bad
        try:
            numbers = np.asarray(positions)
            if numbers.dtype.kind not in "fiu" and numbers.size:
                raise TypeError(f"{numbers.dtype} is not a number")
            numbers = numbers.astype(np.float64, copy=False)
        except (TypeError, ValueError, OverflowError) as error:
            return self._broken(source, f"the joint state holds something that is not a number ({error})")
        if numbers.shape != (len(key[1]),):
            if numbers.size == 0:
                return Reading(False)  # velocities or efforts alone
            return self._broken(source, f"the joint state has shape {numbers.shape} for {len(key[1])} names")
        values = numbers if layout.columns is None else numbers[layout.columns]
        if not np.isfinite(values).all():
            worst = source.joints[int(np.argmin(np.isfinite(values)))]
            text = f"{self._names[worst]} is {values[source.joints.index(worst)]} in the joint state"
            return self._broken(source, text, self._names[worst])
        if publisher in self._publishers or len(self._publishers) < _MOST_PUBLISHERS:
            self._publishers[publisher] = now
        if armed and self._trusted is not None and id(source) not in self._trusted:
            return self._stranger(source)
        problem = source.watch.sample(now, stamp)
        if problem is not None and lenient and "repeated" not in problem:
            source.restart()  # nothing is at stake: take the sender's new clock
            source.note_conflict(now)
            problem = source.watch.sample(now, stamp)
        if problem is not None:
            if armed and "went back" in problem and source.takes_turns():
                text = f"{problem}, again and again: two publishers take turns in one stream of joint states"
                return Reading(False, True, text)
            self._refused = problem
            return Reading(False, message=problem)
        self._refused = ""
        return self._note(now, source, layout.columns, values, velocities, armed)

    def _note(
        self,
        now: float,
        source: JointSource,
        columns: np.ndarray | None,
        values: np.ndarray,
        velocities: npt.ArrayLike | None,
        armed: bool,
    ) -> Reading:
        joints = source.places
        before, since = self.measured[joints], self._arrived[joints]
        reading, given = _FRESH, values
        if armed and self._turns:
            values = self._near(values, before, joints)
        gap = values - before
        gap = np.abs(gap if armed or not self._turns else np.where(self._turning[joints], wrapped(gap), gap))
        room = self._jump[joints] + self._velocity[joints] * np.maximum(now - since, 0.0)
        # A comparison with a joint that never came is false, and nothing is said of it.
        leapt = bool((gap > room).any())
        stepped = gap > room - self._jump[joints] + self._travel[joints]
        if armed:
            if leapt:
                reading = self._jumped(source, gap, room)
            elif source.restarts(given, stepped):
                # However loose the contract's state_jump is: a driver that restarts must not pass as the arm.
                leapt, reading = True, self._restarted(source)
            source.note_armed(now, values, bool(stepped.any()))
        else:
            speeds = _speeds(velocities, columns, len(values))
            source.note(now, values, speeds, bool(stepped.any()))
        self.leapt = self.leapt or leapt
        self.measured[joints] = values
        self._arrived[joints] = now
        self._taken[joints] = source.watch.taken_at
        self.oldest = source.watch.taken_at if source.whole else float(self._taken.min())
        return reading

    def _jumped(self, source: JointSource, gap: np.ndarray, room: np.ndarray) -> Reading:
        worst = int(np.nanargmax(gap / room))
        joint = self._contract.joints[source.joints[worst]]
        value, most = float(gap[worst]), float(room[worst])
        text = f"{joint.name} jumped by {value:.4g} {joint.unit}, the limit is {most:.4g}"
        return Reading(True, True, text, joint.name, value, most)

    def _restarted(self, source: JointSource) -> Reading:
        names = ", ".join(self._names[joint] for joint in source.joints)
        text = (
            f"joint states of {names} became exactly 0 at once, faster than any joint moves, as drivers say before "
            "their first reading; see why the driver restarted, or, if the arm really says that, give "
            "safety.zero_pose: allow"
        )
        return Reading(True, True, text)

    def _near(self, values: np.ndarray, reference: np.ndarray, joints: np.ndarray | slice) -> np.ndarray:
        """Angles of continuous joints on the turn that is nearest to ``reference``."""
        turning = self._turning[joints] & np.isfinite(reference)
        return np.where(turning, reference + wrapped(values - reference), values)

    def _broken(self, source: JointSource, message: str, joint: str | None = None) -> Reading:
        source.forget_run()
        return Reading(False, True, message, joint)

    def _stranger(self, source: JointSource) -> Reading:
        """A message of a kind that was not there when the arm was armed."""
        for known in self._sources.values():
            if self._trusted and id(known) in self._trusted and known.publisher == source.publisher:
                lacking = [joint for joint in known.joints if joint not in source.joints]
                if lacking and set(source.joints) < set(known.joints):
                    name = self._names[lacking[0]]
                    return Reading(False, True, f"{name} is missing from the joint state", name)
        name = self._names[source.joints[0]]
        who = f"publisher {source.publisher}" if source.publisher else "a publisher"
        text = f"{who} gives joint states of {name} that did not come when the arm was armed; two may not speak at once"
        return Reading(False, True, text, name)

    def _learn(self, key: tuple[str, tuple[str, ...]]) -> _Layout:
        publisher, names = key
        if len(self._layouts) >= _MOST_LAYOUTS:
            self._layouts.clear()
        ours = [(self._index[name], column) for column, name in enumerate(names) if name in self._index]
        joints = tuple(sorted(joint for joint, _ in ours))
        if len(set(joints)) < len(joints):
            twice = next(joint for joint in joints if joints.count(joint) > 1)
            name = self._names[twice]
            layout = _Layout(None, None, f"{name} is given twice in the joint state", name)
        elif not ours:
            layout = _Layout(None, None)
        else:
            source = self._sources.get((publisher, joints))
            if source is None:
                if len(self._sources) >= _MOST_SOURCES and self._trusted is None:
                    self._sources.clear()
                    self._layouts.clear()
                source = JointSource(publisher, joints, self._contract)
                if len(self._sources) < _MOST_SOURCES:
                    self._sources[publisher, joints] = source
            columns = np.array([column for _, column in sorted(ours)], dtype=np.intp)
            exact = len(names) == len(joints) and bool((columns == np.arange(len(names))).all())
            layout = _Layout(source, None if exact else columns)
        self._layouts[key] = layout
        return layout

    # Believing them -------------------------------------------------------------------------------------------------

    def trust(self, now: float) -> None:
        """From now on only the sources of the last seconds may speak, as when the arm is armed."""
        for key in [key for key, source in self._sources.items() if now - source.arrived > _MEMORY]:
            del self._sources[key]
            self._layouts.clear()
        self._trusted = frozenset(id(source) for source in self._sources.values())
        for source in self._sources.values():
            source.trust()
        self.leapt = False

    def release(self) -> None:
        """Anybody may speak again, as when the arm is disarmed or in fault; each has to prove itself again."""
        self._trusted = None
        for source in self._sources.values():
            source.forget_run()

    def reasons(self, now: float) -> list[str]:
        """Why the pose cannot be believed now, one text each; empty where it can."""
        missing = [name for name, at in zip(self._names, self._taken, strict=True) if at == -np.inf]
        if missing:
            return [self._missing_text(missing)]
        deadline = self._contract.deadlines.joint_states
        if self.age(now) > deadline:
            return [f"{self.old_text(now)}; the limit is {deadline:g} s"]
        reasons = self._publisher_reasons(now)
        live = self._live(now)
        for source in live:
            reasons += source.reasons(now)
        for one in live:  # the same joint from two kinds of messages
            for other in live:
                if one is not other:
                    reasons += self._contradictions(one, other)
        return list(dict.fromkeys(reasons))

    def parts(self) -> list[tuple[int, ...]]:
        """Which joints (places in the contract) are reported together, for each source."""
        return [source.joints for source in self._sources.values()]

    def _live(self, now: float) -> list[JointSource]:
        return [source for source in self._sources.values() if now - source.arrived <= _MEMORY]

    def contradicted(self, now: float) -> bool:
        """Whether more speak than may, or what is said does not fit together: then any of it may be wrong."""
        live = self._live(now)
        return bool(
            self._publisher_reasons(now)
            or any(source.contradicts_itself(now) for source in live)
            or any(self._contradictions(one, other) for one in live for other in live if one is not other)
        )

    def believed(self, now: float) -> bool:
        """Whether every joint's state is in time, and what its source says goes on, several times in a row, from a pose
        that was armed on or that has rested for a second."""
        if self.age(now) > self._contract.deadlines.joint_states:
            return False
        needed = self._contract.safety.arm_states
        return all(source.sure and source.plausible >= needed for source in self._live(now))

    def speeds(self) -> np.ndarray:
        """The joints' speeds (D,) as reported or estimated, the greater of both; zero where nothing is known."""
        speeds = np.zeros(len(self._names))
        for source in self._sources.values():
            found = source.speeds()
            if found is not None:
                speeds[source.places] = np.maximum(speeds[source.places], found)
        return speeds

    def old_text(self, now: float) -> str:
        """Whose joint states are how old."""
        ages = now - self._taken
        late = ages > self._contract.deadlines.joint_states
        names = ", ".join(name for name, old in zip(self._names, late, strict=True) if old)
        whose = "" if late.all() else f" of {names}"
        refused = f" (those that come are refused: {self._refused})" if self._refused else ""
        return f"joint states{whose} are {ages.max():.3f} s old{refused}"

    def _publisher_reasons(self, now: float) -> list[str]:
        if len(self._publishers) >= _MOST_PUBLISHERS // 2:
            self._publishers = {name: at for name, at in self._publishers.items() if now - at <= _MEMORY}
        recent = sorted(name for name, at in self._publishers.items() if now - at <= _MEMORY)
        if len(recent) <= self._allowed:
            return []
        return [
            f"{len(recent)} publishers gave joint states in the last {_MEMORY:g} s ({', '.join(recent[:5])}), the "
            f"contract allows {self._allowed}; stop the others, or give topics.joint_states.publishers"
        ]

    def _contradictions(self, one: JointSource, other: JointSource) -> list[str]:
        if one.last is None or other.last is None:
            return []
        shared = sorted(set(one.joints) & set(other.joints))
        for joint in shared:
            here, there = one.last[one.joints.index(joint)], other.last[other.joints.index(joint)]
            gap = here - there
            gap = abs(float(wrapped(gap)) if self._turning[joint] else float(gap))
            if gap > self._travel[joint]:
                low, high = sorted((float(here), float(there)))
                return [f"{self._names[joint]} is reported at {low:.4g} and at {high:.4g}; two publishers contradict"]
        return []

    def _missing_text(self, missing: list[str]) -> str:
        came = [name for name in self._names if name not in missing]
        names = {joint.name: joint.state_name for joint in self._contract.joints}
        if not came and self._refused:
            return f"no joint states that count have come; {self._refused}; fix the driver's clock"
        if not came and not self._foreign:
            return "no joint states have come; start the robot's driver"
        if not came:
            text = f"no joint states of this arm have come, only {', '.join(self._foreign)}"
        else:
            text = f"joint states of {', '.join(came)} have come, and none of {', '.join(missing)}"
        for name in missing:
            like = [other for other in self._foreign if names[name] in other]
            like = like or difflib.get_close_matches(names[name], self._foreign, 1)
            if like:
                return f"{text}; if {like[0]} is {name}, give it state_name: {like[0]}"
        return f"{text}; is a publisher missing, or a state_name?"


def wrapped(angles: npt.ArrayLike) -> np.ndarray:
    """Differences of angles in rad, brought into [-pi, pi)."""
    return np.asarray(np.remainder(np.asarray(angles) + np.pi, 2 * np.pi) - np.pi)


def _speeds(velocities: npt.ArrayLike | None, columns: np.ndarray | None, size: int) -> np.ndarray | None:
    """The velocities of our joints, NaN where not given; None where the message has none that fit."""
    if velocities is None:
        return None
    try:
        numbers = np.asarray(velocities, dtype=np.float64)
        taken = numbers if columns is None else numbers[columns]
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return taken if taken.shape == (size,) else None
