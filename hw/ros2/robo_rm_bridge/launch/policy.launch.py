"""The policy node behind its safety core, for a real arm.

ros2 launch robo_rm_bridge policy.launch.py params:=my_policy.yaml contract:=my.yaml, beside robo-rm serve-policy.

An argument that is given wins over the file of parameters, which wins over the defaults. Two arms:
ros2 launch ... namespace:=left and ros2 launch ... namespace:=right, with relative topic names in their contracts.
"""

from __future__ import annotations

from typing import Any

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.substitutions import FindPackageShare

from robo_rm_bridge.launching import given, remappings

PARAMETERS = {
    "contract": "the robot contract: a YAML file or a packaged example",
    "policy_address": "where robo-rm serve-policy listens",
    "policy_certificates": "for tls://: this computer's folder of robo-rm make-certificates",
    "autostart": "true: configure at start, activate when a policy that fits is connected",
    "task": "the instruction given to the policy",
}


def generate_launch_description() -> LaunchDescription:
    """One lifecycle node; empty arguments leave a parameter to the file."""
    share = FindPackageShare("robo_rm_bridge")
    arguments = [
        DeclareLaunchArgument(name, default_value="", description=f"{text}; empty: as the file of parameters says")
        for name, text in PARAMETERS.items()
    ]
    return LaunchDescription(
        [
            DeclareLaunchArgument("params", default_value=PathJoinSubstitution([share, "config", "policy.yaml"])),
            *arguments,
            DeclareLaunchArgument("namespace", default_value="", description="of the node, such as left"),
            DeclareLaunchArgument("remap", default_value="", description="/from:=/to, several separated by commas"),
            OpaqueFunction(function=start),
        ]
    )


def start(context: Any) -> list[Any]:
    """The node, with the arguments that are given."""

    def value(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    return [
        LifecycleNode(
            package="robo_rm_bridge",
            executable="policy_node",
            name="robo_rm_policy",
            namespace=value("namespace"),
            output="screen",
            remappings=remappings(value("remap")),
            parameters=[value("params"), given({name: value(name) for name in PARAMETERS})],
        )
    ]
