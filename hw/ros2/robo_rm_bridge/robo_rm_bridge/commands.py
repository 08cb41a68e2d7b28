"""The core's commands as messages: trajectories, positions, joint jogs, and gripper goals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.observation.states import Command
from robo_hw.safety.safety_core import SafetyCore

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time
    from control_msgs.msg import JointJog
    from std_msgs.msg import Float64MultiArray
    from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

_TAIL_STEP = 0.05
"""Seconds between the points of the braking tail."""
_JOG_GAIN = 2.0
"""1/s: how fast a jog takes back that the arm lags behind its command."""
_JOG_FRACTION = 0.2
"""Of a joint's velocity limit: the most that is given to taking back."""


def arm_joints(contract: RobotContract) -> list[int]:
    """Places of the joints on the command topic or action: all, or all but a gripper with an output of its own."""
    gripper = contract.gripper.joint if contract.gripper is not None and contract.gripper_command is not None else None
    return [index for index, name in enumerate(contract.joint_names) if name != gripper]


def trajectory(core: SafetyCore, command: Command, time_from_start: float) -> JointTrajectory:
    """The command as the first point, due ``time_from_start`` s from receipt, and behind it the core's stop plan.

    So a controller that hears nothing more brakes inside the limits and rests; and the last point has velocity zero,
    which the controller demands since Iron. The stamp is zero, "from now on": clocks of two machines never agree.
    """
    from trajectory_msgs.msg import JointTrajectory

    places = arm_joints(core.contract)
    message = JointTrajectory(joint_names=[core.contract.joint_names[place] for place in places])
    points = [_point(time_from_start, command.positions[places], command.velocities[places])]
    points += [_point(time_from_start + moment, q[places], v[places]) for moment, q, v in core.braking(_TAIL_STEP)]
    message.points = points
    return message


def forward(contract: RobotContract, command: Command) -> Float64MultiArray:
    """The command's positions in the contract's joint order."""
    from std_msgs.msg import Float64MultiArray

    return Float64MultiArray(data=command.positions[arm_joints(contract)].tolist())


def jog_velocities(contract: RobotContract, command: Command, measured: np.ndarray | None) -> np.ndarray:
    """Velocities (D,) that bring the arm from ``measured`` (D,) onto the command; inside the velocity limits.

    A jog says how fast, not where to: without the measured pose every lost message would stay as an error permanently.
    """
    limit = contract.array("velocity")
    correction = np.zeros_like(limit)
    if measured is not None:
        error = command.positions - measured
        # Continuous joints come back the short way round.
        turns = np.array([joint.kind == "continuous" for joint in contract.joints])
        error = np.where(turns, (error + np.pi) % (2 * np.pi) - np.pi, error)
        correction = np.clip(_JOG_GAIN * error, -_JOG_FRACTION * limit, _JOG_FRACTION * limit)
    return np.clip(command.velocities + correction, -limit, limit)


def joint_jog(
    kind: type[JointJog], contract: RobotContract, velocities: Sequence[float], stamp: Time, duration: float
) -> JointJog:
    """A `control_msgs/JointJog` (``kind``) with velocities (D,) for ``duration`` s; MoveIt Servo drops old stamps."""
    places = arm_joints(contract)
    message = kind()
    message.header.stamp = stamp
    message.joint_names = [contract.joint_names[place] for place in places]
    message.velocities = [float(velocities[place]) for place in places]
    message.displacements = []
    message.duration = duration
    return message


def _point(moment: float, positions: np.ndarray, velocities: np.ndarray) -> JointTrajectoryPoint:
    from builtin_interfaces.msg import Duration
    from trajectory_msgs.msg import JointTrajectoryPoint

    nanoseconds = round(moment * 1e9)
    return JointTrajectoryPoint(
        positions=positions.tolist(),
        velocities=velocities.tolist(),
        time_from_start=Duration(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000),
    )
