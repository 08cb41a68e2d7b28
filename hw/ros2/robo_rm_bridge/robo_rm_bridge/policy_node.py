"""The lifecycle node between a policy and an arm: thin, around SafetyCore, which decides everything that moves.

    configure   reads the contract, opens topics, looks for the policy server; commands nothing
    activate    refused, naming the field, unless a policy that fits this contract is connected
    ~/arm       holds where the arm is; the policy's first chunk starts the motion
    ~/hold      the same without a policy: it holds, and no chunk moves it
    ~/disarm    brakes, then commands nothing;  deactivate does the same
    ~/estop, the contract's e-stop topics   latch a fault from any state;  ~/reset_fault clears it by hand

The control loop is one thread with a timer on the steady clock. Stops are received on a thread of their own (`guard`),
images are received by a process of their own (`camera_feed`). Simulated time only aligns data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import HardwareError
from robo_hw.observation.observation_buffer import parse_vectors
from robo_hw.observation.states import State
from robo_hw.safety.clock import SteadyClock
from robo_hw.safety.safety_core import SafetyCore
from robo_hw.safety.timing import LoopTiming, Quantiles
from robo_hw.transport import ClientState, PolicyClient
from robo_hw.transport.sender import ObservationSender
from robo_rm_bridge.conversions import joint_state, time_message_ns
from robo_rm_bridge.guard import Guard
from robo_rm_bridge.inputs import Inputs
from robo_rm_bridge.nodes import Request, answering, steady_timer
from robo_rm_bridge.outputs import make_outputs
from robo_rm_bridge.policy_access import credentials
from robo_rm_bridge.policy_settings import REMOVED, SETTINGS
from robo_rm_bridge.reporting import EventLogger, PolicyReport, Reporter
from robo_rm_bridge.settings import declare, refuse_removed

if TYPE_CHECKING:
    from rclpy.lifecycle import State as LifecycleState

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PolicyNode(LifecycleNode):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("robo_rm_policy")
        self._active = False
        self._ready = False
        self._closers: list[Callable[[], object]] = []
        self._starter = steady_timer(self, 0.2, self._start)

    def _start(self) -> None:
        """With ``autostart``: configure, then activate once; what people do by hand later is not undone."""
        try:
            automatic = declare(self, SETTINGS).autostart
        except HardwareError:
            automatic = False  # configuring will tell
        if automatic and not self._ready and self.trigger_configure() is not SUCCESS:
            automatic = False
        if automatic and self._client.status().state is not ClientState.CONNECTED:
            return
        self.destroy_timer(self._starter)
        if automatic and not self._active:
            self.trigger_activate()

    # Lifecycle ------------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read parameters and contract, open topics and services; on a mistake say which, and leave nothing open."""
        try:
            self._configure()
        except Exception as error:  # noqa: BLE001 - rclpy would swallow it, and nobody would know why
            kind = "" if isinstance(error, HardwareError) else f"{type(error).__name__}: "
            self.get_logger().error(f"cannot be configured: {kind}{' '.join(str(error).split())}")
            self._close()
            return FAILURE
        self._ready = True
        contract = self.contract
        self.get_logger().info(f"{contract.robot}, contract {contract.hash[:12]}, commands on {contract.command.name}")
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Refuse, naming the field, unless a policy that fits is connected."""
        if self.core.state is State.DISARMED:  # waiting would interrupt a hold
            self._await_server()
        problems = self._sender.problems()
        if problems:
            self.get_logger().error("cannot be activated: " + "; ".join(problems))
            return FAILURE
        self._active = True
        return SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Brake, then command nothing; a fault stays until it is reset."""
        self._active = False
        self.core.disarm()
        return SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close everything; refused while the arm is commanded."""
        if self.core.state is not State.DISARMED:
            self.get_logger().error(
                f"the core is {self.core.state.value}: disarm, or reset the fault, before cleaning up"
            )
            return FAILURE
        self._close()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Brake; the timer goes on until the process ends."""
        self._active = False
        if self._ready:
            self.core.disarm()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition raised: say so, close everything, and allow another attempt."""
        self.get_logger().error(f"the transition from {state.label} failed")
        self._active = False
        self._close()
        return SUCCESS

    def finish(self) -> bool:
        """Asked for an end: brake first. Returns whether the arm rests."""
        self._active = False
        if not self._ready:
            return True
        if self.core.state not in (State.DISARMED, State.FAULT):
            self.core.disarm()
            self._rests_since = self._clock_.now()
        # A little longer, so that the last command is delivered.
        if self._clock_.now() - self._rests_since < 0.1:
            return False
        self._close()
        return True

    def _configure(self) -> None:
        refuse_removed(self, REMOVED)
        self.settings = settings = declare(self, SETTINGS)
        self.contract = contract = RobotContract.load(settings.contract)
        self._vectors = parse_vectors(settings.vectors)
        self._clock_ = clock = SteadyClock()
        access = credentials(settings)
        self._client = PolicyClient(contract, settings.policy_address, clock, task=settings.task, credentials=access)
        self.core = core = SafetyCore(contract, clock, settings.chunk_blending, settings.ensemble_decay)
        self._period = 1.0 / contract.rates.control
        self._timing, self._latency = LoopTiming(self._period), Quantiles()
        self._wall_offset = time.time_ns() - round(clock.now() * 1e9)
        self._rests_since = -np.inf
        self._unanswered: float | None = None
        self._observed: float | None = None
        self._errors = 0
        # Closed in reverse order, also where one of them cannot be opened.
        time_from_start = settings.time_from_start or self._period
        self._outputs = make_outputs(self, contract, time_from_start, lambda: core.pose()[0], self._on_robot_stop)
        self._closers += [output.close for output in self._outputs]
        self._events = EventLogger(core.log, self.get_logger())
        self._reporter = Reporter(self, contract, settings.diagnostics_rate)
        self._closers.append(self._reporter.close)
        commanded = self.create_publisher(JointState, "~/commanded", 10)
        self._commanded = commanded
        self._closers.append(lambda: self.destroy_publisher(commanded))
        self._inputs = Inputs(
            self, contract, self._vectors, settings.vector_age, clock, self._take_joints, core.observe_camera
        )
        self._closers.append(self._inputs.close)
        self._sender = ObservationSender(
            core, self._client, self._inputs.buffer, self._vectors, settings.execution_horizon
        )
        services = {
            "~/arm": self._arm,
            "~/hold": self._hold,
            "~/disarm": self._disarm,
            "~/reset_fault": self._reset_fault,
        }
        for name, handler in services.items():
            service = self.create_service(Trigger, name, answering(handler, self._events.tell))
            self._closers.append(partial(self.destroy_service, service))
        wake = self.create_guard_condition(self._move)
        self._closers.append(lambda: self.destroy_guard_condition(wake))
        self._guard = Guard(self, contract, core, clock, wake.trigger)
        self._closers.append(self._guard.close)
        self._client.connect()
        self._closers.append(self._client.close)
        timer = steady_timer(self, self._period, self._tick)
        self._closers.append(lambda: self.destroy_timer(timer))

    def _close(self) -> None:
        self._ready = False
        while self._closers:
            self._closers.pop()()

    # What people ask ------------------------------------------------------------------------------------------------

    def _arm(self, _: Request) -> str:
        self._require_safe()
        self._poll_policy()  # that a server came back must not undo what is asked for now
        missing = self._sender.problems() or self._lacking()
        self._client.start_episode(self.settings.task)
        self._unanswered = None
        self.core.arm(missing=missing, start_poses=self._sender.start_poses())
        self._guard.follow(self.core.state)
        return "armed; the policy's next chunk starts the motion"

    def _hold(self, _: Request) -> str:
        self._require_safe()
        self.core.arm(hold_only=True)
        self._guard.follow(self.core.state)
        return "holding only; disarm, then ~/arm, for a motion"

    def _require_safe(self) -> None:
        if not self._active:
            raise HardwareError("the node is not active; activate it first")
        problems = self._guard.problems()
        for output in self._outputs:
            problems += output.problems()
        if problems:
            raise HardwareError("the arm cannot be armed: " + "; ".join(problems))

    def _disarm(self, _: Request) -> str:
        self.core.disarm()
        return self.core.state.value if self.core.fault is None else "braking; the fault stays latched"

    def _reset_fault(self, _: Request) -> str:
        pressed = self._guard.stops.pressed()
        if pressed:
            raise HardwareError("; ".join(pressed))
        self.core.reset_fault()
        self._inputs.forget()
        return "reset; disarmed"

    # What the robot reports -------------------------------------------------------------------------------------------

    def _take_joints(
        self,
        names: Sequence[str],
        positions: np.ndarray,
        velocities: Sequence[float] | None,
        stamp: float | None,
        topic: str,
    ) -> tuple[np.ndarray, float] | None:
        if not self.core.observe(names, positions, velocities, stamp, topic):
            return None
        pose, taken_at = self.core.pose()
        return (pose, taken_at) if np.isfinite(pose).all() else None

    def _on_robot_stop(self, reason: str) -> None:
        self.core.robot_stop(reason)
        self._move()

    # The control loop -----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self._clock_.now()
        self._timing.tick(now)
        self._inputs.poll()
        self._poll_policy()
        self._move()
        self._guard.follow(self.core.state)
        self._ask_policy(now)
        self._events.tell()
        self._report(now)

    def _poll_policy(self) -> None:
        update = self._client.poll()
        if update.lost:
            self._unanswered = None
        if update.restarted:
            self.core.new_epoch("the policy server restarted")
        elif update.chunk is not None:
            self._unanswered = None
            if self._active and self.core.submit(update.chunk).accepted:
                self._observed = update.chunk.observed_at

    def _move(self) -> None:
        command = self.core.tick()
        if command is not None:
            for output in self._outputs:
                output.send(self.core, command)
            if self.settings.publish_commanded:
                # One constant offset, so that differences of stamps are differences of the steady clock.
                stamp = time_message_ns(round(command.time * 1e9) + self._wall_offset)
                state = self.core.state.value
                names = self.contract.joint_names
                self._commanded.publish(joint_state(names, command.positions, command.velocities, stamp, state))
            if self._observed is not None:
                self._latency.add(self._clock_.now() - self._observed)
        self._observed = None

    def _ask_policy(self, now: float) -> None:
        if self._active and "chunk" in self._sender.send(now):
            self._unanswered = now if self._unanswered is None else self._unanswered

    def _await_server(self) -> None:
        end = self._clock_.now() + self.settings.connect_timeout
        while self._client.status().state is ClientState.CONNECTING and self._clock_.now() < end:
            time.sleep(0.02)

    def _lacking(self) -> list[str]:
        """What the policy needs and has not been given; of joints and cameras the core tells more than their age."""
        missing = self._inputs.buffer.missing(self._sender.needs(), self._clock_.now())
        others = [line for line in missing if not line.startswith(("joint states are", "camera ")) or "apart" in line]
        return others + self._inputs.unsteady()

    def _report(self, now: float) -> None:
        reporter = self._reporter
        reporter.status(now, self.core, self._active)
        if not reporter.due(now):
            return
        client, problems = self._client.status(), self._sender.problems()
        if client.errors != self._errors:
            self._errors, self._unanswered = client.errors, None  # it answers, if only that it cannot
        missing = [] if problems else self._inputs.buffer.missing(self._sender.needs(), now)
        waiting = 0.0 if self._unanswered is None else now - self._unanswered
        policy = PolicyReport(client, problems, missing, waiting)
        loop = (self._timing, self._latency)
        reporter.diagnostics(self.core, self._active, loop, policy, self._guard.problems())


NODE = PolicyNode
