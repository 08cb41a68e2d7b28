"""The core's commands as messages for `joint_trajectory_controller` and `forward_command_controller`."""

from __future__ import annotations

from typing import Any

from builtin_interfaces.msg import Duration
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from robo_hw.contract import RobotContract
from robo_hw.safety_core import SafetyCore
from robo_hw.states import Command

_TAIL_STEP = 0.05
"""Seconds between the points of the braking tail."""


def message_type(contract: RobotContract) -> Any:
    """The type of the contract's command topic."""
    return JointTrajectory if contract.command_interface == "joint_trajectory" else Float64MultiArray


def trajectory(core: SafetyCore, command: Command, lead: float) -> JointTrajectory:
    """The command as the first point, ``lead`` s from receipt, and behind it the core's stop plan down to rest.

    So a controller that hears nothing more brakes inside the limits and rests; and the last point has velocity zero,
    which the controller demands since Iron. The stamp is zero, "from now on": clocks of two machines never agree.
    """
    message = JointTrajectory(joint_names=list(core.contract.joint_names))
    points = [_point(lead, command.positions, command.velocities)]
    points += [_point(lead + moment, q, v) for moment, q, v in core.braking(_TAIL_STEP)]
    message.points = points
    return message


def forward(command: Command) -> Float64MultiArray:
    """The command's positions in the contract's joint order."""
    return Float64MultiArray(data=command.positions.tolist())


def _point(moment: float, positions: Any, velocities: Any) -> JointTrajectoryPoint:
    nanoseconds = round(moment * 1e9)
    return JointTrajectoryPoint(
        positions=positions.tolist(),
        velocities=velocities.tolist(),
        time_from_start=Duration(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000),
    )
