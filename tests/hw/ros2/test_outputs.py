"""Outputs that need control_msgs, against stand-ins with the same fields: no wheel of control_msgs exists.

The stand-ins copy `control_msgs` 4 and 5: action/FollowJointTrajectory, action/GripperCommand, msg/JointJog.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from robo_hw import ActionChunk, ManualClock, RobotContract, SafetyCore
from robo_hw.errors import HardwareError
from robo_rm_bridge import commands, outputs


class Slots:
    """A message: it has its fields and refuses others, as ROS's do."""

    def __init__(self, **fields: Any) -> None:
        object.__setattr__(self, "_fields", set(fields))
        for name, value in fields.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in self._fields, f"no field {name}"
        object.__setattr__(self, name, value)


def joint_jog() -> Slots:
    header = Slots(stamp=None, frame_id="")
    return Slots(header=header, joint_names=[], displacements=[], velocities=[], duration=0.0)


class FollowJointTrajectory:
    @staticmethod
    def Goal() -> Slots:
        return Slots(
            trajectory=None,
            multi_dof_trajectory=None,
            path_tolerance=[],
            component_path_tolerance=[],
            goal_tolerance=[],
            component_goal_tolerance=[],
            goal_time_tolerance=None,
        )


class GripperCommand:
    @staticmethod
    def Goal() -> Slots:
        return Slots(command=Slots(position=0.0, max_effort=0.0))


class Message(SimpleNamespace):
    """A message of a package that is not installed here."""


class Future:
    """Done at once, or when ``finish`` is called."""

    def __init__(self) -> None:
        self.callbacks: list[Any] = []

    def add_done_callback(self, callback: Any) -> None:
        self.callbacks.append(callback)

    def finish(self, value: Any) -> None:
        self.value = value
        for callback in self.callbacks:
            callback(self)

    def result(self) -> Any:
        return self.value


class Client:
    """An action client whose server is this test."""

    def __init__(self) -> None:
        self.goals: list[tuple[Any, Future]] = []
        self.ready, self.destroyed = True, False

    def send_goal_async(self, goal: Any) -> Future:
        self.goals.append((goal, Future()))
        return self.goals[-1][1]

    def server_is_ready(self) -> bool:
        return self.ready

    def destroy(self) -> None:
        self.destroyed = True

    def accept(self, number: int) -> Future:
        ended = Future()
        self.goals[number][1].finish(SimpleNamespace(accepted=True, get_result_async=lambda: ended))
        return ended

    def refuse(self, number: int) -> None:
        self.goals[number][1].finish(SimpleNamespace(accepted=False))


@pytest.fixture
def messages(monkeypatch):
    """trajectory_msgs and builtin_interfaces, whose wheels are in another Python."""
    for package, names in {
        "builtin_interfaces": ("Duration", "Time"),
        "trajectory_msgs": ("JointTrajectory", "JointTrajectoryPoint"),
        "std_msgs": ("Float64MultiArray",),
    }.items():
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
        module = ModuleType(f"{package}.msg")
        for name in names:
            setattr(module, name, Message)
        monkeypatch.setitem(sys.modules, f"{package}.msg", module)


def contract(interface: str, gripper: bool = False) -> RobotContract:
    data = RobotContract.load("tidy_drawer").to_dict()
    data["topics"]["command"]["interface"] = interface
    if gripper:
        data["topics"]["command"]["gripper"] = {"name": "/gripper/gripper_cmd", "max_effort": 12.0}
    return RobotContract.from_dict(data)


def moving(robot: RobotContract, ticks: int = 12) -> tuple[SafetyCore, list[Any]]:
    """A core in motion and its commands."""
    clock = ManualClock(100.0)
    core = SafetyCore(robot, clock)
    position, sent = np.array([0.1, -0.2, 0.3, 0.0, 1.0, 0.0, 0.5]), []
    for number in range(ticks + 20):
        clock.advance(1 / robot.rates.control)
        core.observe(robot.joint_names, position, np.zeros(7), clock.now())
        for camera in robot.cameras:
            core.observe_camera(camera.name, number, clock.now())
        if number == 19:
            core.arm()
            core.tick()
            actions = position + np.linspace(0, 0.2, 20)[:, None] * np.ones(7)
            assert core.submit(ActionChunk(actions, robot.joint_names, core.epoch, 1, clock.now())).accepted
        command = core.tick()
        if command is not None:
            position = command.positions
            sent.append(command)
    return core, sent


def goals(client: Client, robot: RobotContract, told: list[str]) -> outputs.TrajectoryGoals:
    return outputs.TrajectoryGoals(client, FollowJointTrajectory, robot.command.name, told.append, 0.02)


# FollowJointTrajectory


def test_a_goal_is_the_command_and_its_stop_plan(messages):
    robot, client, told = contract("follow_joint_trajectory"), Client(), []
    core, sent = moving(robot)
    output = goals(client, robot, told)
    output.send(core, sent[-1])
    trajectory = client.goals[0][0].trajectory
    assert tuple(trajectory.joint_names) == robot.joint_names
    assert trajectory.points[0].positions == sent[-1].positions.tolist()
    assert trajectory.points[0].time_from_start.nanosec == 20_000_000
    assert len(trajectory.points) > 1
    assert not any(trajectory.points[-1].velocities), "it comes to rest"
    assert output.problems() == []
    client.ready = False
    assert output.problems() == [f"no action server at {robot.command.name}; start the controller"]
    output.close()
    assert client.destroyed


def test_a_replaced_goal_may_end_as_it_likes_and_the_newest_stops_the_arm(messages):
    robot, client, told = contract("follow_joint_trajectory"), Client(), []
    core, sent = moving(robot)
    output = goals(client, robot, told)
    for command in sent[-3:]:
        output.send(core, command)
    ends = [client.accept(number) for number in range(3)]
    aborted = SimpleNamespace(
        status=outputs.ABORTED, result=SimpleNamespace(error_code=-4, error_string="path tolerance")
    )
    ends[0].finish(aborted)
    ends[1].finish(SimpleNamespace(status=5, result=SimpleNamespace(error_code=0, error_string="")))
    assert told == []
    ends[2].finish(aborted)
    assert told == [f"{robot.command.name} gave the goal up: path tolerance"]


def test_goals_refused_in_a_row_stop_the_arm_and_one_alone_does_not(messages):
    robot, client, told = contract("follow_joint_trajectory"), Client(), []
    core, sent = moving(robot)
    output = goals(client, robot, told)
    for command in sent[-6:]:
        output.send(core, command)
    client.refuse(0)
    client.refuse(1)
    client.accept(2)
    client.refuse(3)
    client.refuse(4)
    assert told == []
    client.refuse(5)
    assert told == [f"{robot.command.name} refused 3 goals in a row; is the controller active?"]


# The gripper's own action


def test_the_gripper_leaves_the_arms_command_and_gets_goals_where_it_changes(messages):
    robot, client, told = contract("joint_trajectory", gripper=True), Client(), []
    core, sent = moving(robot, ticks=90)
    trajectory = commands.trajectory(core, sent[-1], 0.02)
    assert "gripper" not in trajectory.joint_names
    assert len(trajectory.points[0].positions) == 6
    output = outputs.GripperGoals(client, GripperCommand, robot, told.append)
    for command in sent:
        output.send(core, command)
    positions = [goal.command.position for goal, _ in client.goals]
    assert 3 <= len(positions) <= len(sent) * 0.02 / 0.1 + 2, "not one for every tick"
    assert positions == sorted(positions)
    assert positions[0] == sent[0].positions[6]
    assert positions[-1] == sent[-1].positions[6], "the end is sent"
    assert client.goals[0][0].command.max_effort == 12.0


# Joint jog


def test_a_jog_has_velocities_that_follow_the_command_and_take_back_what_was_lost(messages):
    robot = contract("joint_jog", gripper=True)
    _, sent = moving(robot)
    command, limit = sent[-1], robot.array("velocity")
    on_course = commands.jog_velocities(robot, command, command.positions)
    assert np.allclose(on_course, command.velocities)
    behind = commands.jog_velocities(robot, command, command.positions - 0.1)
    assert np.allclose(behind, np.clip(command.velocities + 0.2, -limit, limit))
    far = commands.jog_velocities(robot, command, command.positions - 50.0)
    assert (np.abs(far) <= limit).all()
    message = commands.joint_jog(joint_jog, robot, far.tolist(), "now", 0.02)
    assert tuple(message.joint_names) == robot.joint_names[:-1]
    assert len(message.velocities) == 6
    assert message.duration == 0.02
    assert message.header.stamp == "now"


def test_an_arm_that_only_jogs_arrives_where_it_was_commanded_though_messages_are_lost(messages):
    robot = contract("joint_jog")
    _, sent = moving(robot, ticks=250)
    random, position = np.random.default_rng(3), sent[0].positions.copy()
    for command in sent:
        if random.random() > 0.2:
            position = position + commands.jog_velocities(robot, command, position) * 0.02
    assert np.abs(position - sent[-1].positions).max() < 0.01


def test_a_continuous_joint_is_jogged_the_short_way_round(messages):
    data = RobotContract.load("tidy_drawer").to_dict()
    data["joints"][0] |= {"kind": "continuous"}
    for key in ("position", "saturate", "state_jump", "action_jump", "arm_tolerance"):
        data["joints"][0].pop(key, None)
    robot = RobotContract.from_dict(data)
    command = SimpleNamespace(positions=np.array([3.1, 0, 0, 0, 0, 0, 0.5]), velocities=np.zeros(7))
    measured = np.array([-3.1, 0, 0, 0, 0, 0, 0.5])
    assert commands.jog_velocities(robot, command, measured)[0] < 0.0


# What is not installed


@pytest.mark.parametrize(
    ("interface", "gripper", "named"),
    [
        ("follow_joint_trajectory", False, "control_msgs.action.FollowJointTrajectory"),
        ("joint_jog", False, "control_msgs.msg.JointJog"),
        ("joint_trajectory", True, "control_msgs.action.GripperCommand"),
    ],
)
def test_without_control_msgs_the_cause_and_the_package_to_install_are_told(interface, gripper, named, monkeypatch):
    monkeypatch.setitem(sys.modules, "control_msgs", None)
    with pytest.raises(HardwareError, match=r"install ros-\$ROS_DISTRO-control-msgs") as caught:
        outputs._control_msgs(*named.split(".")[1:], "topics.command")
    assert named in str(caught.value)
    assert contract(interface, gripper).command_interface == interface
