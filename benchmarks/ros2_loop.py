"""How regular the bridge's control loop is, how long an observation takes to become a command, and how fast it resumes.

    python benchmarks/ros2_loop.py --seconds 30 --json out/ros2_loop.json

Bridge, simulated arm with two cameras and a policy server (without a network) are processes joined by DDS. After the
measurement the server is killed in mid-chunk and started again, several times, without touching the bridge. Bridge and
arm take a real-time priority, as on a robot, where that is permitted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))
DRIVER = ROOT / "benchmarks" / "contenders" / "ros2_loop_driver.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    from ros_environment import alone, ros_environ, ros_python

    from robo_datasets.console import print_table

    with tempfile.TemporaryDirectory(prefix="ros2-") as folder:
        out = Path(folder) / "result.json"
        words = [str(ros_python()), str(DRIVER), folder, str(out), str(arguments.seconds), str(arguments.restarts)]
        environ = ros_environ() | {"PYTHONPATH": str(ROOT / "tests" / "hw" / "ros2" / "inside")}
        subprocess.run(alone(words), env=environ, check=True)
        result = json.loads(out.read_text())
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    rows = [
        ["period", f"{1000 * result['period']:.1f} ms, {result['ticks']} ticks"],
        ["error of the period, p50 / p99", f"{100 * result['error_p50']:.2f} % / {100 * result['error_p99']:.2f} %"],
        [
            "observation to command, p50 / p99",
            f"{1000 * result['latency_p50']:.1f} / {1000 * result['latency_p99']:.1f} ms",
        ],
        ["moving again after the server is back", ", ".join(f"{s:.2f}" for s in result["resumed"]) + " s"],
        ["largest share of a limit in any command", f"{result['worst_share']:.3f}"],
    ]
    print_table("the bridge", ["", ""], rows)


if __name__ == "__main__":
    main()
