"""`python -m robo_rm_bridge policy_node --ros-args ...`: the nodes without `ros2 run`."""

from __future__ import annotations

import sys

from robo_rm_bridge.entry_points import NODES, run

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in NODES:
        sys.exit(f"usage: python -m robo_rm_bridge {{{','.join(NODES)}}} [--ros-args ...]")
    sys.exit(run(sys.argv.pop(1)))
