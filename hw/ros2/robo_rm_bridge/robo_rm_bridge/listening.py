"""Listening to the robot without commanding it: what recorder and monitor share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.observation.joint_states import JointStates
from robo_hw.observation.observation_buffer import NamedVector
from robo_hw.safety.clock import SteadyClock
from robo_rm_bridge.conversions import latched_qos
from robo_rm_bridge.inputs import Inputs


class Listener:
    """Keeps the newest joint state, image of every camera and further input in ``buffer``; call ``poll`` often."""

    def __init__(
        self,
        node: Node,
        contract: RobotContract,
        vectors: list[NamedVector],
        max_age: float,
    ) -> None:
        self._node, self._contract = node, contract
        self.clock = SteadyClock()
        self._states = JointStates(contract)
        self.state = ""
        """The safety core's state, once it was reported."""
        self._inputs = Inputs(node, contract, vectors, max_age, self.clock, self._take_joints, self._take_image)
        self.buffer = self._inputs.buffer
        node.create_subscription(DiagnosticArray, contract.status.name, self._on_status, latched_qos())

    def poll(self) -> None:
        """Take the images that have come; returns at once."""
        self._inputs.poll()

    def close(self) -> None:
        """End the cameras' process."""
        self._inputs.close()

    def _take_joints(
        self,
        names: Sequence[str],
        positions: np.ndarray,
        velocities: Sequence[float] | None,
        stamp: float | None,
        topic: str,
    ) -> tuple[np.ndarray, float] | None:
        now = self.clock.now()
        reading = self._states.take(now, names, positions, velocities, stamp, topic, armed=False, lenient=True)
        if reading.message:
            self._node.get_logger().warning(reading.message, throttle_duration_sec=5.0)
        if not reading.fresh:
            return None
        if self._states.age(now) > self._contract.deadlines.joint_states:
            problem = "; ".join(self._states.reasons(now))
            self._node.get_logger().warning(problem, throttle_duration_sec=5.0)
            return None
        return self._states.measured.copy(), self._states.oldest

    def _take_image(self, camera: str, digest: int, stamp: float | None) -> bool:
        return True

    def _on_status(self, message: DiagnosticArray) -> None:
        for status in message.status:
            for pair in status.values:
                if pair.key == "state":
                    self.state = pair.value
