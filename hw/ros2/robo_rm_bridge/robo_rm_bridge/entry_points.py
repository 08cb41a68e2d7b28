"""The commands of the package: `ros2 run robo_rm_bridge policy_node` and so on.

Each first makes sure that ROS is available, and says why where it cannot.
"""

from __future__ import annotations

import importlib
import sys

from robo_hw.errors import HardwareError

NODES = ("policy_node", "recorder_node", "monitor_node", "mujoco_arm_node")


def policy() -> None:
    """The lifecycle node that runs a policy behind the safety core."""
    sys.exit(run("policy_node"))


def recorder() -> None:
    """The node that records into a demo store and a bag."""
    sys.exit(run("recorder_node"))


def monitor() -> None:
    """The node that publishes progress and stage while a task is done."""
    sys.exit(run("monitor_node"))


def mujoco_arm() -> None:
    """The simulated arm of tidy_drawer, on the topics of a real one."""
    sys.exit(run("mujoco_arm_node"))


def run(name: str) -> int:
    """Run the module's ``NODE`` until it is asked to end; returns the exit code."""
    from robo_rm_bridge.middleware import require_ros

    try:
        require_ros()
        from robo_rm_bridge.spin import run_node

        return run_node(importlib.import_module(f"robo_rm_bridge.{name}").NODE)
    except HardwareError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
