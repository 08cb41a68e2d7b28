"""What the nodes share: helpers beside a node, timers on the steady clock, services that answer in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.timer import Timer
from std_srvs.srv import SetBool, Trigger

from robo_hw.errors import HardwareError

Request: TypeAlias = "Trigger.Request | SetBool.Request"
Response: TypeAlias = "Trigger.Response | SetBool.Response"


def helper_node(name: str, namespace: str) -> Node:
    """A node beside another one, without parameters or log of its own.

    The process's own name and namespace would be given to it, too; topics are resolved by the node it helps.
    """
    return Node(
        name,
        namespace=namespace,
        use_global_arguments=False,
        enable_rosout=False,
        start_parameter_services=False,
    )


def steady_timer(node: Node, period: float, callback: Callable[[], None]) -> Timer:
    """Call back every ``period`` s of the steady clock."""
    return node.create_timer(period, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))


def answering(
    action: Callable[[Request], str], after: Callable[[], None] = lambda: None
) -> Callable[[Request, Response], Response]:
    """A service's handler: ``action`` does what is asked and says so, or raises HardwareError with why not."""

    def handle(request: Request, response: Response) -> Response:
        try:
            response.success, response.message = True, action(request)
        except HardwareError as error:
            response.success, response.message = False, str(error)
        after()
        return response

    return handle
