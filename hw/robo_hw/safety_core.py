"""The safety core: between any policy and the arm, and the only thing that commands it.

    core = SafetyCore(RobotContract.load("so101.yaml"), SteadyClock())
    core.observe(names, positions, stamp=...)      # every joint state
    core.observe_camera("front", digest, stamp=...)
    core.arm()
    core.submit(ActionChunk(...))                  # every chunk
    command = core.tick()                          # at the control rate

It is software and not safety-rated: a hardware emergency stop is required. ``docs/safety_core.md`` says what it
guarantees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from robo_hw.arming import pose_reasons
from robo_hw.chunk import ActionChunk, SubmitResult, check_form, check_header, dropped
from robo_hw.clock import Clock
from robo_hw.contract import RobotContract
from robo_hw.errors import ArmRefusedError
from robo_hw.events import EventLog
from robo_hw.motion import Motion
from robo_hw.states import Command, Fault, State, Status, Stop
from robo_hw.watch import CameraWatch, JointOrder, StreamWatch

_MOVING = 0.02
"""Share of a joint's velocity limit above which a camera is expected to see the arm move."""


class SafetyCore:
    """The state machine, its watchdogs and the motion; one thread calls it, ``estop`` may be called from any.

    ``mode``: ``latest``, ``temporal_ensemble`` or ``real_time``; ``ensemble_decay``: m of the ensemble's exp(-m i).
    """

    def __init__(
        self, contract: RobotContract, clock: Clock, mode: str = "latest", ensemble_decay: float = 0.01
    ) -> None:
        self.contract = contract
        self.log = EventLog()
        self.state = State.DISARMED
        self.fault: Fault | None = None
        self.epoch = 1
        """Goes up whenever the motion is interrupted or the policy changes; chunks of an earlier one are dropped."""
        self.last_stop: Stop | None = None
        self._clock = clock
        self._motion = Motion(contract, mode, ensemble_decay)
        self._low, self._high = contract.array("position").T
        self._velocity = contract.array("velocity")
        self._following = contract.array("following_error")
        self._jump = contract.array("state_jump")
        tolerance = contract.deadlines.joint_states / 2
        self._joints = StreamWatch("joint states", tolerance)
        self._cameras = {c.name: (c, CameraWatch(f"camera {c.name}", c.stop_after / 2)) for c in contract.cameras}
        self._measured: np.ndarray | None = None
        self._measured_velocity: np.ndarray | None = None
        self._measured_at = -np.inf
        self._order = JointOrder(contract.joint_names)
        self._moving_share = 0.0
        self._commanded: np.ndarray | None = None
        self._estop: str | None = None
        self._robot_stop: str | None = None
        self._last_tick: float | None = None
        self._last_fault = -np.inf
        self._after_stop = State.HOLDING
        self._sequence = -1
        self._epoch_since = clock.now()
        self._last_chunk = -np.inf
        self._rejections = 0
        self._degraded: tuple[str, ...] = ()
        self._slowed = False
        self._complaints: dict[str, str] = {}

    # What people do -------------------------------------------------------------------------------------------------

    def arm(
        self,
        missing: Iterable[str] = (),
        hold_only: bool = False,
        start_poses: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Begin to hold the measured position.

        ``missing``: what the policy needs and does not have, one text each; refused unless ``hold_only`` says that
        nothing but a hold is wanted. ``start_poses``: joint -> (low, high) of the demonstrations' first states.

        Raises:
            ArmRefusedError: a fault is latched, joint states are missing or old, or a joint is outside its limits or
            moving; something is missing.
        """
        now = self._clock.now()
        self._take_estop(now)
        reasons = [] if hold_only else list(missing)
        if self.fault is not None:
            reasons.append(f"fault {self.fault.cause!r} is latched ({self.fault.message}); mend it and reset it")
        elif self.state is not State.DISARMED:
            reasons.append(f"already {self.state.value}")
        age = self._joints.age(now)
        if self._measured is None:
            reasons.append("no joint states have come; start the robot's driver")
        elif age > self.contract.deadlines.joint_states:
            reasons.append(f"joint states are {age:.3f} s old; the limit is {self.contract.deadlines.joint_states:g} s")
        else:
            reasons += pose_reasons(self.contract, self._measured, self._measured_velocity)
        if reasons:
            message = "the arm may not be armed: " + "; ".join(reasons)
            self.log.add(now, "rejected", message)
            raise ArmRefusedError(message)
        self._motion.hold(np.clip(np.asarray(self._measured), self._low, self._high))
        self._commanded = self._motion.state()[0]
        self._last_tick = now
        for _, watch in self._cameras.values():
            watch.still_while_moving = 0.0
        self._next_epoch(now)
        self._enter(now, State.HOLDING, "armed")

    def disarm(self) -> None:
        """Brake if moving, then command nothing. A latched fault stays latched, and its hold stays."""
        now = self._clock.now()
        self._take_estop(now)
        if self.state is State.RUNNING:
            self._stop(now, "disarm", "disarmed by hand")
        if self.state is State.STOPPING:
            self._after_stop = State.DISARMED
        elif self.state is State.HOLDING:
            self._next_epoch(now)
            self._enter(now, State.DISARMED, "disarmed by hand")

    def reset_fault(self) -> None:
        """Clear a latched fault by hand: the core is then disarmed, and knows nothing of the streams before.

        Raises:
            ArmRefusedError: there is no fault, the arm still moves, or the cool-down has not passed.
        """
        now = self._clock.now()
        self._take_estop(now)
        wait = self._last_fault + self.contract.safety.cool_down - now
        if self.fault is None:
            raise ArmRefusedError("there is no fault to reset")
        if self.state is not State.FAULT:
            raise ArmRefusedError("the arm is still braking; reset the fault when it rests")
        if wait > 0:
            raise ArmRefusedError(f"the fault may be reset in {wait:.1f} s, after the cool-down")
        self.log.add(now, "fault", f"reset by hand: {self.fault.message}")
        self.fault = None
        self._commanded = None
        self._rejections = 0
        self._joints.forget()
        for _, watch in self._cameras.values():
            watch.forget()
        self._next_epoch(now)
        self._enter(now, State.DISARMED, "fault reset")

    def estop(self, reason: str = "emergency stop") -> None:
        """Latch a fault and brake, from any thread and in any state; it cannot be lost between two calls."""
        # One assignment: atomic. Every other call looks at it before it does anything.
        self._estop = reason

    def robot_stop(self, reason: str = "the robot stopped by itself") -> None:
        """The robot's own stop: command nothing from now on, disarmed; a latched fault stays. From any thread."""
        self._robot_stop = reason

    # What the robot tells -------------------------------------------------------------------------------------------

    def observe(
        self,
        joints: Sequence[str],
        positions: Any,
        velocities: Any = None,
        stamp: float | None = None,
        publisher: str = "",
    ) -> bool:
        """Take a joint state. Names may come in any order and with others among them; none of ours may be missing.

        ``positions`` (N,), ``velocities`` (N,) or None; ``stamp``: seconds by the sender's clock, None if it has none.
        Returns whether it was fresh and sound. While armed, a missing joint, a number that is not finite, a jump or
        a joint too far from its command is a fault.
        """
        now = self._clock.now()
        self._take_estop(now)
        # In fault the arm rests already: what is wrong then must not put the reset off for ever.
        armed = self.state not in (State.DISARMED, State.FAULT)
        measured, joint, message = self._order.take(joints, positions)
        if measured is None:
            self._bad_state(now, armed, message, joint)
            return False
        speed = None if velocities is None or not len(velocities) else self._order.take(joints, velocities)[0]
        problem = self._joints.sample(now, stamp)
        if problem is not None and self.state is State.DISARMED and "repeated" not in problem:
            self._joints.forget()  # nothing is at stake: take the sender's new clock
            problem = self._joints.sample(now, stamp)
        self._complain(now, "joint states", problem)
        if problem is not None:
            return False
        if armed and self._measured is not None:
            room = self._jump + self._velocity * max(now - self._measured_at, 0.0)
            self._compare(now, "joint_states", "jumped", np.abs(measured - self._measured), room)
            if self._commanded is not None:
                self._compare(now, "following", "lags", np.abs(measured - self._commanded), self._following)
        self._measured, self._measured_velocity, self._measured_at = measured, speed, now
        return True

    @property
    def measured(self) -> np.ndarray | None:
        """The newest joint positions (D,) that counted, in the contract's order; None before the first."""
        return None if self._measured is None else self._measured.copy()

    def observe_camera(self, name: str, digest: int, stamp: float | None = None) -> bool:
        """Take note of a picture (``frame_digest`` of it, and its stamp); returns whether it counts as fresh."""
        now = self._clock.now()
        self._take_estop(now)
        if name not in self._cameras:
            self._complain(now, f"camera {name}", f"camera {name!r} is not in the contract")
            return False
        watch = self._cameras[name][1]
        problem = watch.picture(now, stamp, digest)
        if problem is not None and self.state is State.DISARMED and "repeated" not in problem:
            watch.forget()
            problem = watch.picture(now, stamp, digest)
        self._complain(now, f"camera {name}", problem)
        return problem is None

    # What the policy does -------------------------------------------------------------------------------------------

    def new_epoch(self, reason: str = "the policy restarted") -> int:
        """Forget the policy's past: brake if moving, drop every chunk made before. Returns the epoch to use from now
        on.

        It never clears a fault.
        """
        now = self._clock.now()
        self._take_estop(now)
        if self.state is State.RUNNING:
            self._stop(now, "policy", reason)
        else:
            self._next_epoch(now)
        return self.epoch

    def committed(self, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """For policies that inpaint (real-time chunking): the motion at the next chunk's actions (H, D), and how
        much of it to keep, (H,) in [0, 1]; observed now."""
        return self._motion.committed(horizon)

    def submit(self, chunk: ActionChunk) -> SubmitResult:
        """Take a chunk whole, or not at all.

        A malformed chunk (NaN, Inf, shape, joint order, a wild step) brakes the arm and names the joint; one that is
        late, out of order or of an earlier epoch is dropped, and the motion goes on to its end.
        """
        now = self._clock.now()
        self._take_estop(now)
        result = self._judge(now, chunk)
        if result.accepted:
            self._sequence, self._last_chunk, self._rejections = int(chunk.sequence), now, 0
            short = self._motion.shortened
            if short is not None:
                self.log.add(
                    now,
                    "limited",
                    f"{short.joint}: position {short.value:.4g} asked, limit {short.limit:.4g}; the step was shortened",
                    short.joint,
                    short.value,
                    short.limit,
                )
            if self.state is State.HOLDING:
                self._enter(now, State.RUNNING, "first chunk accepted")
                for _, watch in self._cameras.values():
                    watch.still_while_moving = 0.0
            return result
        kind = "rejected" if result.malformed else "dropped"
        self.log.add(now, kind, result.message, result.joint, result.value, result.limit)
        if result.malformed:
            self._rejections += 1
            if self.state is State.RUNNING:
                self._stop(now, "chunk", result.message)
            if self._rejections >= self.contract.safety.rejections_before_fault and self.state is not State.DISARMED:
                self._raise_fault(
                    now,
                    "policy",
                    f"{self._rejections} malformed chunks in a row; the last: {result.message}",
                    result.joint,
                )
        return result

    # What the control loop does -------------------------------------------------------------------------------------

    def tick(self) -> Command | None:
        """Advance to now and return the command to send, or None while disarmed (then nothing may be sent)."""
        now = self._clock.now()
        elapsed = 0.0 if self._last_tick is None else now - self._last_tick
        self._take_estop(now)
        if elapsed < 0.0:
            self._raise_fault(now, "clock", f"the steady clock went back by {-elapsed:.3f} s")
            elapsed = 0.0
        self._watch(now, elapsed)
        self._last_tick = now
        braking = self.state is State.STOPPING
        if self.state is State.RUNNING:
            self._run(now, elapsed)
        elif self.state is State.STOPPING:
            self._brake(now, elapsed)
        motion = self._motion
        motion.note(now)
        # The last of a stop is sent whatever it leads to, so that the controller is left at rest.
        if not braking and (self.state is State.DISARMED or self._commanded is None):
            return None
        position, velocity, acceleration = motion.state()
        self._commanded = None if self.state is State.DISARMED else position
        self._moving_share = float(np.max(np.abs(velocity) / self._velocity)) if motion.moving else 0.0
        return Command(now, position, velocity, acceleration, self.state, motion.pace.stop_time)

    def braking(self, step: float) -> list[tuple[float, np.ndarray, np.ndarray]]:
        """How the arm comes to rest if it brakes from the last command: (seconds, positions, velocities) each ``step``.

        A controller that has it stops by itself, inside the limits, when no command follows. Empty at rest.
        """
        return self._motion.braking(step)

    def status(self) -> Status:
        """A snapshot for diagnostics."""
        pace = self._motion.pace
        return Status(
            self._clock.now(),
            self.state,
            self.fault,
            self.epoch,
            self._motion.consumed,
            self._degraded,
            pace.rate / self.contract.rates.actions,
            pace.stop_time,
            dict(self.log.counts),
        )

    # How it works ---------------------------------------------------------------------------------------------------

    def _judge(self, now: float, chunk: ActionChunk) -> SubmitResult:
        if self.state not in (State.HOLDING, State.RUNNING):
            return dropped(f"the core is {self.state.value}; chunks are taken while it holds or runs")
        stale = check_header(chunk, now, self.epoch, self._sequence, self._epoch_since, self.contract.deadlines.chunk)
        if stale is not None:
            return stale
        actions, fault = check_form(chunk, self.contract)
        if fault is not None or actions is None:
            return fault or dropped("empty")
        for camera, watch in self._cameras.values():
            # A camera that froze has to show another picture first; at rest it could not be told from a still scene.
            overdue = watch.overdue(now, camera.stop_after, camera.frozen_after)
            if overdue is not None:
                return dropped(overdue)
        return self._motion.splice(actions, self._motion.consumed_at(chunk.observed_at))

    def _watch(self, now: float, elapsed: float) -> None:
        if self.state in (State.DISARMED, State.FAULT):
            return
        deadlines = self.contract.deadlines
        age = self._joints.age(now)
        if age > deadlines.joint_states:
            message = f"joint states are {age:.3f} s old, the limit is {deadlines.joint_states:g} s"
            self._raise_fault(now, "joint_states", message, None, age, deadlines.joint_states)
        if self.state is not State.RUNNING:
            self._degraded = ()
            return
        if elapsed > deadlines.tick:
            self._stop(now, "tick", f"the control loop was {elapsed:.3f} s late, the limit is {deadlines.tick:g} s")
        elif now - self._last_chunk > deadlines.actions:
            silent = now - self._last_chunk
            self._stop(now, "actions", f"no chunk for {silent:.3f} s, the limit is {deadlines.actions:g} s")
        else:
            self._watch_cameras(now, elapsed)

    def _watch_cameras(self, now: float, elapsed: float) -> None:
        degraded = []
        for camera, watch in self._cameras.values():
            age = watch.age(now)
            if self._moving_share > _MOVING:
                watch.moved(elapsed)
            still = watch.still_while_moving
            overdue = watch.overdue(now, camera.stop_after, camera.frozen_after)
            if overdue is not None:
                self._stop(now, "camera", overdue)
                return
            if age > camera.degraded_after or still > camera.frozen_after / 2:
                degraded.append(camera.name)
        if tuple(degraded) != self._degraded:
            self._degraded = tuple(degraded)
            text = f"cameras late: {', '.join(degraded)}; slower" if degraded else "all cameras are back"
            self.log.add(now, "degraded", text)

    def _run(self, now: float, elapsed: float) -> None:
        pace = self._motion.pace
        wish = self.contract.rates.actions * (self.contract.safety.degraded_rate if self._degraded else 1.0)
        pace.run(elapsed, wish)
        if self._motion.finished:
            bound, since = pace.stop_time, self._last_tick if self._last_tick is not None else now
            self.last_stop = Stop("actions", "the path is used up", since, bound, now)
            self.log.add(now, "stop", "the path is used up: no chunk came in time; holding its last action")
            self._motion.settle()
            self._next_epoch(now)
            self._enter(now, State.HOLDING, "out of actions")
        elif pace.held_back and pace.rate < 0.95 * wish:
            if not self._slowed:
                self._slowed = True
                self._log_slowing(now)
        elif pace.rate > 0.98 * wish:
            self._slowed = False

    def _log_slowing(self, now: float) -> None:
        pace = self._motion.pace
        found = pace.path.tightest(int(pace.x), pace.last_piece + 1)
        if found is None:
            return
        quantity, index, value = found
        joint = self.contract.joints[index]
        limit = float(getattr(joint, quantity))
        share = (
            "" if quantity == "velocity" else f" of which {1 - self.contract.safety.reserve:.0%} may follow the path"
        )
        message = f"{joint.name}: {quantity} {value:.4g} at full speed, limit {limit:.4g}{share}; slower along the path"
        self.log.add(now, "slowed", message, joint.name, value, limit)

    def _brake(self, now: float, elapsed: float) -> None:
        pace = self._motion.pace
        pace.brake(elapsed)
        if not pace.resting:
            return
        self._motion.settle()
        if self.last_stop is not None:
            self.last_stop.rested = now
        if self.fault is not None:
            self._enter(now, State.FAULT, self.fault.message)
        else:
            self._enter(now, self._after_stop, "at rest")

    def _stop(self, now: float, cause: str, message: str) -> None:
        since = now if self._last_tick is None else self._last_tick
        bound = self._motion.pace.stop_time
        self.last_stop = Stop(cause, message, since, bound)
        self.log.add(
            now, "stop", f"{message}; at rest within {bound:.3f} s", None, bound, self.contract.safety.max_stop_time
        )
        self._after_stop = State.HOLDING
        self._next_epoch(now)
        self._enter(now, State.STOPPING, message)

    def _raise_fault(
        self,
        now: float,
        cause: str,
        message: str,
        joint: str | None = None,
        value: float | None = None,
        limit: float | None = None,
    ) -> None:
        self._last_fault = now
        if self.fault is None:
            self.fault = Fault(now, cause, message, joint, value, limit)
            self._complaints.clear()
            self.log.add(now, "fault", message, joint, value, limit)
        elif cause != self.fault.cause:
            self._complain(now, f"fault {cause}", f"after the first cause: {message}")
        if self.state is State.RUNNING:
            self._stop(now, cause, message)
        elif self.state in (State.HOLDING, State.DISARMED):
            self._next_epoch(now)
            self._enter(now, State.FAULT, message)

    def _take_estop(self, now: float) -> None:
        if self._estop is not None:
            reason, self._estop = self._estop, None
            self._raise_fault(now, "e_stop", reason)
        if self._robot_stop is not None:
            reason, self._robot_stop = self._robot_stop, None
            self._let_go(now, reason)

    def _let_go(self, now: float, reason: str) -> None:
        """Command nothing any more, without braking: the robot has stopped by itself."""
        self._commanded = None
        if self.state is State.DISARMED:
            return
        self._motion.settle()
        self._next_epoch(now)
        self._enter(now, State.FAULT if self.fault is not None else State.DISARMED, reason)

    def _compare(self, now: float, cause: str, verb: str, gap: np.ndarray, limit: np.ndarray) -> None:
        if (gap <= limit).all():
            return
        worst = int(np.argmax(gap / limit))
        joint, value, most = self.contract.joints[worst], float(gap[worst]), float(limit[worst])
        message = f"{joint.name} {verb} by {value:.4g} {joint.unit}, the limit is {most:.4g}"
        self._raise_fault(now, cause, message, joint.name, value, most)

    def _bad_state(self, now: float, armed: bool, message: str, joint: str | None) -> None:
        self._complain(now, "joint states", message)
        if armed:
            self._raise_fault(now, "joint_states", message, joint)

    def _complain(self, now: float, key: str, problem: str | None) -> None:
        # Once per spell: a stream at 1 kHz must not push everything else out of the log.
        if problem is None:
            self._complaints.pop(key, None)
        elif key not in self._complaints:
            self._complaints[key] = problem
            self.log.add(now, "stream", problem)

    def _next_epoch(self, now: float) -> None:
        self.epoch += 1
        self._epoch_since = now
        self._sequence = -1
        self._last_chunk = now

    def _enter(self, now: float, state: State, why: str) -> None:
        self.log.add(now, "state", f"{self.state.value} -> {state.value}: {why}")
        self.state = state
        self._slowed = False
        if state is State.DISARMED:
            self._commanded = None
