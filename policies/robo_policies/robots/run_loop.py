"""The control loop between a policy and an arm without ROS: what the bridge's node does, around the same safety core.

One thread ticks at the contract's control rate. The arm, the policy, the keys and the disk have threads of their own,
and nothing here waits for any of them.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import HardwareError
from robo_hw.observation.observation_buffer import IMAGES, STATE, NamedVector, ObservationBuffer
from robo_hw.observation.states import State
from robo_hw.safety.clock import Clock
from robo_hw.safety.safety_core import SafetyCore
from robo_hw.safety.timing import LoopTiming, Quantiles
from robo_hw.transport import PolicyClient
from robo_hw.transport.sender import ObservationSender
from robo_hw.transport.served import ProgressEstimate
from robo_policies.robots.arm import Arm
from robo_policies.robots.arm_threads import ArmThreads, Received
from robo_policies.robots.recording import RunEpisode

SHOWN = ("state", "fault", "stop", "rejected", "limited", "slowed", "degraded", "stream", "dropped", "warning")
INTERVENTIONS = ("fault", "stop", "rejected", "dropped", "limited", "slowed", "degraded")
VECTOR_AGE = 0.3
"""Seconds that a further input of the arm may be old."""
LONGEST_GAP = 0.5
"""Seconds without a whole frame after which a recording ends."""


class RunLoop:
    """Everything that happens in one tick; ``run`` ticks until it is asked to end.

    Args:
        arm: connected, with its threads started.
        client: of the policy server, connected or looking for it.
        begin_episode: makes what a run is recorded into, or returns None.
        say: shows one line.
        task: the instruction.
        estop_file: path -> pressed while it exists; None: none.
    """

    def __init__(
        self,
        contract: RobotContract,
        core: SafetyCore,
        clock: Clock,
        arm: Arm,
        threads: ArmThreads,
        client: PolicyClient,
        begin_episode: Callable[[], RunEpisode | None] = lambda: None,
        say: Callable[[str], None] = print,
        task: str = "",
        estop_pressed: Callable[[], str] = lambda: "",
        stop_when_stuck: bool = False,
        start_poses: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self.contract, self.core, self.clock = contract, core, clock
        self._arm, self._threads, self._client, self._say = arm, threads, client, say
        self._begin, self._task, self._estop_pressed = begin_episode, task, estop_pressed
        self._stop_when_stuck, self._start_poses = stop_when_stuck, start_poses
        self._vectors = [NamedVector(key, "") for key in arm.vector_names]
        self._buffer = ObservationBuffer(contract, self._vectors, VECTOR_AGE)
        self._sender = ObservationSender(core, client, self._buffer, self._vectors, progress=True)
        self._state_names = dict(zip(contract.joint_names, contract.state_names, strict=True))
        self.period = 1.0 / contract.rates.control
        self.timing, self.latency = LoopTiming(self.period), Quantiles()
        self._asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.wake = threading.Event()
        self._ending = ""
        self._reported = sum(core.log.counts.values())
        self._shown: dict[str, str] = {}
        self._missing: tuple[str, ...] = ()
        self._command: np.ndarray | None = None
        self._observed: float | None = None
        self._stage, self._simulated_success = -1, False
        self.progress: ProgressEstimate | None = None
        self._progress_text = ""
        self.episode: RunEpisode | None = None
        self._episode_at = self._frame_due = self._frame_at = -np.inf
        self._outcome: tuple[bool, bool | None] | None = None
        self._was_armed = False
        self._refused = ""
        self._ready = False
        self.outcomes: deque[str] = deque(maxlen=1000)
        self.episodes = self.successes = 0

    # What people ask, from any thread -------------------------------------------------------------------------------

    def press(self, key: str) -> None:
        """A key of the terminal: an emergency stop at once, anything else in the next tick."""
        if key in (" ", "e"):
            self.estop("emergency stop by key")
        else:
            self._asked.put(key)

    def estop(self, reason: str) -> None:
        """Latch a fault now."""
        self.core.estop(reason)
        self.wake.set()

    def end(self, reason: str) -> None:
        """Brake, disarm, and let ``run`` return."""
        self._ending = self._ending or reason
        self.wake.set()

    # The loop -------------------------------------------------------------------------------------------------------

    def run(self) -> str:
        """Tick until it is asked to end and the arm rests; returns why it ended."""
        due = self.clock.now()
        rests_since: float | None = None
        while True:
            self.tick()
            if self._threads.lost:
                self._finish_episode(self._threads.lost)
                return self._threads.lost
            if self._ending:
                if self.core.state in (State.HOLDING, State.RUNNING):
                    self.core.disarm()
                if self.core.state in (State.DISARMED, State.FAULT):
                    now = self.clock.now()
                    rests_since = now if rests_since is None else rests_since
                    # A little longer, so that the last command is delivered.
                    if now - rests_since > 0.1:
                        self._finish_episode(self._ending)
                        return self._ending
            due += self.period
            now = self.clock.now()
            if now > due + 4 * self.period:
                due = now  # ticks that were missed are not made up for
            elif self.wake.wait(max(due - now, 0.0)):
                self.wake.clear()

    def tick(self) -> None:
        """One control period."""
        now = self.clock.now()
        self.timing.tick(now)
        for received in self._threads.take():
            self._take(received)
        pressed = self._estop_pressed()
        if pressed and self.core.fault is None:
            self.core.estop(pressed)
        while not self._asked.empty():
            self._do(self._asked.get())
        update = self._client.poll()
        if update.restarted:
            self.core.new_epoch("the policy server restarted")
        elif update.chunk is not None and not self._ending and self.core.submit(update.chunk).accepted:
            self._observed = update.chunk.observed_at
        command = self.core.tick()
        if command is not None:
            self._command = command.positions
            self._threads.send(command.positions)
            if self._observed is not None:
                self.latency.add(self.clock.now() - self._observed)
        self._observed = None
        if update.progress is not None:
            self._follow(update.progress)
        if not self._ending:
            self._sender.send(now)
        self._record(now)
        self._tell()
        if not self._ready and not (self._sender.problems() or self._buffer.missing(self._sender.needs(), now)):
            self._ready = True
            self._say("ready: everything that the policy reads is there; a arms")

    # What the arm tells ---------------------------------------------------------------------------------------------

    def _take(self, received: Received) -> None:
        reading = received.reading
        names = [self._state_names[name] for name in reading.names]
        # A driver without a clock: what took longer to read than joint states may be old is old on arrival.
        timely = received.at - received.began <= self.contract.deadlines.joint_states
        if names and timely and self.core.observe(names, reading.positions, publisher=self._arm.name):
            measured = self.core.pose()[0]
            if np.isfinite(measured).all():
                self._buffer.joints(self.contract.joint_names, measured, received.at, received.began)
        for name, digest in received.digests.items():
            frame = reading.images[name]
            if self.core.observe_camera(name, digest, frame.stamp):
                self._buffer.image(name, frame.rgb, received.at, frame.stamp)
        for key, (parts, values) in reading.arrays.items():
            self._buffer.vector(key, parts, np.asarray(values, np.float32), received.at, None)
        self._stage = reading.stage
        if reading.success and self.episode is not None and not self._simulated_success:
            self._simulated_success = True
            self._say("the simulated task is done")

    # What people ask ------------------------------------------------------------------------------------------------

    def _do(self, key: str) -> None:
        from robo_policies.robots.keys import KEYS

        try:
            if key in ("a", "h"):
                self._arm_now(hold_only=key == "h")
            elif key == "d":
                self._person("disarmed by hand")
                self.core.disarm()
            elif key == "r":
                self._reset()
            elif key in ("s", "f", "x"):
                self._mark_outcome(key)
            elif key == "q":
                self.end("asked to quit")
            elif key == "?":
                for name, meaning in KEYS.items():
                    self._say(f"  {'space' if name == ' ' else name}   {meaning}")
        except HardwareError as error:
            self._refused = str(error)
            self._say(f"refused: {error}")

    def _arm_now(self, hold_only: bool) -> None:
        pressed = self._estop_pressed()
        if pressed:
            raise HardwareError(f"the arm cannot be armed: {pressed}")
        if self.episode is not None and self.core.state is State.DISARMED:
            self._finish_episode("armed again")
        now = self.clock.now()
        missing = self._sender.problems() or self._buffer.missing(self._sender.needs(), now)
        self._client.start_episode(self._task)
        poses = self._start_poses or self._sender.start_poses()
        self.core.arm(missing=missing, hold_only=hold_only, start_poses=poses)
        self.progress, self._simulated_success, self._outcome = None, False, None
        if hold_only:
            self._say("holding only; disarm, then arm with a, for a motion")
            return
        self._say("armed: the policy's next chunk starts the motion")
        self.episode = self._begin()
        self._episode_at = self._frame_due = self._frame_at = now
        self.episodes += 1

    def _reset(self) -> None:
        pressed = self._estop_pressed()
        if pressed:
            raise HardwareError(pressed)
        self.core.reset_fault()
        self._buffer.forget()
        self._say("reset; disarmed")

    def _mark_outcome(self, key: str) -> None:
        if self.core.state in (State.HOLDING, State.RUNNING):
            self.core.disarm()
        elif self.episode is None:
            raise HardwareError("there is no episode to mark: arm first")
        self._outcome = (key != "x", {"s": True, "f": False}.get(key))
        self.successes += key == "s"

    def _person(self, what: str) -> None:
        if self.episode is not None:
            self.episode.intervene(self.clock.now() - self._episode_at, "person", what)

    def _follow(self, estimate: ProgressEstimate) -> None:
        """The reward model spoke: advisory, unless it was asked to stop the arm where nothing gets on."""
        self.progress = estimate
        if estimate.message != self._progress_text:
            self._progress_text = estimate.message
            if estimate.message:
                self._say(f"progress: {estimate.message}")
                self._person(f"progress: {estimate.message}")
        if self._stop_when_stuck and estimate.alarm and self.core.state is State.RUNNING:
            self._say("disarmed, as on_progress=stop asks")
            self.core.disarm()

    # What is recorded -----------------------------------------------------------------------------------------------

    def _record(self, now: float) -> None:
        armed = self.core.state not in (State.DISARMED, State.FAULT)
        if self.episode is not None and self._was_armed and not armed and self._outcome is None:
            self._say("the episode is over: s success, f failure, x discard; the next arm keeps it without an outcome")
        self._was_armed = armed
        if self.episode is not None and self._outcome is not None and not armed:
            self._finish_episode("")
        if self.episode is None or not armed or now < self._frame_due or self._command is None:
            return
        period = 1.0 / self.contract.rates.actions
        self._frame_due = max(self._frame_due + period, now - period)
        needs: dict[str, tuple[int, ...]] = {STATE: (len(self.contract.joints),)}
        needs |= {f"{IMAGES}{c.name}": (c.height, c.width, 3) for c in self.contract.cameras}
        names = self._buffer.vector_names
        needs |= {vector.key: (len(names[vector.key]),) for vector in self._vectors if vector.key in names}
        seen = self._buffer.snapshot(needs, now, age=LONGEST_GAP)
        if seen is None:
            if now - self._frame_at > LONGEST_GAP and self.episode.frames:
                self._say("recording ends here: nothing whole has been seen for half a second")
                self._frame_due = np.inf
            return
        self._frame_at = now
        frame = {f"{IMAGES}{name}": image for name, image in seen.images.items()} | dict(seen.arrays)
        frame[STATE] = np.asarray(seen.positions, np.float32)
        frame["action"] = np.asarray(self._command, np.float32)
        self.episode.add(frame, now - self._episode_at, self._stage)

    def _finish_episode(self, reason: str) -> None:
        if self.episode is None:
            return
        keep, success = self._outcome if self._outcome is not None else (True, self._simulated_success or None)
        if self.core.fault is not None:
            reason = self.core.fault.message
        line = self.episode.end(keep, success, reason)
        self.episode, self._outcome = None, None
        self.outcomes.append(line)
        self._say(line)

    # What it reports --------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Show new events of the core and new problems of the driver; keep the core's in the recording."""
        total = sum(self.core.log.counts.values())
        if total != self._reported:
            for event in list(self.core.log)[-min(total - self._reported, len(self.core.log)) :]:
                if event.kind in SHOWN and event.message != self._refused:
                    self._say(f"{event.kind}: {event.message}")
                if self.episode is not None and event.kind in INTERVENTIONS:
                    details = {"joint": event.joint, "value": event.value, "limit": event.limit}
                    self.episode.intervene(event.time - self._episode_at, event.kind, event.message, **details)
            self._reported = total
        problems = self._threads.problems()
        for part, line in problems.items():
            if self._shown.get(part) is None:
                self._say(f"{part}: {line}" if not line.startswith(part) else line)
        self._shown = problems

    def metrics(self) -> dict[str, float]:
        """Flat metrics for ``metrics.json``; times in seconds."""
        p50, p99 = self.timing.errors.quantiles(0.5, 0.99)
        latency50, latency99 = self.latency.quantiles(0.5, 0.99)
        threads, counts = self._threads, self.core.log.counts
        reads, writes = list(threads.read_seconds) or [0.0], list(threads.write_seconds) or [0.0]
        return {
            "episodes": self.episodes,
            "successes": self.successes,
            "ticks": self.timing.ticks,
            "ticks_late": self.timing.late,
            "period_error_p50": p50,
            "period_error_p99": p99,
            "observation_to_command_p50": latency50,
            "observation_to_command_p99": latency99,
            "arm_reads": threads.reads,
            "arm_writes": threads.writes,
            "arm_failures": threads.failures,
            "arm_read_p50": float(np.quantile(reads, 0.5)),
            "arm_read_p99": float(np.quantile(reads, 0.99)),
            "arm_write_p99": float(np.quantile(writes, 0.99)),
            **{f"events_{kind}": counts[kind] for kind in INTERVENTIONS},
        }
