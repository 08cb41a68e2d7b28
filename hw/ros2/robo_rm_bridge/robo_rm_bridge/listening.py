"""Listening to the robot without commanding it: what recorder and monitor share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import JointState

from robo_hw.clock import SteadyClock
from robo_hw.contract import RobotContract
from robo_rm_bridge.conversions import MessageError, latched_qos, qos, seconds, sensor_qos
from robo_rm_bridge.pictures import picture_type, rgb_from_message
from robo_rm_bridge.sights import NamedVector, Sights


class Listener:
    """Keeps the newest joint state, picture of every camera and further input in ``sights``."""

    def __init__(
        self,
        node: Node,
        contract: RobotContract,
        vectors: list[NamedVector],
        max_age: float,
    ) -> None:
        self._node, self._contract = node, contract
        self.clock = SteadyClock()
        self.sights = Sights(contract, vectors, max_age)
        self.state = ""
        """The safety core's state, once it has told."""
        states = contract.joint_states
        node.create_subscription(JointState, states.name, self._on_joints, qos(states))
        for camera in contract.cameras:
            node.create_subscription(
                picture_type(camera.topic), camera.topic, self._image_handler(camera), sensor_qos()
            )
        for vector in vectors:
            node.create_subscription(JointState, vector.topic, self._vector_handler(vector), sensor_qos())
        node.create_subscription(DiagnosticArray, contract.status.name, self._on_status, latched_qos())

    def _on_joints(self, message: JointState) -> None:
        order = {name: place for place, name in enumerate(message.name)}
        names = self._contract.joint_names
        if any(name not in order for name in names) or len(message.position) != len(message.name):
            self._node.get_logger().warning("a joint state lacks joints of the contract", throttle_duration_sec=5.0)
            return
        positions = np.array([message.position[order[name]] for name in names])
        if np.isfinite(positions).all():
            self.sights.joints(list(names), positions, self.clock.now())

    def _image_handler(self, camera: Any) -> Callable[[Any], None]:
        def on_image(message: Any) -> None:
            try:
                rgb = rgb_from_message(message)
                if rgb.shape[:2] != (camera.height, camera.width):
                    raise MessageError(f"{rgb.shape[:2]} pixels, the contract has {(camera.height, camera.width)}")
            except MessageError as error:
                self._node.get_logger().error(f"camera {camera.name}: {error}", throttle_duration_sec=5.0)
                return
            self.sights.image(camera.name, rgb, self.clock.now())

        return on_image

    def _vector_handler(self, vector: NamedVector) -> Callable[[JointState], None]:
        def on_vector(message: JointState) -> None:
            values = np.array(message.position, dtype=np.float32)
            stamp = seconds(message.header.stamp)
            problem = self.sights.vector(vector.key, message.name, values, self.clock.now(), stamp)
            if problem is not None:
                self._node.get_logger().warning(problem, throttle_duration_sec=5.0)

        return on_vector

    def _on_status(self, message: DiagnosticArray) -> None:
        for status in message.status:
            for pair in status.values:
                if pair.key == "state":
                    self.state = pair.value
