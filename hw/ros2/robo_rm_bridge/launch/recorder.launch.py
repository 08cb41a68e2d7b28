"""The recorder: ros2 launch robo_rm_bridge recorder.launch.py store:=demos.zarr contract:=my.yaml.

An argument that is given wins over the file of parameters, which wins over the defaults.
"""

from __future__ import annotations

from typing import Any

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from robo_rm_bridge.launching import given, remappings

PARAMETERS = {
    "contract": "the robot contract: a YAML file or a packaged example",
    "store": "demo store",
    "bag": "folder for bags",
    "task": "the instruction that is being done",
}


def generate_launch_description() -> LaunchDescription:
    """One node; ~/start begins an episode, ~/save and ~/discard end it."""
    share = FindPackageShare("robo_rm_bridge")
    arguments = [
        DeclareLaunchArgument(name, default_value="", description=f"{text}; empty: as the file of parameters says")
        for name, text in PARAMETERS.items()
    ]
    return LaunchDescription(
        [
            DeclareLaunchArgument("params", default_value=PathJoinSubstitution([share, "config", "recorder.yaml"])),
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
        Node(
            package="robo_rm_bridge",
            executable="recorder_node",
            name="robo_rm_recorder",
            namespace=value("namespace"),
            output="screen",
            remappings=remappings(value("remap")),
            parameters=[value("params"), given({name: value(name) for name in PARAMETERS})],
        )
    ]
