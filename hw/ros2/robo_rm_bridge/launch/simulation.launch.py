"""The simulated arm, the policy node and the monitor: everything without hardware.

ros2 launch robo_rm_bridge simulation.launch.py, beside robo-rm serve-policy contract=tidy_drawer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.substitutions import FindPackageShare

from robo_rm_bridge.launching import given

if TYPE_CHECKING:
    from launch import LaunchContext

VECTORS = {"vectors": ["observation.environment_state=environment_state"]}


def generate_launch_description() -> LaunchDescription:
    """Three nodes; the policy's contract is the simulated arm's, its environment state comes from the simulation."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("policy_address", default_value="", description="empty: as config/policy.yaml says"),
            DeclareLaunchArgument("autostart", default_value="true", description="configure and activate by itself"),
            DeclareLaunchArgument("monitor", default_value="false", description="true where a reward model is served"),
            DeclareLaunchArgument("namespace", default_value="", description="of all nodes"),
            OpaqueFunction(function=start),
        ]
    )


def start(context: LaunchContext) -> list[Node]:
    """The nodes, with the arguments that are given."""
    share = FindPackageShare("robo_rm_bridge")

    def value(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    def params(name: str) -> PathJoinSubstitution:
        return PathJoinSubstitution([share, "config", name])

    address = given({"policy_address": value("policy_address")})
    started = given({"autostart": value("autostart")})
    common = {"package": "robo_rm_bridge", "namespace": value("namespace"), "output": "screen"}
    nodes = [
        Node(executable="mujoco_arm_node", name="mujoco_arm", parameters=[params("mujoco_arm.yaml")], **common),
        LifecycleNode(
            executable="policy_node",
            name="robo_rm_policy",
            parameters=[params("policy.yaml"), VECTORS, {**address, **started}],
            **common,
        ),
    ]
    if value("monitor").lower() == "true":
        nodes.append(
            Node(
                executable="monitor_node",
                name="robo_rm_monitor",
                parameters=[params("monitor.yaml"), VECTORS, address],
                **common,
            )
        )
    return nodes
