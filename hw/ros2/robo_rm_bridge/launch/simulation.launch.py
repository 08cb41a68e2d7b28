"""The simulated arm, the policy node and the monitor: everything without hardware.

ros2 launch robo_rm_bridge simulation.launch.py, beside robo-rm serve-policy contract=tidy_drawer.
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """Three nodes; the policy's contract is the simulated arm's, its environment state comes from the simulation."""
    share = FindPackageShare("robo_rm_bridge")

    def params(name: str) -> PathJoinSubstitution:
        return PathJoinSubstitution([share, "config", name])

    address = {"policy_address": LaunchConfiguration("policy_address")}
    vectors = {"vectors": ["observation.environment_state=/environment_state"]}
    common = {"package": "robo_rm_bridge", "output": "screen"}
    return LaunchDescription(
        [
            DeclareLaunchArgument("policy_address", default_value="unix:/tmp/robo-rm-policy.sock"),
            DeclareLaunchArgument("monitor", default_value="false", description="true where a reward model is served"),
            Node(executable="mujoco_arm_node", name="mujoco_arm", parameters=[params("mujoco_arm.yaml")], **common),
            LifecycleNode(
                executable="policy_node",
                name="robo_rm_policy",
                namespace="",
                parameters=[params("policy.yaml"), address, vectors, {"autostart": True}],
                **common,
            ),
            Node(
                executable="monitor_node",
                name="robo_rm_monitor",
                condition=IfCondition(LaunchConfiguration("monitor")),
                parameters=[params("monitor.yaml"), address, vectors],
                **common,
            ),
        ]
    )
