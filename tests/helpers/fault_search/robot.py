"""The prover's robot: where it truly is, who moves it, and what its driver and strangers say of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.observation.joint_source import never_all_zero
from robo_hw.observation.joint_states import wrapped
from robo_hw.observation.states import State
from robo_hw.safety.safety_core import SafetyCore

_ROUNDING = 1e-9
_BOX = 3.0
"""Continuous joints are sent this far (rad) from zero."""


class ProvingRobot:
    """``at`` (D,) is the truth. ``active(kind)`` says which faults are on."""

    def __init__(
        self, contract: RobotContract, core: SafetyCore, random: np.random.Generator, active: Callable[[str], bool]
    ) -> None:
        self.contract, self.core, self.random, self.active = contract, core, random, active
        low, high = contract.array("position").T
        self.turning = np.isinf(high)
        self.low, self.high = np.where(self.turning, -_BOX, low), np.where(self.turning, _BOX, high)
        self.span = self.high - self.low
        self.velocity = contract.array("velocity")
        self.at: np.ndarray = np.asarray(self.low + self.span * random.uniform(0.1, 0.9, len(self.low)))
        self._hand: np.ndarray = np.zeros(len(self.low))
        size = len(self.low)
        if len(contract.joint_states) > 1:
            cut = int(random.integers(1, size))
            self.parts = [list(range(cut)), list(range(cut, size))]
        else:
            self.parts = [list(range(size))]
        self.named = bool(random.uniform() < 0.5)
        """Whether the bridge can tell publishers apart."""
        self.lost = float(random.choice([0.0, 0.0, 0.2, 0.5]))
        """Share of its driver's messages that get lost."""
        self.tells = str(random.choice(["nothing", "nan", "truth", "zero"]))
        """What its driver says of velocities."""
        self.zeros_until = random.uniform(0, 0.6) if random.uniform() < 0.3 else 0.0
        """Seconds into the sequence until which the driver has no reading, and says zeros."""
        self.shifts = random.uniform(-1e6, 1e6, len(self.parts))
        self._stray_shift = float(random.choice([0.0, random.uniform(-5, 5)]))
        self._stray_gap, self._stray_left = int(random.integers(1, 12)), 0
        self._stray_at = self.low + self.span * random.uniform(0, 1, size)
        self._silent = 0
        self._stop: list[float | None] = [None] * len(self.parts)
        self._sent = [core._clock.now() + shift for shift in self.shifts]
        self._floor = [-np.inf] * len(self.parts)
        self.told = np.full(size, np.nan)
        """The joints as the core took them last, from whomever."""
        self.said: deque[np.ndarray] = deque([np.full(size, np.nan)], maxlen=8)
        """The joints as they were said lately by anybody, taken or not: a jump is refused and noted."""
        self.credible = np.full(size, -np.inf)
        """When the core last took a state of each joint that was true, or that nobody could have told from a true one,
        s."""
        self._jump, self._travel = contract.array("state_jump"), self.velocity / contract.rates.control
        self._wrong_at = self.at
        self.taken = np.full(size, -np.inf)
        """When the core last took anybody's state of each joint, s."""
        self.speed: np.ndarray = np.zeros(size)

    def take_hold(self) -> None:
        """A hand begins to move it somewhere, not faster than the joints may move."""
        self._hand = 0.9 * self.velocity * self.random.uniform(-1, 1, len(self.at))

    def by_hand(self, seconds: float) -> None:
        """What the hand does in ``seconds``; while it holds the arm, commands do nothing."""
        before = self.at
        if self.active("hand") and seconds > 0:
            there = before + self._hand * seconds
            self.at = np.asarray(np.where(self.turning, there, np.clip(there, self.low, self.high)))
            self.speed = (self.at - before) / seconds

    def follow(self, command: np.ndarray, seconds: float) -> None:
        """Follow a command with a lag of a tick or two."""
        if self.active("hand"):
            return
        before = self.at
        self.at = before + 0.7 * (command - before)
        self.speed = (self.at - before) / max(seconds, 1e-6)

    def rest(self) -> None:
        """Nothing is commanded: it stands."""
        if not self.active("hand"):
            self.speed = np.zeros(len(self.at))

    def begin_anew(self) -> None:
        """Its driver falls silent, and then says for a while that the arm is somewhere else."""
        self._silent = int(self.random.choice([0, 10, 25]))
        # Where a hand could have moved it meanwhile: nothing else gives it away.
        reach = np.minimum(self._jump + self._silent * self._travel, self.span)
        there = self.at + self.random.uniform(-1, 1, len(self.at)) * reach
        self._wrong_at = np.asarray(np.where(self.turning, wrapped(there), np.clip(there, self.low, self.high)))

    def pause_stamps(self) -> None:
        """From now on its senders' clocks stand still."""
        self._stop = list(self._sent)

    def shift_stamps(self, seconds: float) -> None:
        """Its senders' clocks jump."""
        self.shifts = self.shifts + seconds

    def was_reset(self) -> None:
        """A reset lets the senders begin new clocks."""
        self._floor = [-np.inf] * len(self.parts)
        self.credible[:] = self.taken[:] = -np.inf

    def reported(self) -> np.ndarray:
        """What an honest driver reads: continuous joints within a turn."""
        return np.where(self.turning, wrapped(self.at), self.at)

    def gap(self, position: np.ndarray, other: np.ndarray, joints: Any = slice(None)) -> np.ndarray:
        """|difference| of two poses (D,), or of ``joints`` of them (n,), the shorter way for continuous joints."""
        return np.abs(np.where(self.turning[joints], wrapped(position - other), position - other))

    # What is said ---------------------------------------------------------------------------------------------------

    def speak(self, now: float, elapsed: float, wrong: Callable[[str], None]) -> None:
        """Everything that is published in one tick: strays, foreigners and the driver in any order."""
        if self.active("joints_foreign"):
            self.core.observe(["wheel_left", "wheel_right"], [1.0, 2.0], stamp=now, publisher=self._name("base"))
            self.core.observe([], [], stamp=now, publisher=self._name("base"))
        first = self.random.uniform() < 0.5
        if first:
            self._stray(now)
        for part in range(len(self.parts)):
            self._driver(now, elapsed, part, wrong)
        if not first:
            self._stray(now)

    def _name(self, publisher: str) -> str:
        return publisher if self.named else ""

    def _stray(self, now: float) -> None:
        """Another publisher with a wrong pose. Without names nobody could tell it from a driver that fell silent, so
        then it only speaks beside the driver: whole ones without a joint are a driver of other joints."""
        if not self.active("stray"):
            return
        silent = ("joints_silent", "part_silent", "joints_missing")
        if not self.named and any(map(self.active, silent)):
            return
        self._stray_left -= 1
        if self._stray_left > 0:
            return
        self._stray_left = self._stray_gap
        # It may speak faster than the driver.
        for i in range(int(self.random.integers(1, 4))):
            stamp = now + self.shifts[0] + self._stray_shift + 1e-4 * i
            joints = self.parts[0] if self.random.uniform() < 0.7 else list(range(len(self.at)))
            names = [self.contract.state_names[joint] for joint in joints]
            self._say(joints, self._stray_at[joints])
            if self.core.observe(names, self._stray_at[joints], None, stamp, self._name("stray")):
                self.told[joints], self.taken[joints] = self._stray_at[joints], now

    def _say(self, joints: list[int], values: np.ndarray) -> None:
        said = self.said[-1].copy()
        said[joints] = values
        self.said.append(said)

    def _could_be(self, joints: list[int], values: np.ndarray, now: float) -> bool:
        """Whether a wrong state of ``joints`` (n,), ascending, could be a true one for whoever knows no more than the
        states before it. ``values`` (n,): what is sent, with all that went wrong with it, since nobody knows more.

        The core believes joint states (``docs/safety_core.md``): where no joint moved by more than ``state_jump``
        beyond what it can travel, a wrong state is as fresh as a true one, and no deadline is broken. That a driver
        without a reading says exactly 0 is known, so the core may not take that where the arm cannot have got to.
        """
        gone = np.maximum(now - self.taken[joints], 0.0)
        room = self._jump[joints].copy()
        # Of the joints in this message: without some of its joints it is another kind of message.
        strict = np.isin(joints, never_all_zero(self.contract, joints))
        if not values[strict].any():  # whatever the gripper says
            room[strict] = self._travel[joints][strict]
        gap = self.gap(values, self.told[joints], joints)
        return bool((gap <= (room + self.velocity[joints] * gone) * (1 + _ROUNDING)).all() and np.isfinite(gone).all())

    def _driver(self, now: float, elapsed: float, part: int, wrong: Callable[[str], None]) -> None:
        if not self.active("stamps_paused"):
            self._stop[part] = None
        paused = self._stop[part]
        stamp = now + self.shifts[part] if paused is None else paused
        if self.random.uniform() < self.lost:
            return
        if self.active("joints_silent") or (part == len(self.parts) - 1 and self.active("part_silent")):
            return
        joints = self.parts[part]
        names = [self.contract.state_names[joint] for joint in joints]
        honest = elapsed >= self.zeros_until and not self.active("joints_zeros")  # it restarts
        values = self.reported()[joints] if honest else np.zeros(len(joints))
        # Only in a fault: armed on, or driven by, a wrong pose at rest could not be distinguished from a true one.
        if self.active("joints_wrong") and self.core.state is State.FAULT:
            if part == 0:
                self._silent -= 1
            if self._silent >= 0:
                return
            honest, values = False, self._wrong_at[joints]
        velocities = {"nothing": None, "nan": np.full(len(joints), np.nan), "truth": self.speed[joints],
                      "zero": np.zeros(len(joints))}[self.tells]  # fmt: skip
        order, sent = list(names), values.copy()
        if self.active("joints_shuffled"):
            mix = self.random.permutation(len(names))
            order, sent = [names[i] for i in mix] + ["other"], np.append(values[mix], 9.0)
            velocities = None if velocities is None else np.append(velocities[mix], 0.0)
        if self.active("joints_missing"):
            order, sent = order[1:], sent[1:]
        if self.active("joints_short"):
            sent = sent[:-1]
        if self.active("joints_nan"):
            sent[-1:] = self.random.choice([np.nan, np.inf])
        if self.active("joints_jump"):
            # Far outside; a joint that turns without end has no outside, so it jumps about.
            sent[:1] += self.random.uniform(0, 6) if self.turning[joints[0]] else 10 * self.span[0] + 1.0
            honest = False
        told: list[int] = []
        if len(sent) == len(order):
            told = [joint for joint, name in zip(joints, names, strict=True) if name in order]
            values = np.array([sent[order.index(self.contract.state_names[joint])] for joint in told])
        sound = bool(told) and bool(np.isfinite(values).all())
        if sound:
            self._say(told, values)
        credible = sound and (honest or self._could_be(told, values, now))
        if self.core.observe(order, sent, velocities, stamp, self._name(f"driver {part}")):
            if sound:
                self.told[told], self.taken[told] = values, now
            if credible:
                self.credible[told] = now
            if not credible and self.core.state in (State.HOLDING, State.RUNNING):
                wrong("a pose that the arm cannot have got to passed as its own")
            if stamp == self._floor[part] and self.core.state not in (State.DISARMED, State.FAULT):
                wrong("a repeated stamp passed as fresh")
        self._sent[part] = stamp
        if not any(map(self.active, ("joints_missing", "joints_short", "joints_nan"))):
            self._floor[part] = stamp  # a broken message is refused before its stamp is looked at
