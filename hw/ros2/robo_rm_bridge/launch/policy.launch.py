"""The policy node behind its safety core, for a real arm.

ros2 launch robo_rm_bridge policy.launch.py contract:=my.yaml, beside robo-rm serve-policy contract=my.yaml.
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """One lifecycle node; parameters from a file, the two that everybody changes as arguments."""
    share = FindPackageShare("robo_rm_bridge")
    return LaunchDescription(
        [
            DeclareLaunchArgument("params", default_value=PathJoinSubstitution([share, "config", "policy.yaml"])),
            DeclareLaunchArgument("contract", description="the robot contract: a YAML file or a packaged example"),
            DeclareLaunchArgument("policy_address", default_value="unix:/tmp/robo-rm-policy.sock"),
            LifecycleNode(
                package="robo_rm_bridge",
                executable="policy_node",
                name="robo_rm_policy",
                namespace="",
                output="screen",
                parameters=[
                    LaunchConfiguration("params"),
                    {
                        "contract": LaunchConfiguration("contract"),
                        "policy_address": LaunchConfiguration("policy_address"),
                    },
                ],
            ),
        ]
    )
