"""The safety core: between any policy and the arm, and the only thing that commands it.

    core = SafetyCore(RobotContract.load("so101.yaml"), SteadyClock())
    core.observe(names, positions, stamp=...)      # every joint state
    core.observe_camera("front", digest, stamp=...)
    core.arm()                                     # once several joint states agree
    core.submit(ActionChunk(...))                  # every chunk
    command = core.tick()                          # at the control rate

It is software and not safety-rated: a hardware emergency stop is required. ``docs/safety_core.md`` says what it
guarantees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import ArmRefusedError
from robo_hw.observation.cameras import Cameras
from robo_hw.observation.joint_states import JointStates
from robo_hw.observation.states import Command, Fault, State, Status, Stop
from robo_hw.safety.arming import arming_reasons, waiting_reason
from robo_hw.safety.chunk import ActionChunk, SubmitResult, check_form, check_header, dropped
from robo_hw.safety.clock import Clock
from robo_hw.safety.events import EventLog
from robo_hw.safety.fault_hold import FaultHold
from robo_hw.safety.motion import Motion

_MOVING = 0.02
"""Fraction of a joint's velocity limit above which a camera is expected to see the arm move."""
_PERIOD_ROUNDING = 1e-6
"""Fraction of a control period."""


class SafetyCore:
    """The state machine, its watchdogs and the motion; one thread calls it, but for ``estop`` and ``robot_stop``.

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
        self._travel = self._velocity / contract.rates.control
        self._joints = JointStates(contract)
        self._cameras = Cameras(contract)
        self._fault_hold = FaultHold(contract)
        self._armed_at: np.ndarray | None = None
        """The pose at ``arm`` until the first command is given, which no motion precedes."""
        self._hold_only = False
        self._hold_since = -np.inf
        self._moving_fraction = 0.0
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
        self._slowed = False

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

        Nothing is commanded before a joint state at most one control period old is there, which is still that pose.

        Raises:
            ArmRefusedError: lists every reason: a fault is latched; joint states are missing, old, contradict each
            other or their velocities, or come from more publishers than the contract allows; a joint is outside its
            limits or moves; a camera is missing; the pose is far from the demonstrations' (where that is refused).
        """
        now, stopped = self._clock.now(), self._robot_stop
        self._take_stops(now)
        reasons = [] if stopped is None else [f"{stopped}, just now; see why, then arm again"]
        if self.fault is not None:
            reasons.append(f"fault {self.fault.cause!r} is latched ({self.fault.message}); fix the cause, then reset")
        elif self.state is not State.DISARMED:
            reasons.append(f"already {self.state.value}")
        else:
            doubts, warnings = arming_reasons(self.contract, self._joints, now, start_poses)
            reasons += doubts
            if warnings:
                self.log.add(now, "warning", "far from where the demonstrations began: " + "; ".join(warnings))
        reasons += [] if hold_only else [*missing, *self._cameras.unusable(now)]
        if reasons:
            message = "the arm cannot be armed: " + "; ".join(reasons)
            self.log.add(now, "rejected", message)
            raise ArmRefusedError(message)
        self._joints.trust(now)
        self._armed_at, self._commanded, self._hold_only = self._joints.measured.copy(), None, hold_only
        self._motion.hold(np.clip(self._armed_at, self._low, self._high))
        self._last_tick = now
        self._cameras.begin()
        self._next_epoch(now)
        self._enter(now, State.HOLDING, "armed, to hold only" if hold_only else "armed")

    def disarm(self) -> None:
        """Brake if moving, then command nothing. A latched fault stays latched, and its hold stays."""
        now = self._clock.now()
        self._take_stops(now)
        if self.state is State.RUNNING:
            self._stop(now, "disarm", "disarmed by hand")
        self._end_hold(now, "disarmed by hand")

    def _end_hold(self, now: float, why: str) -> None:
        if self.state is State.STOPPING:
            self._after_stop = State.DISARMED
        elif self.state is State.HOLDING:
            self._next_epoch(now)
            self._enter(now, State.DISARMED, why)

    def reset_fault(self) -> None:
        """Clear a latched fault by hand: the core is then disarmed, and knows nothing of the streams before.

        Raises:
            ArmRefusedError: there is no fault, the arm still moves, or the cool-down has not passed.
        """
        now = self._clock.now()
        self._take_stops(now)
        wait = self._last_fault + self.contract.safety.cool_down - now
        if self.fault is None:
            raise ArmRefusedError("there is no fault to reset")
        if self.state is not State.FAULT:
            raise ArmRefusedError("the arm is still braking; reset the fault when it rests")
        if wait > 0:
            raise ArmRefusedError(f"the fault may be reset in {wait:.1f} s, after the cool-down")
        self.log.add(now, "fault", f"reset by hand: {self.fault.message}")
        self.fault = None
        self._rejections = 0
        self._joints.forget()
        self._cameras.forget()
        self._next_epoch(now)
        self._enter(now, State.DISARMED, "fault reset")

    def estop(self, reason: str = "emergency stop") -> None:
        """Latch a fault and brake, from any thread and in any state; it cannot be lost between two calls."""
        self._estop = reason  # atomic; every other call looks at it before it does anything

    def robot_stop(self, reason: str = "the robot stopped by itself") -> None:
        """The robot's own stop: command nothing from now on, disarmed; a latched fault stays. From any thread."""
        self._robot_stop = reason

    # What the robot tells -------------------------------------------------------------------------------------------

    def observe(
        self,
        joints: Sequence[str],
        positions: npt.ArrayLike,
        velocities: npt.ArrayLike | None = None,
        stamp: float | None = None,
        publisher: str = "",
    ) -> bool:
        """Take a joint state: all joints of ours, or a part of them, in any order and with others among them.

        ``joints``: names as joint-state messages have them (``state_name``); ``positions`` (N,), ``velocities`` (N,) or
        None; ``stamp``: seconds by the sender's clock, None if it has none; ``publisher``: any text that tells senders
        apart. Returns whether it was about this arm, fresh and sound. A message without joints of ours is neither a
        fault nor fresh. While armed, a joint that is missing from a message that had it before, a number that is not
        finite, a jump, a publisher that was not there at arming, or a joint too far from its command is a fault.
        """
        now = self._clock.now()
        self._take_stops(now)
        # In fault the arm rests already: what is wrong then must not put the reset off indefinitely.
        armed = self.state not in (State.DISARMED, State.FAULT)
        states, lenient = self._joints, self.state is State.DISARMED
        reading = states.take(now, joints, positions, velocities, stamp, publisher, armed, lenient)
        if reading.message:
            self.log.complain(now, "joint states", reading.message)
        if reading.broken and armed:
            self._raise_fault(now, "joint_states", reading.message, reading.joint, reading.value, reading.limit)
        if reading.broken or not reading.fresh:
            return False
        self.log.complain(now, "joint states", None)
        if armed:
            if self._commanded is not None:
                self._compare(now, "following", "lags", states.measured - self._commanded, self._following)
            elif self._armed_at is not None:
                self._compare(now, "joint_states", "moved", states.measured - self._armed_at, self._travel)
        return True

    def observe_camera(self, name: str, digest: int, stamp: float | None = None) -> bool:
        """Take note of an image (``frame_digest`` of it, and its stamp); returns whether it counts as fresh."""
        now = self._clock.now()
        self._take_stops(now)
        if name not in self._cameras:
            self.log.complain(now, f"camera {name}", f"camera {name!r} is not in the contract")
            return False
        problem = self._cameras.image(now, name, digest, stamp, lenient=self.state is State.DISARMED)
        self.log.complain(now, f"camera {name}", problem)
        return problem is None

    # What the policy does -------------------------------------------------------------------------------------------

    def new_epoch(self, reason: str = "the policy restarted") -> int:
        """The policy restarted: brake if moving, drop every chunk made before. Returns the epoch to use from now on.

        The arm is disarmed then, unless ``safety.rearm_after_restart`` is false. It never clears a fault.
        """
        now = self._clock.now()
        self._take_stops(now)
        if self.state is State.RUNNING:
            self._stop(now, "policy", reason)
        else:
            self._next_epoch(now)
        if self.contract.safety.rearm_after_restart:
            self._end_hold(now, f"{reason}; arm again")
        return self.epoch

    def committed(self, horizon: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """For policies that inpaint (real-time chunking): the motion at the next chunk's actions (H, D), and how
        much of it to keep, (H,) in [0, 1]; observed now."""
        return self._motion.committed(horizon)

    def submit(self, chunk: ActionChunk) -> SubmitResult:
        """Take a chunk whole, or not at all.

        A malformed chunk (NaN, Inf, shape, joint order, a wild step) brakes the arm and names the joint; one that is
        late, out of order or of an earlier epoch is dropped, and the motion goes on to its end.
        """
        now = self._clock.now()
        self._take_stops(now)
        result = self._check_chunk(now, chunk)
        if result.accepted:
            self._sequence, self._last_chunk, self._rejections = int(chunk.sequence), now, 0
            short = self._motion.shortened
            if short is not None:
                text = (
                    f"{short.joint}: position {short.value:.4g} asked, limit {short.limit:.4g}; the step was shortened"
                )
                self.log.add(now, "limited", text, short.joint, short.value, short.limit)
            if self.state is State.HOLDING:
                self._enter(now, State.RUNNING, "first chunk accepted")
                self._cameras.moves()
            return result
        kind = "rejected" if result.malformed else "dropped"
        self.log.add(now, kind, result.message, result.joint, result.value, result.limit)
        if result.malformed:
            self._rejections += 1
            if self.state is State.RUNNING:
                self._stop(now, "chunk", result.message)
            if self._rejections >= self.contract.safety.rejections_before_fault and self.state is not State.DISARMED:
                text = f"{self._rejections} malformed chunks in a row; the last: {result.message}"
                self._raise_fault(now, "policy", text, result.joint)
        return result

    # What the control loop does -------------------------------------------------------------------------------------

    def tick(self) -> Command | None:
        """Advance to now and return the command to send, or None while disarmed (then nothing may be sent)."""
        now = self._clock.now()
        elapsed = 0.0 if self._last_tick is None else now - self._last_tick
        self._take_stops(now)
        if elapsed < 0.0:
            self._raise_fault(now, "clock", f"the steady clock went back by {-elapsed:.3f} s")
            elapsed = 0.0
        self._watch(now, elapsed)
        self._last_tick = now
        braking, motion = self.state is State.STOPPING, self._motion
        waiting = self._armed_at is not None and (braking or not self._begin(now))
        if braking:
            self._brake(now, elapsed)
        elif self.state is State.RUNNING and not waiting:
            self._run(now, elapsed)
        motion.note(now)
        if self.state is State.FAULT:
            return self._in_fault(now, braking, waiting)
        # The last of a stop is sent whatever it leads to, so that the controller is left at rest.
        if waiting or (not braking and self.state is State.DISARMED):
            return None
        position, velocity, acceleration = motion.state()
        self._commanded = None if self.state is State.DISARMED else position
        self._moving_fraction = float(np.max(np.abs(velocity) / self._velocity)) if motion.moving else 0.0
        return Command(now, position, velocity, acceleration, self.state, motion.pace.stop_time)

    def _begin(self, now: float) -> bool:
        """After arming: whether the arm is known to be where the first command is, which no motion precedes."""
        here = np.clip(self._joints.measured, self._low, self._high)
        age = self._joints.age(now)
        if self.state is State.HOLDING and age <= self.contract.deadlines.joint_states:
            self._motion.hold(here)  # where it is now, not where it was
        gap = np.abs(self._motion.state()[0] - here) + self._velocity * age
        if (gap > self._travel * (1 + _PERIOD_ROUNDING)).any():
            self.log.complain(now, "first command", waiting_reason(self.contract, age, now - self._hold_since))
            return False
        self._armed_at = None
        return True

    def _in_fault(self, now: float, braked: bool, waiting: bool) -> Command | None:
        if braked:
            at = None if waiting else self._motion.state()[0]
            position = self._fault_hold.after_stop(at, self._joints.measured)
        else:
            position = self._fault_hold.position(now, self._joints)
        self._commanded = None
        still = np.zeros_like(self._low)
        return None if position is None else Command(now, position.copy(), still, still.copy(), self.state, 0.0)

    def braking(self, step: float) -> list[tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
        """How the arm comes to rest if it brakes from the last command: (seconds, positions, velocities) each ``step``.

        A controller that has it stops by itself, inside the limits, when no command follows. Empty at rest.
        """
        return self._motion.braking(step)

    def pose(self) -> tuple[npt.NDArray[np.float64], float]:
        """Measured positions (D,) in the contract's order, NaN where none came, and when the oldest was taken (s)."""
        return self._joints.measured.copy(), self._joints.oldest

    def status(self) -> Status:
        """A snapshot for diagnostics."""
        pace = self._motion.pace
        return Status(
            self._clock.now(),
            self.state,
            self.fault,
            self.epoch,
            self._motion.consumed,
            self._cameras.degraded if self.state is State.RUNNING else (),
            pace.rate / self.contract.rates.actions,
            pace.stop_time,
            dict(self.log.counts),
        )

    # How it works ---------------------------------------------------------------------------------------------------

    def _check_chunk(self, now: float, chunk: ActionChunk) -> SubmitResult:
        if self.state not in (State.HOLDING, State.RUNNING):
            return dropped(f"the core is {self.state.value}; chunks are taken while it holds or runs")
        stale = check_header(chunk, now, self.epoch, self._sequence, self._epoch_since, self.contract.deadlines.chunk)
        if stale is not None:
            return stale
        if self._hold_only:
            return dropped("the arm was armed to hold only; disarm, and arm it to move")
        actions, fault = check_form(chunk, self.contract, self._motion.state()[0])
        if fault is not None or actions is None:
            return fault or dropped("empty")
        for blind in (*self._cameras.unusable(now), *self._cameras.skewed(chunk.observed_at)):
            return dropped(blind)
        return self._motion.splice(actions, self._motion.consumed_at(chunk.observed_at))

    def _watch(self, now: float, elapsed: float) -> None:
        if self.state in (State.DISARMED, State.FAULT):
            return
        deadlines = self.contract.deadlines
        if (age := self._joints.age(now)) > deadlines.joint_states:
            text = f"{self._joints.old_text(now)}, the limit is {deadlines.joint_states:g} s"
            self._raise_fault(now, "joint_states", text, None, age, deadlines.joint_states)
        if self.state is State.HOLDING and now - self._hold_since > deadlines.idle:
            self._end_hold(now, f"held for {deadlines.idle:g} s (deadlines.idle) without a chunk; arm again")
        if self.state is not State.RUNNING:
            return
        if elapsed > deadlines.tick:
            self._stop(now, "tick", f"the control loop was {elapsed:.3f} s late, the limit is {deadlines.tick:g} s")
        elif now - self._last_chunk > deadlines.actions:
            silent = now - self._last_chunk
            self._stop(now, "actions", f"no chunk for {silent:.3f} s, the limit is {deadlines.actions:g} s")
        else:
            overdue, news = self._cameras.watch(now, elapsed if self._moving_fraction > _MOVING else 0.0)
            if overdue is not None:
                self._stop(now, "camera", overdue)
            elif news is not None:
                self.log.add(now, "degraded", news)

    def _run(self, now: float, elapsed: float) -> None:
        pace = self._motion.pace
        wish = self.contract.rates.actions * (self.contract.safety.degraded_rate if self._cameras.degraded else 1.0)
        pace.run(elapsed, wish)
        if self._motion.finished:
            since = now if self._last_tick is None else self._last_tick
            self.last_stop = Stop("actions", "ran out of actions", since, pace.stop_time, now)
            self.log.add(now, "stop", "ran out of actions: no chunk came in time; holding its last action")
            self._motion.settle()
            self._next_epoch(now)
            self._enter(now, State.HOLDING, "out of actions")
        elif pace.held_back and pace.rate < 0.95 * wish:
            if not self._slowed:
                self._slowed = True
                found = self._motion.slowing()
                if found is not None:
                    self.log.add(now, "slowed", *found)
        elif pace.rate > 0.98 * wish:
            self._slowed = False

    def _brake(self, now: float, elapsed: float) -> None:
        pace = self._motion.pace
        pace.brake(elapsed)
        if not pace.resting:
            return
        self._motion.settle()
        if self.last_stop is not None:
            self.last_stop.rested = now
        state, why = (self._after_stop, "at rest") if self.fault is None else (State.FAULT, self.fault.message)
        self._enter(now, state, why)

    def _stop(self, now: float, cause: str, message: str) -> None:
        since = now if self._last_tick is None else self._last_tick
        bound, most = self._motion.pace.stop_time, self.contract.safety.max_stop_time
        self.last_stop = Stop(cause, message, since, bound)
        self.log.add(now, "stop", f"{message}; at rest within {bound:.3f} s", None, bound, most)
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
            self.log.renew_complaints()
            self.log.add(now, "fault", message, joint, value, limit)
        elif cause != self.fault.cause:
            self.log.complain(now, f"fault {cause}", f"after the first cause: {message}")
        if self.state is State.RUNNING:
            self._stop(now, cause, message)
        elif self.state in (State.HOLDING, State.DISARMED):
            # Nothing has moved since the arm was armed, if it was: the pose that is held may be the wrong one.
            (self._fault_hold.begin if self.state is State.HOLDING else self._fault_hold.let_go)()
            self._next_epoch(now)
            self._enter(now, State.FAULT, message)

    def _take_stops(self, now: float) -> None:
        if self._estop is not None:
            reason, self._estop = self._estop, None
            self._raise_fault(now, "e_stop", reason)
        if self._robot_stop is not None:
            reason, self._robot_stop = self._robot_stop, None
            self._let_go(now, reason)

    def _let_go(self, now: float, reason: str) -> None:
        """Command nothing any more, without braking: the robot has stopped by itself."""
        self._fault_hold.let_go()
        if self.state in (State.DISARMED, State.FAULT):
            return
        self.log.add(now, "stop", f"robot stop: {reason}; nothing is commanded any more")
        self._motion.settle()
        self._next_epoch(now)
        self._enter(now, State.FAULT if self.fault is not None else State.DISARMED, f"robot stop: {reason}")

    def _compare(self, now: float, cause: str, verb: str, gap: np.ndarray, limit: np.ndarray) -> None:
        gap = np.abs(gap)
        if (gap <= limit).all():
            return
        worst = int(np.argmax(gap / limit))
        joint, value, most = self.contract.joints[worst], float(gap[worst]), float(limit[worst])
        message = f"{joint.name} {verb} by {value:.4g} {joint.unit}, the limit is {most:.4g}"
        self._raise_fault(now, cause, message, joint.name, value, most)

    def _next_epoch(self, now: float) -> None:
        self.epoch += 1
        self._epoch_since = now
        self._sequence = -1
        self._last_chunk = now

    def _enter(self, now: float, state: State, why: str) -> None:
        self.log.add(now, "state", f"{self.state.value} -> {state.value}: {why}")
        self.state = state
        self._slowed = False
        self._hold_since = now
        if state in (State.DISARMED, State.FAULT):
            self._commanded = self._armed_at = None
            self._joints.release()
