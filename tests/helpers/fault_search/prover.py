"""Prove the safety core on a contract: random faults against a fake robot, every promise checked at every tick.

    margins = prove(RobotContract.load("my_robot.yaml"), sequences=200, seed=0)

One *sequence* is a few seconds of a robot, its cameras, a policy and a person at the switch, into which faults are
thrown. The simulation knows the truth (when the last honest sample came, when a fault was latched), so it can tell a
false pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fault_search.margins import Margins
from fault_search.policy import spoiled
from fault_search.robot import ProvingRobot
from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import ArmRefusedError
from robo_hw.observation.joint_states import wrapped
from robo_hw.observation.states import Command, State
from robo_hw.safety.chunk import ActionChunk
from robo_hw.safety.clock import ManualClock
from robo_hw.safety.safety_core import SafetyCore
from robo_hw.safety.schedule import MODES

CHUNK_FAULTS = (
    "nan", "inf", "shape", "reordered", "misnamed", "wild", "beyond", "empty", "text", "old_epoch", "old_sequence",
    "late", "future", "other_contract",
)  # fmt: skip
ROBOT_FAULTS = (
    "joints_silent", "joints_missing", "joints_nan", "joints_jump", "joints_short", "joints_shuffled", "joints_foreign",
    "joints_zeros", "joints_wrong", "part_silent", "stray", "robot_stop", "hand",
)  # fmt: skip
CLOCK_FAULTS = ("stamps_paused", "stamps_back", "stamps_ahead", "tick_late", "steady_back")
CAMERA_FAULTS = ("camera_silent", "camera_frozen", "camera_stamps_back")
POLICY_FAULTS = ("policy_dead", "policy_restart", "policy_wild")
PERSON_FAULTS = ("e_stop", "e_stop_with_chunk", "disarm", "arm", "reset")
FAULTS = CHUNK_FAULTS + ROBOT_FAULTS + CLOCK_FAULTS + CAMERA_FAULTS + POLICY_FAULTS + PERSON_FAULTS

ROUNDING = 1e-12
"""Positions and times (s) closer than this are the same."""
TOLERANCE = 1e-6
"""Relative room for rounding: third differences of positions divide errors of 1e-16 by the cube of a short tick."""
_ANGLE_ROUNDING = 1e-9
_CLOCK_ROUNDING = 1e-6
"""Stamps of a million seconds have this much less than their last digits left, s."""


@dataclass(frozen=True)
class FaultAt:
    """One fault of a sequence."""

    time: float
    """Seconds into the sequence."""
    kind: str
    """One of ``FAULTS``."""
    strength: float
    """In [0, 1]: how bad, or how long."""


def prove(contract: RobotContract, sequences: int = 200, seed: int = 0, seconds: float = 3.0) -> Margins:
    """Run random fault sequences on a contract and return the worst margins; ``violations`` is empty when all
    promises held."""
    worst = Margins()
    for i in range(sequences):
        random = np.random.default_rng([seed, i])
        faults = [
            FaultAt(random.uniform(0.2, seconds), str(random.choice(FAULTS)), random.uniform())
            for _ in range(random.integers(0, 8))
        ]
        worst.add(run_sequence(contract, faults, seed=int(random.integers(2**31)), seconds=seconds))
    return worst


def run_sequence(contract: RobotContract, faults: Sequence[FaultAt], seed: int = 0, seconds: float = 3.0) -> Margins:
    """One sequence; every promise is checked at every tick."""
    return _World(contract, faults, seed).run(seconds)


class _World:
    """The fake robot, policy and person, the truth about them, and the checks."""

    def __init__(self, contract: RobotContract, faults: Sequence[FaultAt], seed: int) -> None:
        self.random = random = np.random.default_rng(seed)
        self.contract = contract
        self.clock = ManualClock(random.uniform(0, 1e5))
        self.core = SafetyCore(contract, self.clock, mode=str(random.choice(MODES)))
        self.start = self.clock.now()
        self.pending = sorted(faults, key=lambda fault: fault.time)
        self.until: dict[str, float] = {}
        self.margins = Margins(sequences=1)
        self.robot = robot = ProvingRobot(contract, self.core, random, self.active)
        self.low, self.high, span = robot.low, robot.high, robot.span
        self.limits = {name: contract.array(name) for name in ("velocity", "acceleration", "jerk")}
        self.goal = robot.at.copy()
        self.noise = random.choice([0.0, 1e-3, 1e-2, 0.1]) * random.uniform(0, 1) * span
        self.jitter = random.choice([0.0, 0.1, 0.8])
        self.latency = random.choice([0.0, 0.03, 0.2]) * random.uniform()
        self.replan = random.uniform(0.05, 0.4) * contract.deadlines.actions
        self.horizon = int(random.integers(1, 60) if random.uniform() < 0.3 else random.integers(8, 60))
        self.travel = contract.array("velocity") / contract.rates.control
        self.leash, self.tolerance = contract.array("following_error"), contract.array("arm_tolerance")
        self.sent: list[tuple[float, ActionChunk]] = []
        self.next_plan = 0.0
        self.sequence = 0
        self.picture = 0
        self.honest_pictures = {camera.name: -np.inf for camera in contract.cameras}
        self.accepted_at = -np.inf
        self.runs: list[tuple[list[float], list[np.ndarray], list[np.ndarray]]] = []
        self.awaited = False
        """Whether the arm was armed and no command has come since."""
        self.going = False
        """Whether the last tick gave a command."""
        self.must_arm = False
        """Whether the policy restarted and nobody has armed since."""
        self.held_since: float | None = None
        self.stopped = False
        """Whether the robot stopped by itself, and nobody has armed since."""
        self.latched: Any = None
        self.reset_done = False
        self.tau = 0.0
        self.last_now: float | None = None
        self.still: np.ndarray | None = None

    # The sequence ---------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> Margins:
        period = 1 / self.contract.rates.control
        while self.elapsed < seconds:
            before = self.clock.now()
            self.clock.advance(period * (1 + self.jitter * self.random.uniform(-1, 1)))
            while self.pending and self.pending[0].time <= self.elapsed:
                self.begin(self.pending.pop(0))
            early = self.random.uniform() < 0.5
            if early:
                self.person()
            self.robot.by_hand(self.clock.now() - before)
            self.observe()
            if not early:
                self.person()
            self.policy()
            self.tick()
        self.differences()
        return self.margins

    @property
    def elapsed(self) -> float:
        return self.clock.now() - self.start

    def active(self, kind: str) -> bool:
        return self.until.get(kind, -1.0) > self.elapsed

    def wrong(self, text: str) -> None:
        self.margins.violations.append(f"{self.elapsed:.4f} s: {text}")

    def begin(self, fault: FaultAt) -> None:
        kind, now = fault.kind, self.elapsed
        self.until[kind] = now + 0.02 + 0.8 * fault.strength
        if kind == "e_stop":
            self.core.estop()
        elif kind == "e_stop_with_chunk":
            # Accepted, not yet running: the stop between submit and tick must not be lost.
            self.send_now()
            self.core.estop("while a chunk waits")
        elif kind == "disarm":
            self.core.disarm()
        elif kind == "arm":
            self.arm()
        elif kind == "reset":
            self.reset()
        elif kind == "policy_restart":
            self.core.new_epoch()
            self.must_arm = self.contract.safety.rearm_after_restart
            self.until["policy_dead"] = now + 0.5 * fault.strength
        elif kind == "tick_late":
            self.clock.advance(2 * fault.strength**2)
        elif kind == "steady_back":
            self.clock.advance(-0.05 * fault.strength)
        elif kind == "stamps_paused":
            self.robot.pause_stamps()
        elif kind == "stamps_back":
            self.robot.shift_stamps(-0.01 - 5 * fault.strength)
        elif kind == "stamps_ahead":
            self.robot.shift_stamps(0.01 + 5 * fault.strength)
        elif kind == "joints_wrong":
            self.robot.begin_anew()
        elif kind == "hand":
            self.robot.take_hold()
        elif kind == "robot_stop":
            self.core.robot_stop()
            self.stopped = True
        elif kind == "policy_wild":
            self.noise = self.noise + fault.strength * 0.2 * (self.high - self.low)

    def person(self) -> None:
        if self.core.state is State.DISARMED and self.random.uniform() < 0.1 and not self.active("disarm"):
            self.arm()
        if self.core.state is State.FAULT and self.random.uniform() < 0.02:
            self.reset()

    def arm(self) -> None:
        try:
            self.core.arm()
        except ArmRefusedError:
            return
        if self.latched is not None:
            self.wrong("armed although a fault is latched")
        self.awaited, self.going = True, False
        self.must_arm = self.stopped = False
        if self.random.uniform() < 0.2:  # at the worst moment
            self.robot.take_hold()
            self.until["hand"] = self.elapsed + self.random.uniform(0, 0.5)

    def reset(self) -> None:
        try:
            self.core.reset_fault()
        except ArmRefusedError:
            return
        self.reset_done = True
        self.robot.was_reset()

    # What the robot tells -------------------------------------------------------------------------------------------

    def observe(self) -> None:
        now = self.clock.now()
        self.robot.speak(now, self.elapsed, self.wrong)
        stamp = self.robot._sent[0]
        self.picture += 1
        for camera in self.contract.cameras:
            if self.active("camera_silent"):
                continue
            shift = 3.0 if self.active("camera_stamps_back") else 0.0
            digest = -1 if self.active("camera_frozen") else self.picture
            if self.core.observe_camera(camera.name, digest, stamp=stamp - shift):
                self.honest_pictures[camera.name] = now

    # What the policy does -------------------------------------------------------------------------------------------

    def policy(self) -> None:
        if self.elapsed >= self.next_plan and not self.active("policy_dead"):
            self.next_plan = self.elapsed + self.replan
            self.sent.append((self.elapsed + self.latency, self.plan()))
        while self.sent and self.sent[0][0] <= self.elapsed:
            self.deliver(self.sent.pop(0)[1])

    def send_now(self) -> None:
        self.deliver(self.plan())

    def plan(self) -> ActionChunk:
        span = self.high - self.low
        if self.random.uniform() < 0.2:
            self.goal = self.low + span * self.random.uniform(-0.05, 1.05, len(span))
        step = 0.6 * self.limits["velocity"] / self.contract.rates.actions
        way = self.goal - self.robot.at
        share = np.minimum(1.0, np.arange(1, self.horizon + 1)[:, None] / max(float(np.max(np.abs(way) / step)), 1.0))
        smooth = share * share * (3 - 2 * share)
        actions = self.robot.at + smooth * way + self.random.normal(0, 1, (self.horizon, len(span))) * self.noise
        self.sequence += 1
        # Policies learn from what drivers read: continuous joints within a turn.
        actions = np.where(self.robot.turning, wrapped(actions), actions)
        return ActionChunk(actions, self.contract.joint_names, self.core.epoch, self.sequence, self.clock.now())

    def deliver(self, chunk: ActionChunk) -> None:
        chunk = spoiled(chunk, self.contract, self.random, self.active)
        epoch, state = self.core.epoch, self.core.state
        result = self.core.submit(chunk)
        if not result.accepted:
            return
        self.accepted_at, self.held_since = self.clock.now(), None
        self.margins.accepted += 1
        if self.must_arm:
            self.wrong("a chunk was accepted after the policy restarted, and nobody had armed")
        if chunk.epoch != epoch:
            self.wrong("a chunk of another epoch was accepted")
        if self.latched is not None or state not in (State.HOLDING, State.RUNNING):
            self.wrong(f"a chunk was accepted while {state.value}")
        if not np.all(np.isfinite(np.asarray(chunk.actions, dtype=np.float64))):
            self.wrong("a chunk that is not finite was accepted")
        if tuple(chunk.joints) != self.contract.joint_names:
            self.wrong("a chunk with other joints was accepted")

    # The promises ---------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        now, core = self.clock.now(), self.core
        before = core.state
        command = core.tick()
        step = 0.0 if self.last_now is None else max(now - self.last_now, 0.0)
        self.last_now = now
        self.tau += step
        self.margins.ticks += 1
        self.check_latch()
        self.check_watchdogs(now)
        self.check_stop(now, step)
        self.check_idle(now)
        if command is not None and self.stopped:
            self.wrong(f"a command while {core.state.value} after the robot stopped by itself")
        if command is None:
            if core.state not in (State.DISARMED, State.FAULT) and not self.awaited:
                self.wrong(f"no command while {core.state.value}")
            self.going, self.still = False, None
            self.robot.rest()
            return
        if core.state is State.DISARMED and (before is not State.STOPPING or command.velocities.any()):
            self.wrong("a command while disarmed, and not the last one of a stop")
        if core.state is State.FAULT:
            self.check_fault_command(command, before)
        elif self.awaited:
            self.check_first_command(command)
        elif not self.going:
            self.wrong(f"a command out of nothing while {core.state.value}")
        self.check_command(command)
        self.robot.follow(command.positions, step)

    def check_first_command(self, command: Command) -> None:
        """The first command after arming lies where the arm truly is."""
        share = float((self.robot.gap(command.positions, self.robot.at) / self.travel).max())
        self.margins.armings += 1
        self.margins.first_command = max(self.margins.first_command, share)
        if share > 1 + TOLERANCE:
            self.wrong(f"the first command lies {share:.2f} control periods' travel from the arm")
        self.awaited = False
        self.begin_run(command.positions)

    def check_fault_command(self, command: Command, before: State) -> None:
        """In a fault nothing is commanded that is further than the following error from the measured pose."""
        robot, measured = self.robot, self.core.pose()[0]
        known = [robot.gap(measured, pose) for pose in (robot.told, *robot.said)]
        if not (np.fmin.reduce(known) <= _ANGLE_ROUNDING).all():
            self.wrong("the measured pose in a fault is one that nobody told")
        gap = robot.gap(command.positions, measured)
        share = float((gap / self.leash).max())
        self.margins.fault_commands += 1
        self.margins.fault_command = max(self.margins.fault_command, share)
        if share > 1 + TOLERANCE:
            self.wrong(f"a command in a fault lies {share:.2f} following errors from the measured pose")
        if self.awaited and before is not State.FAULT:
            self.wrong("a command in a fault, and none had come since the arm was armed")
        last = self.runs[-1][1][-1] if self.runs else None
        same = last is not None and np.allclose(command.positions, last, rtol=0, atol=ROUNDING)
        if before in (State.RUNNING, State.STOPPING) and self.going:
            return  # the last of the stop
        deadline = self.contract.deadlines.joint_states
        # Measured is true, whatever others say, but for what a hand did since.
        away = robot.gap(command.positions, robot.at) - self.limits["velocity"] * (deadline + _CLOCK_ROUNDING)
        if (away > self.leash * (1 + TOLERANCE)).any():
            self.wrong("a command in a fault lies further than the following error from where the arm truly is")
        if not same and (gap > self.tolerance + ROUNDING).any():
            self.wrong("a command in a fault that is neither held nor measured")
        if not same or not self.going:
            self.begin_run(command.positions)

    def begin_run(self, held: np.ndarray) -> None:
        """Commands from here on are one motion, begun at rest at ``held``."""
        gap = 1 / self.contract.rates.control
        times = [self.tau - 3 * gap, self.tau - 2 * gap, self.tau - gap]
        self.runs.append((times, [held] * 3, [np.zeros_like(held)] * 3))
        self.still = held

    def check_idle(self, now: float) -> None:
        if self.core.state is not State.HOLDING:
            self.held_since = None
        elif self.held_since is None:
            self.held_since = now
        elif now - self.held_since > self.contract.deadlines.idle + _CLOCK_ROUNDING:
            self.wrong(f"held for {now - self.held_since:.3f} s without a chunk")

    def check_latch(self) -> None:
        fault = self.core.fault
        if self.latched is not None and fault is not self.latched and not self.reset_done:
            self.wrong(f"the latch of {self.latched.cause!r} was lost or replaced")
        if fault is not None and fault is not self.latched:
            self.margins.faults += 1
        self.latched, self.reset_done = fault, False
        if fault is not None and self.core.state not in (State.STOPPING, State.FAULT):
            self.wrong(f"{self.core.state.value} although {fault.cause!r} is latched")
        if self.core._estop is not None:
            self.wrong("an emergency stop is still waiting after a tick")

    def check_watchdogs(self, now: float) -> None:
        core, deadlines = self.core, self.contract.deadlines
        # Without names, what a stray says near the arm's pose is a joint state like the driver's.
        heard = self.robot.credible if self.robot.named else self.robot.taken
        age = now - float(heard.min())
        if core.state in (State.HOLDING, State.RUNNING) and age > deadlines.joint_states + _CLOCK_ROUNDING:
            self.wrong(f"{core.state.value} on joint states {age:.3f} s old")
        if core.state is not State.RUNNING:
            return
        if now - self.accepted_at > deadlines.actions + _CLOCK_ROUNDING:
            self.wrong(f"running on a chunk {now - self.accepted_at:.3f} s old")
        for camera in self.contract.cameras:
            if now - self.honest_pictures[camera.name] > camera.stop_after + _CLOCK_ROUNDING:
                self.wrong(f"running with camera {camera.name} silent")

    def check_stop(self, now: float, step: float) -> None:
        stop = self.core.last_stop
        if stop is None:
            return
        most = self.contract.safety.max_stop_time
        self.margins.stop_bound = max(self.margins.stop_bound, stop.bound / most)
        if stop.bound > most + 1e-9:
            self.wrong(f"a stop is bounded by {stop.bound:.3f} s, more than max_stop_time {most:g} s")
        if self.core.state is State.STOPPING and now - stop.since > stop.bound + 1e-9:
            self.wrong(f"still moving {now - stop.since:.4f} s into a stop bounded by {stop.bound:.4f} s")
        if stop.rested == now:
            self.margins.stops += 1
            took = stop.rested - stop.since
            self.margins.stop_time = max(self.margins.stop_time, min(took, stop.bound))
            self.margins.stop = max(self.margins.stop, took / max(stop.bound + step, 1e-9))

    def check_command(self, command: Command) -> None:
        position, velocity = command.positions, command.velocities
        if not (np.isfinite(position).all() and np.isfinite(velocity).all()):
            self.wrong("a command is not finite")
        if command.state in (State.HOLDING, State.FAULT):
            if self.still is not None and not np.allclose(position, self.still, rtol=0, atol=ROUNDING):
                self.wrong(f"the hold moved by {np.abs(position - self.still).max():.3g} while {command.state.value}")
            if velocity.any():
                self.wrong(f"a velocity while {command.state.value}")
            self.still = position
        else:
            self.still = None
        self.going = True
        times, positions, velocities = self.runs[-1]
        if self.tau > times[-1]:
            times.append(self.tau)
            positions.append(position)
            velocities.append(velocity)
        elif not np.allclose(position, positions[-1], rtol=0, atol=ROUNDING):
            self.wrong("the command changed although no time had passed")

    def differences(self) -> None:
        """Positions and their divided differences, each a mean of the derivative it stands for, against the limits."""
        for times, positions, velocities in self.runs:
            t, q, v = np.array(times), np.array(positions), np.array(velocities)
            inside = np.where(self.robot.turning, self.low, q)  # without limits there is no outside
            outside = np.maximum(self.low - inside, inside - self.high).max() / (self.high - self.low).min()
            share = np.abs(2 * (inside - self.low) / (self.high - self.low) - 1).max()
            self.worst("position", float(share), 1 + 1e-9 if outside <= 1e-9 else share / 2)
            self.worst("velocity", float((np.abs(v) / self.limits["velocity"]).max()))
            # k! times the k-th divided difference is a weighted mean of the k-th derivative, for any spacing of ticks.
            first = np.diff(q, axis=0) / np.diff(t)[:, None]
            second = 2 * np.diff(first, axis=0) / (t[2:] - t[:-2])[:, None]
            third = 3 * np.diff(second, axis=0) / (t[3:] - t[:-3])[:, None]
            change = np.diff(v, axis=0) / np.diff(t)[:, None]
            for name, values in (("velocity", first), ("acceleration", second), ("acceleration", change)):
                self.worst(name, float((np.abs(values) / self.limits[name]).max()))
            if len(third):
                self.worst("jerk", float((np.abs(third) / self.limits["jerk"]).max()))

    def worst(self, name: str, share: float, allowed: float = 1 + TOLERANCE) -> None:
        setattr(self.margins, name, max(getattr(self.margins, name), share))
        if not share <= allowed:
            self.wrong(f"{name} reached {share:.9f} of its limit")
