"""A robot, a policy and a recorder around the safety core, with a clock that the test owns."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
from motion_limits import check_limits

from robo_hw import ActionChunk, ArmRefusedError, Command, ManualClock, RobotContract, SafetyCore, State

DT = 0.01


class Bench:
    """A Franka that follows exactly, a policy that moves every joint, and a recorder."""

    def __init__(self, mode: str = "latest", contract: RobotContract | None = None) -> None:
        self.contract = contract or RobotContract.load("franka_panda")
        self.clock = ManualClock(100.0)
        self.core = SafetyCore(self.contract, self.clock, mode=mode)
        self.names = self.contract.joint_names
        self.robot = np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.5, 0.7])
        self.sequence = 0
        self.picture = 0
        self.joints = self.cameras = True
        self.digest: int | None = None
        self.stamp_shift = 0.0
        self.stamp: float | None = None
        self.commands = []

    def see(self) -> None:
        stamp = self.clock.now() + self.stamp_shift if self.stamp is None else self.stamp
        if self.joints:
            self.core.observe(self.names, self.robot, stamp=stamp)
        self.picture += 1
        if self.cameras:
            self.core.observe_camera("wrist", self.picture if self.digest is None else self.digest, stamp=stamp)

    def settle(self) -> None:
        """Be seen at rest for as long as arming asks."""
        for _ in range(6):
            self.clock.advance(DT)
            self.see()

    def step(self, seconds: float = DT, dt: float = DT):
        for _ in range(max(round(seconds / dt), 1)):
            self.clock.advance(dt)
            self.see()
            command = self.core.tick()
            if command is not None:
                self.commands.append(command)
                self.robot = command.positions
        return command

    def chunk(self, horizon: int = 24, speed: float = 0.2, **changes) -> ActionChunk:
        self.sequence += 1
        way = np.linspace(0, 1, horizon + 1)[1:, None] * horizon / 20 * speed
        chunk = ActionChunk(self.robot + way, self.names, self.core.epoch, self.sequence, self.clock.now())
        return dataclasses.replace(chunk, **changes)

    def start(self) -> None:
        self.settle()
        self.core.arm()
        self.step()
        assert self.core.submit(self.chunk()).accepted
        self.step(0.3)
        assert self.core.state is State.RUNNING
        assert np.abs(self.commands[-1].velocities).max() > 0.1

    def comes_to_rest(self, state: State) -> None:
        """Brakes inside the limits and the bound, then holds one position in ``state``."""
        stop = self.core.last_stop
        assert stop is not None
        assert stop.bound <= self.contract.safety.max_stop_time
        first = len(self.commands)
        while self.core.state is State.STOPPING:
            self.step()
            assert self.clock.now() - stop.since <= stop.bound + DT + 1e-9
        assert self.core.state is state
        self.step(0.1)
        held = [command for command in self.commands[first:] if command.state is state]
        if state is State.FAULT and self.contract.safety.in_fault == "silent":
            assert len(held) <= 1, "the last of the stop, then nothing"
            held += [command for command in self.commands[first:] if command is self.commands[-1]]
        else:
            assert len(held) >= 10, "the hold is re-published every tick"
        assert all(np.array_equal(command.positions, held[0].positions) for command in held)
        assert not any(command.velocities.any() for command in held)
        self.keeps_the_limits()

    def keeps_the_limits(self) -> None:
        check_limits(self.contract, self.commands)

    def last(self, kind: str):
        return self.core.log.of_kind(kind)[-1]


TRUTH = np.array([0.6, -1.8, 1.9, -1.6, -1.5, 0.4])
"""Where an arm is that is not at zero."""


def contract_with(name: str = "ur5e", **sections) -> RobotContract:
    """A packaged contract with other values: ``topics={...}``, ``safety={...}``, ``joints={3: {...}}``, ..."""
    data = copy.deepcopy(RobotContract.load(name).to_dict())
    for section, values in sections.items():
        if section == "joints":
            for place, change in values.items():
                data["joints"][place].update(change)
                if change.get("kind") == "continuous":
                    for key in ("position", "saturate", "arm_tolerance"):
                        data["joints"][place].pop(key)
        else:
            data[section].update(values)
    for key in ("in_fault",) if "topics" in sections else ():
        del data["safety"][key]
    return RobotContract.from_dict(data)


class Arm:
    """A robot whose driver, and strangers, say what the test wants."""

    def __init__(self, contract: RobotContract | None = None, at: np.ndarray = TRUTH) -> None:
        self.contract = contract or RobotContract.load("ur5e")
        self.clock = ManualClock(100.0)
        self.core = SafetyCore(self.contract, self.clock)
        self.names = self.contract.state_names
        self.at = np.array(at, dtype=float)
        self.dt = 1 / self.contract.rates.control
        self.pictures = self.sequence = 0

    def say(self, values=None, velocities=None, names=None, publisher="", stamp="now") -> bool:
        stamp = self.clock.now() if stamp == "now" else stamp
        return self.core.observe(
            self.names if names is None else names, self.at if values is None else values, velocities, stamp, publisher
        )

    def look(self) -> None:
        self.pictures += 1
        for camera in self.contract.cameras:
            self.core.observe_camera(camera.name, self.pictures, self.clock.now())

    def settle(self, count: int = 8, **said) -> None:
        for _ in range(count):
            self.clock.advance(self.dt)
            self.say(**said)
            self.look()

    def step(self, count: int = 1, follow: bool = True, **said) -> Command | None:
        command = None
        for _ in range(count):
            self.clock.advance(self.dt)
            self.say(**said)
            self.look()
            command = self.core.tick()
            if command is not None and follow:
                self.at = command.positions.copy()
        return command

    def chunk(self, to: float = 0.3, horizon: int = 40, **changes) -> ActionChunk:
        self.sequence += 1
        way = np.linspace(0, to, horizon)[:, None] * np.ones(len(self.at))
        chunk = ActionChunk(self.at + way, self.contract.joint_names, self.core.epoch, self.sequence, self.clock.now())
        return dataclasses.replace(chunk, **changes)

    def armed(self, running: bool = False) -> Arm:
        self.settle()
        self.core.arm()
        self.step()
        if running:
            assert self.core.submit(self.chunk()).accepted
            self.step(20)
            assert self.core.state is State.RUNNING
        return self

    def refused(self, **how) -> str:
        with pytest.raises(ArmRefusedError) as caught:
            self.core.arm(**how)
        assert self.core.tick() is None
        return str(caught.value)


def following() -> Arm:
    """An arm whose controller keeps the last command permanently."""
    return Arm(contract_with(topics={"command": {"name": "/c", "interface": "forward_command"}}))


@pytest.fixture
def resting() -> Bench:
    """Disarmed, and nothing seen yet."""
    return Bench()


@pytest.fixture
def bench() -> Bench:
    """Armed and running."""
    bench = Bench()
    bench.start()
    return bench
