"""Measures the bridge's loop; ros2_loop.py starts it in a Python with ROS: FOLDER RESULT SECONDS RESTARTS."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from rig import Rig


class Usual(Rig):
    """With the bridge's own settings."""

    def bridge_parameters(self) -> dict[str, object]:
        return {"diagnostics_rate": 1.0}


def main() -> None:
    folder, out, seconds, restarts = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    with contextlib.closing(Usual(folder)) as rig:
        rig.run()
        rig.spin(seconds + 1.0)  # diagnostics come once a second
        loop = dict(rig.observer.diagnostics["robo_rm_policy: control loop"])
        worst = rig.keeps_the_limits()
        resumed = []
        for _ in range(restarts):
            rig.server.kill()
            rig.wait_state("holding")
            rig.server = rig.start_server()
            resumed.append(rig.wait_state("running", seconds=15.0))
            rig.spin(1.0)
        worst = max(worst, rig.keeps_the_limits())
        rig.at_rest()
    result = {
        "period": float(loop["period"]),
        "ticks": int(loop["ticks"]),
        "late": int(loop["late"]),
        "error_p50": float(loop["period_error.p50"]),
        "error_p99": float(loop["period_error.p99"]),
        "latency_p50": float(loop["latency.p50"]),
        "latency_p99": float(loop["latency.p99"]),
        "resumed": resumed,
        "worst_share": worst,
    }
    out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
