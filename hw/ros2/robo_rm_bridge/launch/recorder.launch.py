"""The recorder: ros2 launch robo_rm_bridge recorder.launch.py store:=demos.zarr contract:=my.yaml."""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """One node; ~/start begins an episode, ~/save and ~/discard end it."""
    share = FindPackageShare("robo_rm_bridge")
    return LaunchDescription(
        [
            DeclareLaunchArgument("params", default_value=PathJoinSubstitution([share, "config", "recorder.yaml"])),
            DeclareLaunchArgument("contract", description="the robot contract: a YAML file or a packaged example"),
            DeclareLaunchArgument("store", default_value="", description="demo store; empty: none"),
            DeclareLaunchArgument("bag", default_value="", description="folder for bags; empty: none"),
            Node(
                package="robo_rm_bridge",
                executable="recorder_node",
                name="robo_rm_recorder",
                output="screen",
                parameters=[
                    LaunchConfiguration("params"),
                    {name: LaunchConfiguration(name) for name in ("contract", "store", "bag")},
                ],
            ),
        ]
    )
