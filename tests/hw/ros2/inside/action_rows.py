"""Goals through real DDS: accepted, refused, replaced, given up. No wheel has control_msgs: the action is another.

What differs, the fields of a goal, is checked in tests/hw/ros2/test_outputs.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rclpy
import rig  # noqa: F401 - imports ROS's old parser quietly
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from test_msgs.action import Fibonacci

from robo_rm_bridge.outputs import GoalOutput

ACTION = "arm_controller/follow_joint_trajectory"


class Controller:
    """An action server that does with goals what it is told to."""

    def __init__(self) -> None:
        self.node = Node("controller")
        self.accepts, self.ends = True, threading.Event()
        self.verdict = "abort"
        self.taken: list[int] = []
        self.server = ActionServer(
            self.node,
            Fibonacci,
            ACTION,
            self.carry_out,
            goal_callback=lambda goal: GoalResponse.ACCEPT if self.accepts else GoalResponse.REJECT,
            cancel_callback=lambda goal: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )

    def carry_out(self, handle: Any) -> Any:
        self.taken.append(handle.request.order)
        self.ends.wait(5.0)
        getattr(handle, self.verdict)()
        return Fibonacci.Result()


class Rig:
    """Client and server, each spun by its own thread."""

    def __init__(self) -> None:
        rclpy.init()
        self.controller, self.node = Controller(), Node("bridge")
        self.told: list[str] = []
        self.output = GoalOutput(ActionClient(self.node, Fibonacci, ACTION), ACTION, self.told.append)
        self.executor = MultiThreadedExecutor(4)
        self.executor.add_node(self.controller.node)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()

    def wait(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.told, self.controller.taken)
            time.sleep(0.02)

    def send(self, order: int) -> None:
        self.output.send_goal(Fibonacci.Goal(order=order))

    def close(self) -> None:
        self.controller.ends.set()
        self.executor.shutdown()
        self.thread.join(5.0)
        self.output.close()
        rclpy.try_shutdown()


@pytest.fixture
def actions() -> Iterator[Rig]:
    made = Rig()
    try:
        made.wait(lambda: made.output.problems() == [])
        yield made
    finally:
        made.close()


def test_a_goal_is_taken_and_its_good_end_says_nothing(actions):
    actions.controller.verdict = "succeed"
    actions.send(3)
    actions.wait(lambda: actions.controller.taken == [3])
    actions.controller.ends.set()
    time.sleep(0.5)
    assert actions.told == []


def test_the_newest_goal_given_up_is_told_and_a_replaced_one_is_not(actions):
    for order in (1, 2):
        actions.send(order)
    actions.wait(lambda: sorted(actions.controller.taken) == [1, 2])
    actions.controller.ends.set()
    actions.wait(lambda: bool(actions.told))
    time.sleep(0.3)
    assert actions.told == [f"{ACTION} gave the goal up: no reason given"]


def test_three_refusals_in_a_row_are_told_once(actions):
    actions.controller.accepts = False
    for order in range(5):
        actions.send(order)
    actions.wait(lambda: bool(actions.told))
    time.sleep(0.3)
    assert actions.told == [f"{ACTION} refused 3 goals in a row; is the controller active?"]


def test_a_server_that_is_not_there_is_a_problem():
    rclpy.init()
    node = Node("bridge")
    try:
        output = GoalOutput(ActionClient(node, Fibonacci, "nowhere"), "nowhere", lambda text: None)
        assert output.problems() == ["no action server at nowhere; start the controller"]
        output.close()
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
