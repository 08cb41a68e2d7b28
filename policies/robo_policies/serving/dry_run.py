"""A policy in front of the safety core on recorded observations: nothing moves, time is simulated, all is counted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from robo_hw import ActionChunk, ManualClock, RobotContract, SafetyCore, State
from robo_hw.errors import ArmRefusedError
from robo_hw.transport import Observation
from robo_policies.serving.fit import STATE
from robo_policies.serving.values import Values

if TYPE_CHECKING:
    from robo_datasets import Episode
    from robo_policies.serving.served import ServedLearnedPolicy, ServedRewardModel


@dataclass
class DryRun:
    """What happened over some episodes; times in seconds, positions in the joints' units."""

    episodes: int = 0
    seconds: float = 0.0
    """Simulated."""
    chunks: int = 0
    accepted: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    """Why chunks were not taken, and how often."""
    stops: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowed: float = 0.0
    """Simulated seconds of motion below 95 % of the nominal speed."""
    moving: float = 0.0
    shortened: Counter[str] = field(default_factory=Counter)
    """Joints whose position limit shortened a step."""
    latency: list[float] = field(default_factory=list)
    """Of the policy, on this machine."""
    progress_latency: list[float] = field(default_factory=list)
    tick: list[float] = field(default_factory=list)
    """Of the core."""
    predicted: list[np.ndarray] = field(default_factory=list)
    """Every chunk, (H, D)."""
    deviation: list[np.ndarray] = field(default_factory=list)
    """|command - recorded state| (D,), every tick."""
    worst: dict[str, float] = field(default_factory=dict)
    """Greatest fraction of each limit that the commands reached."""
    final_progress: list[float] = field(default_factory=list)


def dry_run(
    run: DryRun,
    episode: Episode,
    policy: ServedLearnedPolicy,
    progress: ServedRewardModel | None,
    contract: RobotContract,
    mode: str,
    seconds: float,
    values: Mapping[str, Values] | None = None,
) -> None:
    """Play one recorded episode into policy and core, and add what happened to ``run``.

    The policy sees what was recorded; the arm follows its commands exactly. A chunk takes effect after the time that
    the policy really took to compute it. ``values``: how what was recorded becomes the contract's units.
    """
    rate, dt = contract.rates.actions, 1.0 / contract.rates.control
    length = min(episode.length, max(int(seconds * rate), 2))
    keys = {*policy.info.needs, *(progress.needs if progress else {}), STATE}
    converted = values or {}
    arrays: dict[str, np.ndarray] = {
        key: converted[key].to_contract(episode[key][:length]) if key in converted else episode[key][:length]
        for key in keys
    }
    clock = ManualClock(100.0)
    core = SafetyCore(contract, clock, mode=mode)
    arm = np.clip(np.asarray(arrays[STATE][0], np.float64), *contract.array("position").T)
    running, following = policy.start(episode.task or ""), progress.start(episode.task or "") if progress else None
    waiting: list[tuple[float, ActionChunk]] = []
    times, positions = [], []
    frame, asked, sequence = -1, -np.inf, 0
    history: list[dict[str, np.ndarray]] = []
    start = _wait_at_rest(core, clock, arm)
    until = start + (length - 1) / rate
    while clock.now() < until:
        now = clock.advance(dt)
        core.observe(contract.state_names, arm, stamp=now)
        for camera in contract.cameras:
            core.observe_camera(camera.name, round(now / dt), stamp=now)
        if core.state is State.DISARMED:
            try:
                core.arm()
            except ArmRefusedError as error:
                run.faults.append(str(error))
                return
        newest = min(int((now - start) * rate + 1e-9), length - 1)
        if newest != frame:
            frame = newest
            seen = {key: np.asarray(array[frame]) for key, array in arrays.items()}
            history = [*history[-policy.info.history :], seen]
            if following is not None:
                began = time.perf_counter()
                estimate = following.step(Observation(sequence, now, seen))
                run.progress_latency.append(time.perf_counter() - began)
                if frame == episode.length - 1:
                    run.final_progress.append(estimate.progress)
            idle = core.state is State.HOLDING and not waiting
            if idle or frame - asked >= policy.info.execution_horizon:
                asked, sequence = frame, sequence + 1
                observation = Observation(sequence, now, seen, past=_past(history, policy.info.history))
                began = time.perf_counter()
                actions = running.act(observation)
                run.latency.append(time.perf_counter() - began)
                run.predicted.append(np.asarray(actions, np.float64))
                chunk = ActionChunk(actions, contract.joint_names, core.epoch, sequence, now)
                waiting.append((now + run.latency[-1], chunk))
        while waiting and waiting[0][0] <= now:
            result = core.submit(waiting.pop(0)[1])
            run.chunks += 1
            run.accepted += result.accepted
            if not result.accepted:
                run.refusals[result.message] += 1
        began = time.perf_counter()
        command = core.tick()
        run.tick.append(time.perf_counter() - began)
        if command is None:
            continue
        arm = command.positions
        times.append(now)
        positions.append(arm)
        run.deviation.append(np.abs(arm - arrays[STATE][frame]))
        if core.state is State.RUNNING:
            run.moving += dt
            run.slowed += dt * (core.status().rate < 0.95)
    run.episodes += 1
    run.seconds += clock.now() - 100.0
    run.stops.update(event.message for event in core.log.of_kind("stop"))
    run.shortened.update(event.joint for event in core.log.of_kind("limited") if event.joint)
    if core.fault is not None:
        run.faults.append(core.fault.message)
    _add_margins(run, contract, np.array(times), np.array(positions))


def _wait_at_rest(core: SafetyCore, clock: ManualClock, arm: np.ndarray) -> float:
    """Show the core an arm at rest at ``arm`` (D,) for as long as arming asks; returns the time then, s."""
    contract = core.contract
    for _ in range(contract.safety.arm_states):
        now = clock.advance(max(1 / contract.rates.control, 1 / contract.rates.joint_states))
        core.observe(contract.state_names, arm, stamp=now)
    return clock.now()


def _past(history: list[dict[str, np.ndarray]], steps: int) -> tuple[dict[str, np.ndarray], ...]:
    """The ``steps - 1`` frames before the last of ``history``; the first repeated where there are fewer."""
    before = history[:-1][max(len(history) - steps, 0) :]
    return (*[history[0]] * (steps - 1 - len(before)), *before)


def _add_margins(run: DryRun, contract: RobotContract, times: np.ndarray, positions: np.ndarray) -> None:
    """Divided differences of the commands as fractions of the limits: the core's promises, checked from outside."""
    low, high = contract.array("position").T
    outside = float(np.max(np.maximum(low - positions, positions - high)))
    run.worst["position"] = max(run.worst.get("position", -np.inf), outside)
    values = positions
    for order, name in enumerate(("velocity", "acceleration", "jerk"), start=1):
        if len(times) <= order:
            return
        values = order * np.diff(values, axis=0) / (times[order:] - times[:-order])[:, None]
        fraction = float((np.abs(values) / contract.array(name)).max())
        run.worst[name] = max(run.worst.get(name, 0.0), fraction)
