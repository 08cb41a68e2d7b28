"""What the launch files share: arguments that count only where they are given, over a file of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from robo_hw.errors import HardwareError

if TYPE_CHECKING:
    # The type checker finds the folder of launch files under this name.
    from launch import LaunchContext, LaunchDescription  # type: ignore[attr-defined]
    from launch_ros.actions import Node

_TRUTHS = {"true": True, "false": False}


def given(values: Mapping[str, str]) -> dict[str, bool | str]:
    """Parameters for a node out of launch arguments: those that are not empty; true and false as such."""
    return {name: _TRUTHS.get(value.lower(), value) for name, value in values.items() if value}


def remappings(text: str) -> list[tuple[str, str]]:
    """``from:=to`` pairs, separated by commas or spaces, as launch takes them.

    Raises:
        HardwareError: an entry has another form.
    """
    pairs = []
    for entry in text.replace(",", " ").split():
        source, arrow, target = entry.partition(":=")
        if not arrow or not source or not target:
            raise HardwareError(f"launch argument remap: {entry!r} is not of the form /from:=/to")
        pairs.append((source, target))
    return pairs


def single_node(kind: type[Node], executable: str, name: str, parameters: Mapping[str, str]) -> LaunchDescription:
    """One node of this package, with a file of parameters, a namespace and remappings.

    Each of ``parameters`` (name -> what it is) is a launch argument; an empty one leaves it to the file. ``kind``: of
    the node in launch_ros.
    """
    # Here, because this module is also used where there is no ROS.
    from launch import LaunchDescription  # type: ignore[attr-defined]
    from launch.actions import DeclareLaunchArgument, OpaqueFunction
    from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
    from launch_ros.substitutions import FindPackageShare

    def start(context: LaunchContext) -> list[Node]:
        def value(argument: str) -> str:
            return str(LaunchConfiguration(argument).perform(context))

        return [
            kind(
                package="robo_rm_bridge",
                executable=executable,
                name=name,
                namespace=value("namespace"),
                output="screen",
                remappings=remappings(value("remap")),
                parameters=[value("params"), given({parameter: value(parameter) for parameter in parameters})],
            )
        ]

    config = f"{executable.removesuffix('_node')}.yaml"
    file = PathJoinSubstitution([FindPackageShare("robo_rm_bridge"), "config", config])
    return LaunchDescription(
        [
            DeclareLaunchArgument("params", default_value=file),
            *(
                DeclareLaunchArgument(argument, default_value="", description=f"{text}; empty: as the file says")
                for argument, text in parameters.items()
            ),
            DeclareLaunchArgument("namespace", default_value="", description="of the node, such as left"),
            DeclareLaunchArgument("remap", default_value="", description="/from:=/to, several separated by commas"),
            OpaqueFunction(function=start),
        ]
    )
