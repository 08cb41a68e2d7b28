"""Listening to the robot without commanding it: what recorder and monitor share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from robo_hw.clock import SteadyClock
from robo_hw.contract import RobotContract
from robo_hw.observation_buffer import NamedVector
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
        self._places = {name: place for place, name in enumerate(contract.state_names)}
        self._positions = np.full(len(self._places), np.nan)
        self._heard = np.full(len(self._places), -np.inf)
        self.state = ""
        """The safety core's state, once it has told."""
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
    ) -> np.ndarray | None:
        now = self.clock.now()
        if len(positions) != len(names):
            problem = f"a joint state on {topic} has {len(positions)} positions for {len(names)} names"
            self._node.get_logger().warning(problem, throttle_duration_sec=5.0)
            return None
        for name, position in zip(names, positions, strict=True):
            place = self._places.get(name)  # wheels and other joints are none of ours
            if place is not None and np.isfinite(position):
                self._positions[place], self._heard[place] = position, now
        late = now - self._heard > self._contract.deadlines.joint_states
        if late.any():
            lacking = ", ".join(name for name, place in self._places.items() if late[place])
            problem = f"joint states are missing or old for {lacking}"
            self._node.get_logger().warning(problem, throttle_duration_sec=5.0)
            return None
        return self._positions.copy()

    def _take_image(self, camera: str, digest: int, stamp: float | None) -> bool:
        return True

    def _on_status(self, message: DiagnosticArray) -> None:
        for status in message.status:
            for pair in status.values:
                if pair.key == "state":
                    self.state = pair.value
