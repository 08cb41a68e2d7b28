"""Emergency stops, the robot's own stops, and who publishes joint states: watched on a thread of their own.

A node beside the policy node, spun by its own thread, so that nothing the control loop does delays a stop. It only
tells the core (whose ``estop`` and ``robot_stop`` may be called from any thread) and wakes the control loop.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.observation.states import State
from robo_hw.safety.clock import Clock
from robo_hw.safety.emergency_stops import EmergencyStops
from robo_hw.safety.robot_stops import RobotStops
from robo_hw.safety.safety_core import SafetyCore
from robo_rm_bridge.attribution import Attribution, gid
from robo_rm_bridge.conversions import latched_qos, quiet_events, sensor_qos
from robo_rm_bridge.fields import getter, message_type
from robo_rm_bridge.nodes import Request, answering, helper_node, steady_timer

_LOOK_EVERY = 0.1
"""Seconds between two looks at who is there and who is silent."""
MessageT = TypeVar("MessageT")
COMMAND_LINE = "ros2 command line"


class _Witness:
    """Knows which publisher said what on the emergency-stop topics, where the middleware tells.

    It has a node that no executor spins, and takes messages when asked.
    """

    def __init__(self, name: str, namespace: str, topics: Mapping[str, str]) -> None:
        self._node = helper_node(name, namespace)
        self._attribution = Attribution(self._node)
        self.possible = self._attribution.possible
        self._newest: dict[str, int] = {}
        qualities = (latched_qos(), QoSProfile(depth=100), sensor_qos(100)) if self.possible else ()
        # What they hear is taken by hand.
        self._subscriptions = [
            (
                name,
                self._node.create_subscription(
                    Bool, topic, lambda message: None, quality, event_callbacks=quiet_events()
                ),
            )
            for name, topic in topics.items()
            for quality in qualities
        ]

    def take(self) -> list[tuple[str, bool, str]]:
        """What was said since the last call: source, whether pressed, and the publisher's id."""
        found = []
        for name, subscription in self._subscriptions:
            while (taken := self._attribution.take(subscription)) is not None:
                speaker, published, message = taken
                if published > self._newest.get(speaker, -1):  # each comes up to three times
                    self._newest[speaker] = published
                    found.append((name, bool(message.data), speaker))
        return found

    def close(self) -> None:
        """Leave the graph."""
        self._node.destroy_node()


class Guard:
    """See the module.

    Args:
        owner: the policy node: its names, remappings and namespace count.
        wake: makes the control loop tick at once; called from the guard's thread.

    Raises:
        HardwareError: the type or the field of a stop signal cannot be resolved.
    """

    def __init__(
        self, owner: Node, contract: RobotContract, core: SafetyCore, clock: Clock, wake: Callable[[], None]
    ) -> None:
        self._core, self._clock, self._wake = core, clock, wake
        self._owner = owner
        self.stops = EmergencyStops({source.name: source.heartbeat for source in contract.estop})
        # A topic may carry several signals, each in a field of its own.
        labels = [f"{signal.name} {signal.field}" for signal in contract.stop]
        self.robot = RobotStops({label: (s.ok, s.heartbeat) for label, s in zip(labels, contract.stop, strict=True)})
        self._estop_topics = {source.name: owner.resolve_topic_name(source.name) for source in contract.estop}
        self._state_topics = [
            (owner.resolve_topic_name(topic.name), topic.publishers) for topic in contract.joint_states
        ]
        self._crowded: list[str] = []
        self._armed = False
        readers = []
        for index, signal in enumerate(contract.stop):
            kind = message_type(signal.type, f"topics.stop[{index}].type")
            value = getter(kind, signal.field, f"topics.stop[{index}].field")
            readers.append((owner.resolve_topic_name(signal.name), kind, self._stop_handler(labels[index], value)))
        name, namespace = owner.get_name(), owner.get_namespace()
        self._node = helper_node(f"{name}_guard", namespace)
        self._witness = _Witness(f"{name}_witness", namespace, self._estop_topics)
        for name, topic in self._estop_topics.items():
            self._subscribe(Bool, topic, self._estop_handler(name))
        for topic, kind, handler in readers:
            self._subscribe(kind, topic, handler)
        self._node.create_service(Trigger, owner.resolve_service_name("~/estop"), answering(self._on_service))
        steady_timer(self._node, _LOOK_EVERY, self._look)
        self._look()
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._closing = False
        self._thread = threading.Thread(target=self._spin, name="guard", daemon=True)
        self._thread.start()

    def problems(self) -> list[str]:
        """Why the arm must not be armed, one line each."""
        now = self._clock.now()
        return [*self.stops.problems(now), *self.robot.problems(now), *self._crowded]

    def follow(self, state: State) -> None:
        """The core is in this state now: while it commands an arm, silence and departures are stops."""
        armed = state not in (State.DISARMED, State.FAULT)
        if armed != self._armed:
            self._armed = armed
            if armed:
                self.stops.armed()
            else:
                self.stops.disarmed()

    def close(self) -> None:
        """End the thread and leave the graph."""
        self._closing = True
        self._executor.wake()
        self._thread.join(5.0)
        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()
        self._witness.close()

    # On its own thread ----------------------------------------------------------------------------------------------

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            while not self._closing:
                self._executor.spin_once(timeout_sec=0.2)

    def _subscribe(self, kind: type[MessageT], topic: str, handler: Callable[[MessageT], None]) -> None:
        # Three times, so that no publisher's quality of service is incompatible: what was latched before we came, what
        # is repeated until it arrives, and publishers that promise neither. Hearing a stop twice does no harm.
        for quality in (latched_qos(), QoSProfile(depth=10), sensor_qos(10)):
            self._node.create_subscription(kind, topic, handler, quality, event_callbacks=quiet_events())

    def _estop_handler(self, name: str) -> Callable[[Bool], None]:
        def on_message(message: Bool) -> None:
            if message.data:
                self._stop(f"emergency stop on {name}")  # first of all
            if self._witness.possible:
                self.stops.alive(name, self._clock.now())
                return
            if message.data or self.stops.pressed():
                self._look_at(name)
            self.stops.update(name, message.data, self._clock.now())

        return on_message

    def _stop_handler(self, label: str, value: Callable[[object], object]) -> Callable[[object], None]:
        def on_message(message: object) -> None:
            reason = self.robot.update(label, value(message), self._clock.now())
            if reason is not None:
                self._core.robot_stop(reason)
                self._wake()

        return on_message

    def _on_service(self, _: Request) -> str:
        self._stop("emergency stop by service")
        return "a fault is latched; the arm brakes if it moves"

    def _look(self) -> None:
        """Who is there, who said what, and who has fallen silent."""
        for name in self._estop_topics:
            self._look_at(name)
        for name, pressed, speaker in self._witness.take():
            self.stops.update(name, pressed, self._clock.now(), speaker)
        crowded = []
        for topic, allowed in self._state_topics:
            speakers = sorted(self._speakers(topic).values())
            if len(speakers) > allowed:
                crowded.append(
                    f"{len(speakers)} publishers on {topic} ({', '.join(speakers)}), the contract allows {allowed}: "
                    "stop the others, or raise topics.joint_states.publishers"
                )
        new, self._crowded = [line for line in crowded if line not in self._crowded], crowded
        if not self._armed:
            return
        now = self._clock.now()
        for reason in (self.stops.overdue(now), *new):
            if reason is not None:
                self._stop(reason)
        silent = self.robot.overdue(now)
        if silent is not None:
            self._core.robot_stop(silent)
            self._wake()

    def _look_at(self, name: str) -> None:
        reason = self.stops.speakers(name, self._speakers(self._estop_topics[name]))
        if reason is not None:
            self._stop(reason)

    def _stop(self, reason: str) -> None:
        self._core.estop(reason)
        self._wake()

    def _speakers(self, topic: str) -> dict[str, str]:
        """The publishers of a topic: id -> node."""
        return {
            gid(info): _node_name(info.node_namespace, info.node_name)
            for info in self._node.get_publishers_info_by_topic(topic)
        }


def _node_name(namespace: str, name: str) -> str:
    if name.startswith("_ros2cli"):
        return COMMAND_LINE  # each call is another node, the person is the same
    return f"{namespace.rstrip('/')}/{name}"
