"""What a simulated arm says of its joints: on one topic, or split among several as drivers do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState

from robo_hw.contract.robot_contract import RobotContract
from robo_rm_bridge.conversions import joint_state, qos
from robo_rm_bridge.nodes import helper_node

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time


class JointStateTopics:
    """All joints on the contract's only topic; with two topics the gripper speaks on the second."""

    def __init__(self, node: Node, contract: RobotContract) -> None:
        self._publishers = [node.create_publisher(JointState, t.name, qos(t)) for t in contract.joint_states]
        names = dict(zip(contract.joint_names, contract.state_names, strict=True))
        split = len(self._publishers) > 1 and contract.gripper is not None
        self._apart = names[contract.gripper.joint] if split and contract.gripper is not None else None

    def publish(self, names: tuple[str, ...], positions: np.ndarray, velocities: np.ndarray, stamp: Time) -> None:
        """Publish positions and velocities (D,) of the joints named."""
        first = [index for index, name in enumerate(names) if name != self._apart]
        parts = [first, [index for index, name in enumerate(names) if name == self._apart]]
        for publisher, part in zip(self._publishers, parts, strict=False):
            if part:
                chosen = tuple(names[index] for index in part)
                publisher.publish(joint_state(chosen, positions[part], velocities[part], stamp))


class StrayPublisher:
    """Another node that says zeros where the arm speaks, such as a joint_state_publisher that was left running."""

    def __init__(self, node: Node, contract: RobotContract) -> None:
        self._node = helper_node("stray_joint_state_publisher", node.get_namespace())
        topic = contract.joint_states[0]
        name = node.resolve_topic_name(topic.name)
        self._publisher = self._node.create_publisher(JointState, name, qos(topic))

    def publish(self, names: tuple[str, ...], stamp: Time) -> None:
        """Publish zeros."""
        self._publisher.publish(joint_state(names, np.zeros(len(names)), np.zeros(len(names)), stamp))

    def close(self) -> None:
        """Leave the graph."""
        self._node.destroy_node()
