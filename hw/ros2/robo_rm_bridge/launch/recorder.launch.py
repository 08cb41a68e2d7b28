"""The recorder: ros2 launch robo_rm_bridge recorder.launch.py store:=demos.zarr contract:=my.yaml.

An argument that is given wins over the file of parameters, which wins over the defaults.
"""

from __future__ import annotations

from launch import LaunchDescription
from launch_ros.actions import Node

from robo_rm_bridge.launching import single_node

PARAMETERS = {
    "contract": "the robot contract: a YAML file or a packaged example",
    "store": "demo store",
    "bag": "folder for bags",
    "task": "the instruction that is being done",
}


def generate_launch_description() -> LaunchDescription:
    """One node; ~/start begins an episode, ~/save and ~/discard end it."""
    return single_node(Node, "recorder_node", "robo_rm_recorder", PARAMETERS)
