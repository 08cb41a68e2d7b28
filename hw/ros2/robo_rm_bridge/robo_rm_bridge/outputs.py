"""Where commands go: a topic or an action, as the contract's command interface says, and the gripper's own action."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import numpy as np

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import HardwareError
from robo_hw.observation.states import Command
from robo_hw.safety.safety_core import SafetyCore
from robo_rm_bridge import commands

if TYPE_CHECKING:
    from control_msgs.action import FollowJointTrajectory, GripperCommand
    from rclpy.action import ActionClient
    from rclpy.node import Node
    from rclpy.qos import QoSProfile
    from rclpy.task import Future

_REFUSALS = 3
"""So many goals refused in a row mean that the controller does not take commands."""
_GRIPPER_STEP = 0.01
"""Of the gripper's range: a smaller change is not a new goal."""
_GRIPPER_PERIOD = 0.1
"""Seconds between two gripper goals."""
ABORTED = 6
"""`action_msgs/GoalStatus.STATUS_ABORTED`."""


class Output:
    """Takes every command of the core and gives it to the controller."""

    def send(self, core: SafetyCore, command: Command) -> None:
        """Give one command away; never waits."""
        raise NotImplementedError

    def problems(self) -> list[str]:
        """Why nothing would arrive, one line each."""
        return []

    def close(self) -> None:
        """Leave the graph."""


class TopicOutput(Output):
    """Messages on a topic; ``make`` turns a command into one."""

    def __init__(
        self, node: Node, kind: type, name: str, quality: QoSProfile, make: Callable[[SafetyCore, Command], object]
    ) -> None:
        self._node, self._make = node, make
        self._publisher = node.create_publisher(kind, name, quality)

    def send(self, core: SafetyCore, command: Command) -> None:
        """Publish one command."""
        self._publisher.publish(self._make(core, command))

    def close(self) -> None:
        """Leave the graph."""
        self._node.destroy_publisher(self._publisher)


class GoalOutput(Output):
    """Goals for an action; the newest replaces the one before.

    Args:
        client: an action client.
        name: of the action, for messages.
        stop: called with the reason where the controller refuses goals or gives the newest one up.
    """

    def __init__(self, client: ActionClient, name: str, stop: Callable[[str], None]) -> None:
        self._client, self._name, self._stop = client, name, stop
        self._sent = self._refused = 0

    def send_goal(self, goal: object) -> None:
        """Give a goal away; answers come later."""
        self._sent += 1
        number = self._sent
        self._client.send_goal_async(goal).add_done_callback(lambda future: self._answered(number, future))

    def problems(self) -> list[str]:
        """Whether there is no server."""
        return [] if self._client.server_is_ready() else [f"no action server at {self._name}; start the controller"]

    def close(self) -> None:
        """Leave the graph."""
        self._client.destroy()

    def _answered(self, number: int, future: Future) -> None:
        handle = future.result()
        if not handle.accepted:
            self._refused += 1
            if self._refused == _REFUSALS:
                self._stop(f"{self._name} refused {_REFUSALS} goals in a row; is the controller active?")
            return
        self._refused = 0
        handle.get_result_async().add_done_callback(lambda result: self._ended(number, result))

    def _ended(self, number: int, future: Future) -> None:
        answer = future.result()
        # A goal that the next one replaced ends as aborted on some controllers: only the newest counts.
        if answer.status != ABORTED or number != self._sent:
            return
        text = getattr(answer.result, "error_string", "") or getattr(answer.result, "error_code", "")
        self._stop(f"{self._name} gave the goal up: {text or 'no reason given'}")


class TrajectoryGoals(GoalOutput):
    """`control_msgs/action/FollowJointTrajectory` at the control rate, each with its stop plan."""

    def __init__(
        self,
        client: ActionClient,
        kind: type[FollowJointTrajectory],
        name: str,
        stop: Callable[[str], None],
        time_from_start: float,
    ) -> None:
        super().__init__(client, name, stop)
        self._kind, self._time_from_start = kind, time_from_start

    def send(self, core: SafetyCore, command: Command) -> None:
        """Send a goal for one command."""
        goal = self._kind.Goal()
        goal.trajectory = commands.trajectory(core, command, self._time_from_start)
        self.send_goal(goal)


class GripperGoals(GoalOutput):
    """`control_msgs/action/GripperCommand`: a goal where the gripper's command changed, not one for every tick."""

    def __init__(
        self, client: ActionClient, kind: type[GripperCommand], contract: RobotContract, stop: Callable[[str], None]
    ) -> None:
        assert contract.gripper is not None
        assert contract.gripper_command is not None
        super().__init__(client, contract.gripper_command.name, stop)
        self._kind = kind
        self._effort = contract.gripper_command.max_effort
        self._place = contract.joint_names.index(contract.gripper.joint)
        self._step = _GRIPPER_STEP * abs(contract.gripper.open - contract.gripper.closed)
        self._last: float | None = None
        self._last_at = -np.inf

    def send(self, core: SafetyCore, command: Command) -> None:
        """Send a goal where the gripper's position changed."""
        position = float(command.positions[self._place])
        resting = not command.velocities[self._place]
        changed = self._last is None or abs(position - self._last) >= self._step
        # The end of a motion is sent however small the step to it is, or the gripper would stay beside it.
        if not (changed or (resting and position != self._last)) or command.time - self._last_at < _GRIPPER_PERIOD:
            return
        self._last, self._last_at = position, command.time
        goal = self._kind.Goal()
        goal.command.position, goal.command.max_effort = position, float(self._effort)
        self.send_goal(goal)


def make_outputs(
    node: Node,
    contract: RobotContract,
    time_from_start: float,
    measured: Callable[[], np.ndarray | None],
    stop: Callable[[str], None],
) -> list[Output]:
    """The outputs that a contract asks for.

    Args:
        node: what publishers and clients belong to.
        contract: names topics and interfaces.
        time_from_start: s from receipt in which a controller shall reach a command.
        measured: the newest joint positions (D,).
        stop: called with the reason where a controller refuses goals or gives one up.

    Raises:
        HardwareError: control_msgs is needed and not installed.
    """
    outputs: list[Output] = []
    command, interface = contract.command, contract.command_interface
    key = f"topics.command.interface: {interface}"
    if interface == "follow_joint_trajectory":
        kind = _control_msgs("action", "FollowJointTrajectory", key)
        client = _action_client(node, kind, command.name)
        outputs.append(TrajectoryGoals(client, kind, command.name, stop, time_from_start))
    else:
        outputs.append(_topic_output(node, contract, key, time_from_start, measured))
    if contract.gripper_command is not None:
        kind = _control_msgs("action", "GripperCommand", "topics.command.gripper")
        client = _action_client(node, kind, contract.gripper_command.name)
        outputs.append(GripperGoals(client, kind, contract, stop))
    return outputs


def _topic_output(
    node: Node, contract: RobotContract, key: str, time_from_start: float, measured: Callable[[], np.ndarray | None]
) -> Output:
    from std_msgs.msg import Float64MultiArray
    from trajectory_msgs.msg import JointTrajectory

    from robo_rm_bridge.conversions import qos

    period = 1.0 / contract.rates.control

    def forward(core: SafetyCore, command: Command) -> object:
        return commands.forward(contract, command)

    def trajectory(core: SafetyCore, command: Command) -> object:
        return commands.trajectory(core, command, time_from_start)

    def jog(core: SafetyCore, command: Command) -> object:
        velocities = commands.jog_velocities(contract, command, measured())
        return commands.joint_jog(kind, contract, velocities.tolist(), node.get_clock().now().to_msg(), period)

    kind, make = {
        "joint_trajectory": (JointTrajectory, trajectory),
        "forward_command": (Float64MultiArray, forward),
        "joint_jog": (None, jog),
    }[contract.command_interface]
    if kind is None:
        kind = _control_msgs("msg", "JointJog", key)
    return TopicOutput(node, kind, contract.command.name, qos(contract.command), make)


def _action_client(node: Node, kind: type, name: str) -> ActionClient:
    from rclpy.action import ActionClient

    return ActionClient(node, kind, name)


def _control_msgs(part: str, name: str, key: str) -> type:
    try:
        return cast(type, getattr(importlib.import_module(f"control_msgs.{part}"), name))
    except ImportError as error:
        raise HardwareError(
            f"{key} needs control_msgs.{part}.{name}, and the package control_msgs cannot be imported ({error}): "
            "install ros-$ROS_DISTRO-control-msgs"
        ) from None
    except AttributeError:
        raise HardwareError(f"{key}: the installed control_msgs has no {part}.{name}; update it") from None
