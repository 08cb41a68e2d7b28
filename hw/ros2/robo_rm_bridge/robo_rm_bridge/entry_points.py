"""The commands of the package: `ros2 run robo_rm_bridge policy_node` and so on.

Each first makes sure that ROS is available, and says why where it cannot.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from robo_hw.errors import HardwareError

NODES = ("policy_node", "recorder_node", "monitor_node", "mujoco_arm_node")


def main() -> None:
    """Run the node that the command is named for."""
    sys.exit(run(Path(sys.argv[0]).stem))


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
