"""What the robot tells: joint states of one or several topics, cameras, further inputs, in one observation buffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.observation.observation_buffer import NamedVector, ObservationBuffer
from robo_hw.safety.clock import Clock
from robo_rm_bridge.camera_feed import CameraFeed, CameraProblem
from robo_rm_bridge.conversions import qos, seconds, sensor_qos

if TYPE_CHECKING:
    from rclpy.qos import QoSProfile
    from rclpy.subscription import Subscription

_STEADY = 3
_REPORT_EVERY = 5.0
"""Seconds between two log lines about one camera."""
Pose: TypeAlias = "tuple[np.ndarray, float]"
TakeJoints: TypeAlias = "Callable[[Sequence[str], np.ndarray, Sequence[float] | None, float | None, str], Pose | None]"
"""(names, positions, velocities, stamp, topic) -> positions (D,) in the contract's order and when the oldest of them
was taken (s, steady clock); None: not usable, or not all joints are known yet."""
TakeImage: TypeAlias = "Callable[[str, int, float | None], bool]"
"""(camera, digest, stamp) -> whether it counts as fresh."""


class Inputs:
    """Subscribes to everything that a contract names, and keeps the newest of it in ``buffer``.

    Args:
        node: the subscriptions belong to it; its remappings and namespace count for the cameras, too.
        contract: of the robot.
        vectors: further inputs.
        vector_age: s that a further input may be old.
        clock: the steady clock of all moments.
        take_joints: checks and orders a joint state.
        take_image: checks an image.
    """

    def __init__(
        self,
        node: Node,
        contract: RobotContract,
        vectors: list[NamedVector],
        vector_age: float,
        clock: Clock,
        take_joints: TakeJoints,
        take_image: TakeImage,
    ) -> None:
        self._node, self._contract, self._clock = node, contract, clock
        self._take_joints, self._take_image = take_joints, take_image
        self.buffer = ObservationBuffer(contract, vectors, vector_age)
        self._subscriptions: list[Subscription] = []
        self._reported: dict[str, float] = {}
        self._steady = {camera.name: 0 for camera in contract.cameras}
        self._feed: CameraFeed | None = None
        for topic in contract.joint_states:
            self._listen(topic.name, self._joints_handler(topic.name), qos(topic))
        for vector in vectors:
            self._listen(vector.topic, self._vector_handler(vector.key), sensor_qos())
        topics = [node.resolve_topic_name(camera.topic) for camera in contract.cameras]
        self._feed = CameraFeed(contract, topics, f"{node.get_name()}_cameras", node.get_namespace())

    def poll(self) -> None:
        """Take the images that have come; returns at once."""
        if self._feed is None:
            return
        for new in self._feed.poll():
            if isinstance(new, CameraProblem):
                self._tell(new)
            elif self._take_image(new.camera, new.digest, new.stamp):
                self._steady[new.camera] += 1
                self.buffer.image(new.camera, new.read, self._clock.now(), new.stamp)
            else:
                self._steady[new.camera] = 0

    def unsteady(self) -> list[str]:
        """Cameras that have given too few images in a row to be relied on, one line each: the first may be late, and
        what is in time would then look as if its clock had jumped."""
        return [
            f"camera {name} has given {count} of {_STEADY} images in a row; wait a moment"
            for name, count in self._steady.items()
            if count < _STEADY
        ]

    def forget(self) -> None:
        """Start again, as after a fault was reset."""
        self.buffer.forget()
        self._steady = dict.fromkeys(self._steady, 0)

    def close(self) -> None:
        """Leave the graph, and end the cameras' process."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def _tell(self, problem: CameraProblem) -> None:
        # Not the logger's throttle, which is one for all: a camera must not hide what is wrong with another.
        now = self._clock.now()
        if now - self._reported.get(problem.camera, -np.inf) < _REPORT_EVERY:
            return
        self._reported[problem.camera] = now
        text = f"camera {problem.camera}: {problem.message}" if problem.camera else problem.message
        self._node.get_logger().error(text)

    def _listen(self, topic: str, handler: Callable[[JointState], None], quality: QoSProfile) -> None:
        self._subscriptions.append(self._node.create_subscription(JointState, topic, handler, quality))

    def _joints_handler(self, topic: str) -> Callable[[JointState], None]:
        names = self._contract.joint_names

        def on_joints(message: JointState) -> None:
            positions = np.array(message.position, dtype=np.float64)
            velocities = message.velocity if len(message.velocity) == len(message.name) else None
            stamp = seconds(message.header.stamp)
            taken = self._take_joints(message.name, positions, velocities, stamp, topic)
            if taken is not None:
                self.buffer.joints(names, *taken, stamp)

        return on_joints

    def _vector_handler(self, key: str) -> Callable[[JointState], None]:
        def on_vector(message: JointState) -> None:
            values = np.array(message.position, dtype=np.float32)
            stamp = seconds(message.header.stamp)
            problem = self.buffer.vector(key, message.name, values, self._clock.now(), stamp)
            if problem is not None:
                self._node.get_logger().warning(problem, throttle_duration_sec=5.0)

        return on_vector
