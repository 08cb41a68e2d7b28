"""How regular the bridge's control loop is, how soon it stops, and how long an observation takes to become a command.

    python benchmarks/ros2_loop.py --seconds 30 --json out/ros2_loop.json

Bridge, simulated arm with two cameras and a policy server (without a network) are processes joined by DDS. The loop is
measured alone and while image topics are flooded with what they should not carry. Then the emergency stop is published
again and again, under several loads: the time to the first braking command, behind which no command of the policy's
motion comes, is by the commands' own moments. Bridge and arm take a real-time priority, as on a robot, where permitted.
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
    parser.add_argument("--stops", type=int, default=50, help="emergency stops under each load")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    from ros_environment import alone, ros_environ, ros_python

    from robo_core.console import print_table

    with tempfile.TemporaryDirectory(prefix="ros2-") as folder:
        out = Path(folder) / "result.json"
        words = [str(ros_python()), str(DRIVER), folder, str(out), str(arguments.seconds)]
        words += [str(arguments.restarts), str(arguments.stops)]
        environ = ros_environ() | {"PYTHONPATH": str(ROOT / "tests" / "hw" / "ros2" / "inside")}
        subprocess.run(alone(words), env=environ, check=True)
        result = json.loads(out.read_text())
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    rows = []
    for name, key in (("alone", "loop"), ("flooded with images", "loop_flooded")):
        loop = result[key]
        ticks = f"{1000 * loop['period']:.0f} ms, {loop['ticks']:.0f} ticks, {loop['late']:.0f} late"
        errors = f"{100 * loop['period_error.p50']:.2f} / {100 * loop['period_error.p99']:.2f} %"
        latency = f"{1000 * loop['latency.p50']:.1f} / {1000 * loop['latency.p99']:.1f} ms"
        rows += [
            [f"period, {name}", ticks],
            [f"error of the period, p50 / p99, {name}", errors],
            [f"observation to command, p50 / p99, {name}", latency],
        ]
    resumed = ", ".join(f"{s:.2f}" for s in result["resumed"])
    rows += [
        ["moving again, armed by hand, after the server is back", f"{resumed} s"],
        ["largest share of a limit in any command", f"{result['worst_share']:.3f}"],
    ]
    print_table("the bridge", ["", ""], rows)
    stops = [
        [name, *(f"{1000 * found[key]:.1f}" for key in ("p50", "p99", "most", "rest_p99")), str(found["n"])]
        for name, found in result["stops"].items()
    ]
    print_table(
        "from the publication of an e-stop to the first braking command, ms",
        ["while", "p50", "p99", "most", "to rest p99", "n"],
        stops,
    )


if __name__ == "__main__":
    main()
