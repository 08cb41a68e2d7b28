"""Prove the safety core on a contract: random faults against a fake robot, every promise checked at every tick.

    margins = prove(RobotContract.load("my_robot.yaml"), sequences=200, seed=0)

One *sequence* is a few seconds of a robot, its cameras, a policy and a person at the switch, into which faults are
thrown. The world knows the truth (when the last honest sample came, when a fault was latched), so it can tell a
false pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robo_hw.chunk import ActionChunk
from robo_hw.clock import ManualClock
from robo_hw.contract import RobotContract
from robo_hw.errors import ArmRefusedError
from robo_hw.safety_core import SafetyCore
from robo_hw.schedule import MODES
from robo_hw.states import Command, State

CHUNK_FAULTS = (
    "nan", "inf", "shape", "reordered", "misnamed", "wild", "beyond", "empty", "text", "old_epoch", "old_sequence",
    "late", "future", "other_contract",
)  # fmt: skip
ROBOT_FAULTS = ("joints_silent", "joints_missing", "joints_nan", "joints_jump", "joints_short", "joints_shuffled")
CLOCK_FAULTS = ("stamps_paused", "stamps_back", "stamps_ahead", "tick_late", "steady_back")
CAMERA_FAULTS = ("camera_silent", "camera_frozen", "camera_stamps_back")
POLICY_FAULTS = ("policy_dead", "policy_restart", "policy_wild")
PERSON_FAULTS = ("e_stop", "e_stop_with_chunk", "disarm", "arm", "reset")
FAULTS = CHUNK_FAULTS + ROBOT_FAULTS + CLOCK_FAULTS + CAMERA_FAULTS + POLICY_FAULTS + PERSON_FAULTS

ROUNDING = 1e-12
"""Positions and times (s) closer than this are the same."""
TOLERANCE = 1e-6
"""Relative room for rounding: third differences of positions divide errors of 1e-16 by the cube of a short tick."""
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


@dataclass
class Margins:
    """The worst that was observed. The shares are of the limit: 1.0 touches it."""

    position: float = 0.0
    velocity: float = 0.0
    acceleration: float = 0.0
    jerk: float = 0.0
    stop: float = 0.0
    """Longest stop as a share of its own computed bound plus the tick in which it ends."""
    stop_time: float = 0.0
    """Longest stop, s."""
    stop_bound: float = 0.0
    """Longest computed bound as a share of the contract's max_stop_time."""
    ticks: int = 0
    stops: int = 0
    faults: int = 0
    accepted: int = 0
    sequences: int = 0
    violations: list[str] = field(default_factory=list)

    def add(self, other: Margins) -> None:
        """Take over the worse of both."""
        for name in ("position", "velocity", "acceleration", "jerk", "stop", "stop_time", "stop_bound"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))
        for name in ("ticks", "stops", "faults", "accepted", "sequences"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.violations += other.violations


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


def random_contract(random: np.random.Generator) -> RobotContract:
    """An arm nobody has built: 1 to 7 joints with any limits, rates and deadlines that make sense together."""

    def between(low: float, high: float) -> float:
        return float(np.exp(random.uniform(np.log(low), np.log(high))))

    joints = []
    for i in range(int(random.integers(1, 8))):
        low = float(random.uniform(-6, 0))
        velocity = between(0.2, 8)
        acceleration = velocity * between(1, 20)
        joints.append(
            {"name": f"joint_{i}", "kind": "revolute", "unit": "rad", "position": [low, low + between(0.5, 6)],
             "velocity": velocity, "acceleration": acceleration, "jerk": acceleration * between(2, 60),
             "following_error": 10.0, "state_jump": 10.0, "saturate": bool(random.uniform() < 0.2)}
        )  # fmt: skip
    control = between(25, 250)
    cameras = [
        {"name": f"camera_{i}", "topic": f"/camera_{i}", "width": 64, "height": 48, "rate": control,
         "degraded_after": 0.15, "stop_after": 0.3, "frozen_after": 0.5}
        for i in range(int(random.integers(0, 3)))
    ]  # fmt: skip
    return RobotContract.from_dict(
        {
            "contract": 2,
            "robot": "random",
            "joints": joints,
            "cameras": cameras,
            "topics": {
                "joint_states": {"name": "/joint_states"},
                "command": {"name": "/command", "interface": "joint_trajectory"},
            },
            "rates": {"control": control, "actions": min(between(4, 60), control), "joint_states": control},
            "deadlines": {"joint_states": 2.2 / control, "actions": between(0.3, 1.5), "chunk": 0.6,
                          "tick": 2.5 / control},
            "safety": {"cool_down": 0.5, "max_stop_time": between(0.25, 2), "reserve": float(random.uniform(0.2, 0.8))},
        }
    )  # fmt: skip


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
        self.low, self.high = contract.array("position").T
        span = self.high - self.low
        self.limits = {name: contract.array(name) for name in ("velocity", "acceleration", "jerk")}
        self.robot = self.low + span * random.uniform(0.1, 0.9, len(span))
        self.goal = self.robot.copy()
        self.noise = random.choice([0.0, 1e-3, 1e-2, 0.1]) * random.uniform(0, 1) * span
        self.jitter = random.choice([0.0, 0.1, 0.8])
        self.latency = random.choice([0.0, 0.03, 0.2]) * random.uniform()
        self.replan = random.uniform(0.05, 0.4) * contract.deadlines.actions
        self.horizon = int(random.integers(1, 60) if random.uniform() < 0.3 else random.integers(8, 60))
        self.stamp_shift = random.uniform(-1e6, 1e6)
        self.stamp_stop: float | None = None
        self.stamp_sent = self.clock.now() + self.stamp_shift
        self.stamp_floor = -np.inf
        self.sent: list[tuple[float, ActionChunk]] = []
        self.next_plan = 0.0
        self.sequence = 0
        self.picture = 0
        self.honest_joints = -np.inf
        self.honest_pictures = {camera.name: -np.inf for camera in contract.cameras}
        self.accepted_at = -np.inf
        self.runs: list[tuple[list[float], list[np.ndarray], list[np.ndarray]]] = []
        self.told = self.robot.copy()
        """The robot's joints as the core took them last."""
        self.latched: Any = None
        self.reset_done = False
        self.tau = 0.0
        self.last_now: float | None = None
        self.still: np.ndarray | None = None

    # The sequence ---------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> Margins:
        period = 1 / self.contract.rates.control
        while self.elapsed < seconds:
            self.clock.advance(period * (1 + self.jitter * self.random.uniform(-1, 1)))
            while self.pending and self.pending[0].time <= self.elapsed:
                self.begin(self.pending.pop(0))
            self.person()
            self.observe()
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
            self.until["policy_dead"] = now + 0.5 * fault.strength
        elif kind == "tick_late":
            self.clock.advance(2 * fault.strength**2)
        elif kind == "steady_back":
            self.clock.advance(-0.05 * fault.strength)
        elif kind == "stamps_paused":
            self.stamp_stop = self.stamp_sent
        elif kind == "stamps_back":
            self.stamp_shift -= 0.01 + 5 * fault.strength
        elif kind == "stamps_ahead":
            self.stamp_shift += 0.01 + 5 * fault.strength
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
        now = self.clock.now()
        # What was told last: an arm that was just let go may still creep by a hair.
        held = np.clip(self.told, self.low, self.high)
        gap = 1 / self.contract.rates.control
        self.runs.append(([self.tau - 2 * gap, self.tau - gap, self.tau], [held] * 3, [np.zeros_like(held)] * 3))
        self.last_now = now
        self.still = held

    def reset(self) -> None:
        try:
            self.core.reset_fault()
        except ArmRefusedError:
            return
        self.reset_done = True
        self.stamp_floor = -np.inf  # a reset lets the sender begin a new clock
        self.honest_joints = -np.inf

    # What the robot tells -------------------------------------------------------------------------------------------

    def observe(self) -> None:
        now, names = self.clock.now(), self.contract.joint_names
        if not self.active("stamps_paused"):
            self.stamp_stop = None
        stamp = now + self.stamp_shift if self.stamp_stop is None else self.stamp_stop
        if not self.active("joints_silent"):
            order, values = list(names), self.robot.copy()
            if self.active("joints_shuffled"):
                mix = self.random.permutation(len(names))
                order, values = [names[i] for i in mix] + ["other"], np.append(values[mix], 9.0)
            if self.active("joints_missing"):
                order, values = order[1:], values[1:]
            if self.active("joints_short"):
                values = values[:-1]
            if self.active("joints_nan"):
                values[-1:] = self.random.choice([np.nan, np.inf])
            if self.active("joints_jump"):
                values[:1] += 10 * (self.high - self.low)[0]
            if self.core.observe(order, values, stamp=stamp):
                self.honest_joints, self.told = now, self.robot.copy()
                if stamp == self.stamp_floor and self.core.state is not State.DISARMED:
                    self.wrong("a repeated stamp passed as fresh")
            self.stamp_sent = stamp
            if not any(map(self.active, ("joints_missing", "joints_short", "joints_nan"))):
                self.stamp_floor = stamp  # a broken message is refused before its stamp is looked at
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
        way = self.goal - self.robot
        share = np.minimum(1.0, np.arange(1, self.horizon + 1)[:, None] / max(float(np.max(np.abs(way) / step)), 1.0))
        smooth = share * share * (3 - 2 * share)
        actions = self.robot + smooth * way + self.random.normal(0, 1, (self.horizon, len(span))) * self.noise
        self.sequence += 1
        return ActionChunk(actions, self.contract.joint_names, self.core.epoch, self.sequence, self.clock.now())

    def deliver(self, chunk: ActionChunk) -> None:
        chunk = self.spoil(chunk)
        epoch, state = self.core.epoch, self.core.state
        result = self.core.submit(chunk)
        if not result.accepted:
            return
        self.accepted_at = self.clock.now()
        self.margins.accepted += 1
        if chunk.epoch != epoch:
            self.wrong("a chunk of another epoch was accepted")
        if self.latched is not None or state not in (State.HOLDING, State.RUNNING):
            self.wrong(f"a chunk was accepted while {state.value}")
        if not np.all(np.isfinite(np.asarray(chunk.actions, dtype=np.float64))):
            self.wrong("a chunk that is not finite was accepted")
        if tuple(chunk.joints) != self.contract.joint_names:
            self.wrong("a chunk with other joints was accepted")

    def spoil(self, chunk: ActionChunk) -> ActionChunk:
        actions: Any = np.array(chunk.actions)
        data = dict(vars(chunk))
        row, column = self.random.integers(actions.shape[0]), self.random.integers(actions.shape[1])
        if self.active("nan"):
            actions[row, column] = np.nan
        if self.active("inf"):
            actions[row, column] = self.random.choice([np.inf, -np.inf, 1e308])
        if self.active("wild"):
            actions[row, column] += 100 * (self.high - self.low)[column]
        if self.active("beyond"):
            actions += 0.3 * (self.high - self.low)
        if self.active("shape"):
            actions = actions[:, :-1] if self.random.uniform() < 0.5 else actions[0]
        if self.active("empty"):
            actions = actions[:0]
        if self.active("text"):
            actions = [["0.1"] * len(self.low)]
        if self.active("reordered") and len(self.low) > 1:
            data["joints"] = tuple(reversed(chunk.joints))
        if self.active("misnamed"):
            data["joints"] = ("somebody", *chunk.joints[1:])
        if self.active("old_epoch"):
            data["epoch"] = chunk.epoch - 1
        if self.active("old_sequence"):
            data["sequence"] = -1
        if self.active("late"):
            data["observed_at"] = chunk.observed_at - self.contract.deadlines.chunk - 0.01
        if self.active("future"):
            data["observed_at"] = chunk.observed_at + 1.0
        if self.active("other_contract"):
            data["contract_hash"] = "0" * 64
        data["actions"] = actions
        return ActionChunk(**data)

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
        if command is None:
            if core.state not in (State.DISARMED, State.FAULT):
                self.wrong(f"no command while {core.state.value}")
            self.still = None
            return
        if core.state is State.DISARMED and (before is not State.STOPPING or command.velocities.any()):
            self.wrong("a command while disarmed, and not the last one of a stop")
        self.check_command(command)
        # The robot follows with a lag of a tick or two.
        self.robot = self.robot + 0.7 * (command.positions - self.robot)

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
        if (
            core.state in (State.HOLDING, State.RUNNING)
            and now - self.honest_joints > deadlines.joint_states + _CLOCK_ROUNDING
        ):
            self.wrong(f"{core.state.value} on joint states {now - self.honest_joints:.3f} s old")
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
            outside = np.maximum(self.low - q, q - self.high).max() / (self.high - self.low).min()
            share = np.abs(2 * (q - self.low) / (self.high - self.low) - 1).max()
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
