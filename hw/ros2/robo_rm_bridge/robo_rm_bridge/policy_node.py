"""The lifecycle node between a policy and an arm: thin, around SafetyCore, which decides everything that moves.

    configure   reads the contract, opens topics, looks for the policy server; commands nothing
    activate    refused, naming the field, unless a policy that fits this contract is connected
    ~/arm       holds where the arm is; the policy's first chunk starts the motion
    ~/disarm    brakes, then commands nothing;  deactivate does the same
    ~/estop, the e-stop topic   latches a fault from any state;  ~/reset_fault clears it by hand

Everything runs in one thread, from a timer on the steady clock. Simulated time only aligns data.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from robo_hw.clock import SteadyClock
from robo_hw.contract import RobotContract
from robo_hw.errors import HardwareError
from robo_hw.events import Event
from robo_hw.safety_core import SafetyCore
from robo_hw.states import State
from robo_hw.transport import ClientState, PolicyClient
from robo_hw.watch import frame_digest
from robo_rm_bridge import commands, reporting
from robo_rm_bridge.conversions import (
    MessageError,
    joint_state,
    latched_qos,
    qos,
    quiet_events,
    seconds,
    sensor_qos,
    time_message_ns,
)
from robo_rm_bridge.pictures import picture_type, rgb_from_message
from robo_rm_bridge.policy_settings import SETTINGS
from robo_rm_bridge.settings import declare
from robo_rm_bridge.sights import Sights, parse_vectors, unmet_needs
from robo_rm_bridge.timing import LoopTiming, Spread

_ERRORS, _WARNINGS = ("fault", "rejected"), ("stop", "degraded", "dropped", "stream")
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PolicyNode(LifecycleNode):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("robo_rm_policy")
        self._active = False
        self._ready = False
        self._entities: list[tuple[Callable[[Any], Any], Any]] = []
        self._starter = self.create_timer(0.2, self._start, clock=Clock(clock_type=ClockType.STEADY_TIME))

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

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Read parameters and contract, open topics and services."""
        try:
            self.settings = declare(self, SETTINGS)
            self.contract = RobotContract.load(self.settings.contract)
            self._vectors = parse_vectors(self.settings.vectors)
            self._clock_ = SteadyClock()
            self._client = PolicyClient(
                self.contract, self.settings.policy_address, self._clock_, task=self.settings.task
            )
        except HardwareError as error:
            self.get_logger().error(f"cannot be configured: {error}")
            return FAILURE
        contract, settings = self.contract, self.settings
        self.core = SafetyCore(contract, self._clock_, settings.schedule, settings.ensemble_decay)
        self._sights = Sights(contract, self._vectors, settings.vector_age)
        self._period = 1.0 / contract.rates.control
        self._timing, self._latency = LoopTiming(self._period), Spread()
        self._wall_offset = time.time_ns() - round(self._clock_.now() * 1e9)
        self._told = 0
        self._status_at = self._diagnostics_at = -np.inf
        self._status_key: Any = None
        self._asked_at = -np.inf
        self._asked_epoch = self._epoch = -1
        self._epoch_at = -np.inf
        self._pressed = False
        self._rests_since = -np.inf
        self._observed: float | None = None
        self._open()
        self._client.connect()
        self._ready = True
        self._timer = self.create_timer(self._period, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._entities.append((self.destroy_timer, self._timer))
        self.get_logger().info(f"{contract.robot}, contract {contract.hash[:12]}, commands on {contract.command.name}")
        return SUCCESS

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Refuse, naming the field, unless a policy that fits is connected."""
        if self.core.state is State.DISARMED:  # waiting would interrupt a hold
            self._await_server()
        problems = self._problems()
        if problems:
            self.get_logger().error("cannot be activated: " + "; ".join(problems))
            return FAILURE
        self._active = True
        self._status_at = -np.inf
        return SUCCESS

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Brake, then command nothing; a hold in fault goes on until it is reset."""
        self._active = False
        self.core.disarm()
        self._status_at = -np.inf
        return SUCCESS

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Close everything; refused while the arm is commanded."""
        if self.core.state is not State.DISARMED:
            self.get_logger().error(
                f"the core is {self.core.state.value}: disarm, or reset the fault, before cleaning up"
            )
            return FAILURE
        self._close()
        return SUCCESS

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """Brake; the timer goes on until the process ends."""
        self._active = False
        if self._ready:
            self.core.disarm()
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
        self._client.close()
        return True

    def _open(self) -> None:
        contract = self.contract
        self._command_topic = self.create_publisher(
            commands.message_type(contract), contract.command.name, qos(contract.command)
        )
        self._status_topic = self.create_publisher(DiagnosticArray, contract.status.name, qos(contract.status))
        self._diagnostics_topic = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._commanded_topic = self.create_publisher(JointState, "~/commanded", 10)
        publishers = (self._command_topic, self._status_topic, self._diagnostics_topic, self._commanded_topic)
        self._entities += [(self.destroy_publisher, publisher) for publisher in publishers]
        states = contract.joint_states
        subscriptions = [self.create_subscription(JointState, states.name, self._on_joints, qos(states))]
        for camera in contract.cameras:
            handler, kind = self._image_handler(camera.name, camera.height, camera.width), picture_type(camera.topic)
            subscriptions.append(self.create_subscription(kind, camera.topic, handler, sensor_qos()))
        for vector in self._vectors:
            handler = self._vector_handler(vector.key)
            subscriptions.append(self.create_subscription(JointState, vector.topic, handler, sensor_qos()))
        if self.settings.estop_topic:
            # Twice: a latched stop that was pressed before we came, and publishers that latch nothing; each of the two
            # finds the other's publishers incompatible, which is no news.
            for quality in (latched_qos(), QoSProfile(depth=10)):
                subscriptions.append(
                    self.create_subscription(
                        Bool, self.settings.estop_topic, self._on_estop, quality, event_callbacks=quiet_events()
                    )
                )
        self._entities += [(self.destroy_subscription, subscription) for subscription in subscriptions]
        services = {
            "~/arm": self._arm,
            "~/disarm": self._disarm,
            "~/reset_fault": self._reset_fault,
            "~/estop": self._estop,
        }
        self._entities += [
            (self.destroy_service, self.create_service(Trigger, name, handler)) for name, handler in services.items()
        ]

    def _close(self) -> None:
        self._ready = False
        self._client.close()
        for destroy, entity in self._entities:
            destroy(entity)
        self._entities.clear()

    # What people ask ------------------------------------------------------------------------------------------------

    def _arm(self, request: Any, response: Any) -> Any:
        def arm() -> str:
            if not self._active:
                raise HardwareError("the node is not active; activate it first")
            problems = self._problems()
            if problems:
                raise HardwareError("the arm may not be armed: " + "; ".join(problems))
            self._client.start_episode(self.settings.task)
            self.core.arm()
            return "armed; the policy's next chunk starts the motion"

        return self._answer(response, arm)

    def _disarm(self, request: Any, response: Any) -> Any:
        def disarm() -> str:
            self.core.disarm()
            return self.core.state.value if self.core.fault is None else "braking; the fault stays latched"

        return self._answer(response, disarm)

    def _reset_fault(self, request: Any, response: Any) -> Any:
        def reset() -> str:
            if self._pressed:
                raise HardwareError(f"the emergency stop on {self.settings.estop_topic} is still pressed")
            self.core.reset_fault()
            self._sights.forget()
            return "reset; disarmed"

        return self._answer(response, reset)

    def _estop(self, request: Any, response: Any) -> Any:
        def stop() -> str:
            self.core.estop("emergency stop by service")
            self._move()  # answered when it is latched, not before
            return "a fault is latched; the arm brakes if it moves"

        return self._answer(response, stop)

    def _on_estop(self, message: Bool) -> None:
        self._pressed = message.data
        if message.data:
            self.core.estop(f"emergency stop on {self.settings.estop_topic}")
            self._move()

    def _answer(self, response: Any, action: Callable[[], str]) -> Any:
        try:
            response.success, response.message = True, action()
        except HardwareError as error:
            response.success, response.message = False, str(error)
        self._tell()
        return response

    # What the robot tells -------------------------------------------------------------------------------------------

    def _on_joints(self, message: JointState) -> None:
        now = self._clock_.now()
        positions = np.array(message.position, dtype=np.float64)
        velocities = message.velocity if len(message.velocity) == len(message.name) else None
        if self.core.observe(message.name, positions, velocities, seconds(message.header.stamp)):
            self._sights.joints(message.name, positions, now)

    def _image_handler(self, camera: str, height: int, width: int) -> Callable[[Any], None]:
        def on_image(message: Any) -> None:
            try:
                rgb = rgb_from_message(message)
                if rgb.shape[:2] != (height, width):
                    raise MessageError(f"{rgb.shape[:2]} pixels, the contract has {(height, width)}")
            except MessageError as error:
                self.get_logger().error(f"camera {camera}: {error}", throttle_duration_sec=5.0)
                return  # it ages in the core, which stops at its deadline
            if self.core.observe_camera(camera, frame_digest(rgb), seconds(message.header.stamp)):
                self._sights.image(camera, rgb, self._clock_.now())

        return on_image

    def _vector_handler(self, key: str) -> Callable[[JointState], None]:
        def on_vector(message: JointState) -> None:
            values = np.array(message.position, dtype=np.float32)
            stamp = seconds(message.header.stamp)
            problem = self._sights.vector(key, message.name, values, self._clock_.now(), stamp)
            if problem is not None:
                self.get_logger().warning(problem, throttle_duration_sec=5.0)

        return on_vector

    # The control loop -----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self._clock_.now()
        self._timing.tick(now)
        update = self._client.poll()
        if update.restarted:
            self.core.new_epoch("the policy server restarted")
        elif update.chunk is not None and self._active and self.core.submit(update.chunk).accepted:
            self._observed = update.chunk.observed_at
        self._move()
        self._look()
        self._tell()
        self._report(now)

    def _move(self) -> None:
        command = self.core.tick()
        if command is not None:
            self._publish(command)
            if self._observed is not None:
                self._latency.add(self._clock_.now() - self._observed)
        self._observed = None

    def _publish(self, command: Any) -> None:
        if self.contract.command_interface == "joint_trajectory":
            lead = self.settings.lead or self._period
            self._command_topic.publish(commands.trajectory(self.core, command, lead))
        else:
            self._command_topic.publish(commands.forward(command))
        if self.settings.publish_commanded:
            # One offset for good, so that differences of stamps are differences of the steady clock.
            stamp = time_message_ns(round(command.time * 1e9) + self._wall_offset)
            names = self.contract.joint_names
            self._commanded_topic.publish(
                joint_state(names, command.positions, command.velocities, stamp, self.core.state.value)
            )

    def _look(self) -> None:
        """Give the policy an observation when its next chunk is due."""
        server = self._client.status().server
        if not self._active or server is None or server.policy is None:
            return
        if self.core.state not in (State.HOLDING, State.RUNNING):
            return
        now, core = self._clock_.now(), self.core
        if core.epoch != self._epoch:
            self._epoch, self._epoch_at = core.epoch, now
        horizon = self.settings.replan_every or server.policy.execution_horizon
        # After a stop at once: an answer to an earlier epoch's observation would only be dropped.
        due = core.epoch != self._asked_epoch or now - self._asked_at >= horizon / self.contract.rates.actions
        if not due or self._problems():
            return
        sight = self._sights.snapshot(server.policy.needs, now)
        if sight is None or sight.observed_at < self._epoch_at:
            return  # what was seen before the epoch began must not be acted on in it
        sent = self._client.send_observation(
            sight.names,
            sight.positions,
            images=sight.images,
            arrays=sight.arrays,
            observed_at=sight.observed_at,
            epoch=core.epoch,
            consumed=core.status().consumed,
            want=("chunk",),
        )
        if sent:
            self._asked_at, self._asked_epoch = now, core.epoch

    def _await_server(self) -> None:
        end = self._clock_.now() + self.settings.connect_timeout
        while self._client.status().state is ClientState.CONNECTING and self._clock_.now() < end:
            time.sleep(0.02)

    def _problems(self) -> list[str]:
        """Why this policy may not move this arm; empty where it may."""
        status = self._client.status()
        if status.state is not ClientState.CONNECTED or status.server is None:
            return [f"no policy server at {self.settings.policy_address}: {status.message or status.state.value}"]
        if status.server.policy is None:
            return ["the server serves no policy, only a reward model; start robo-rm serve-policy with policy=FOLDER"]
        return unmet_needs(status.server.policy.needs, self.contract, self._vectors)

    # What it tells --------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Write new events of the core to the log."""
        total = sum(self.core.log.counts.values())
        if total == self._told:
            return
        events: list[Event] = list(self.core.log)[-min(total - self._told, len(self.core.log)) :]
        self._told = total
        logger = self.get_logger()
        for event in events:
            text = f"{event.kind}: {event.message}"
            # Three lines, because rclpy refuses another severity from the same line.
            if event.kind in _ERRORS:
                logger.error(text)
            elif event.kind in _WARNINGS:
                logger.warning(text)
            else:
                logger.info(text)

    def _report(self, now: float) -> None:
        core = self.core
        key = (core.state, core.fault, self._active)
        if key != self._status_key or now - self._status_at >= 1.0:
            self._status_key, self._status_at = key, now
            entries = [reporting.core_entry(self.get_name(), self.contract, core.status(), self._active)]
            self._status_topic.publish(reporting.stamped(entries, self.get_clock().now().to_msg()))
        if now - self._diagnostics_at >= 1.0 / self.settings.diagnostics_rate:
            self._diagnostics_at = now
            client = self._client.status()
            problems = self._problems()
            needs = client.server.policy.needs if client.server and client.server.policy else {}
            missing = self._sights.missing(needs, now) if not problems else []
            name = self.get_name()
            entries = [
                reporting.core_entry(name, self.contract, core.status(), self._active),
                reporting.loop_entry(name, self._timing, self._latency),
                reporting.policy_entry(name, client, problems, missing),
            ]
            self._diagnostics_topic.publish(reporting.stamped(entries, self.get_clock().now().to_msg()))


NODE = PolicyNode
