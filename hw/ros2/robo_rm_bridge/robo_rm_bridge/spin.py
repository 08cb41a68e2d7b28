"""Running one node in one thread, and ending it in order: an arm that moves is brought to rest first."""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

if TYPE_CHECKING:
    from rclpy.node import Node


def run_node(make: Callable[[], Node], args: list[str] | None = None) -> int:
    """Make a node and spin it until SIGINT or SIGTERM; returns the exit code.

    A node with ``finish()`` is asked again and again, while it goes on spinning, until that returns True.
    """
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    asked: list[float] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(time.monotonic())

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    node = None
    try:
        node = make()
        finish = getattr(node, "finish", lambda: True)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        # What was made so far stays; collecting it again and again costs milliseconds in the control loop.
        gc.collect()
        gc.freeze()
        # The control loop waits at most so long for another thread; 5 ms is usual, a quarter of its period.
        sys.setswitchinterval(0.0002)
        while not (asked and (finish() or len(asked) > 2)):
            executor.spin_once(timeout_sec=0.1)
        executor.remove_node(node)
        return 0
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
        for number, handler in previous.items():
            signal.signal(number, handler)
