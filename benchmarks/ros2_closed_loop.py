"""The whole line through ROS 2 against the same policy stepped directly: does the bridge cost success?

    python benchmarks/ros2_closed_loop.py --policy demo_out/policy_rabc --episodes 50 --out out/ros2_closed_loop

Policy server, bridge and simulated arm are three processes joined by DDS, in real time; direct evaluation steps the
environment itself. Both start episode i from the same seed. Prints success with Wilson intervals, the control loop's
regularity and the latency from observation to command; writes results.json. Run the same command again to resume.
Bridge and arm take a real-time priority, as on a robot, where that is permitted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))
DRIVER = ROOT / "benchmarks" / "contenders" / "ros2_driver.py"


def direct(policy: Path, episodes: int, seed: int, out: Path) -> dict[str, float]:
    """Success of the policy in the environment itself."""
    words = [sys.executable, "-m", "robo_core.cli.main", "eval-policy", f"policy={policy}", "env=tidy_drawer"]
    words += [f"episodes={episodes}", f"seed={seed}", f"out={out}"]
    if not (out / "metrics.json").is_file():
        subprocess.run(words, check=True)
    metrics = json.loads((out / "metrics.json").read_text())
    if metrics["episodes"] != episodes:
        raise SystemExit(f"{out} holds {metrics['episodes']} episodes; choose another --out")
    return metrics


def through_ros(policy: Path, episodes: int, seed: int, out: Path, patient: bool) -> list[dict]:
    """Success of the policy through server, bridge and simulated arm; one line an episode in episodes.jsonl."""
    from ros_environment import alone, ros_environ, ros_python

    with tempfile.TemporaryDirectory(prefix="ros2-") as folder:
        words = [str(ros_python()), str(DRIVER), "--policy", str(policy), "--out", str(out / "episodes.jsonl")]
        words += ["--episodes", str(episodes), "--seed", str(seed), "--folder", folder, "--python", sys.executable]
        environ = ros_environ() | {"PYTHONPATH": str(ROOT / "tests" / "hw" / "ros2" / "inside")}
        done = subprocess.run(alone(words + ["--patient"] * patient), env=environ, check=False)
        if done.returncode != 0:
            raise SystemExit(f"the run through ROS ended with {done.returncode}; run the same command again to resume")
    lines = (out / "episodes.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if 0 <= json.loads(line)["seed"] - seed * 1_000_000 < episodes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("out/ros2_closed_loop"))
    parser.add_argument("--patient", action="store_true", help="deadlines for a machine that is shared with others")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from robo_core.console import print_table
    from robo_rm.metrics.intervals import wilson_interval

    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    policy = arguments.policy.resolve()
    episodes = through_ros(policy, arguments.episodes, arguments.seed, out, arguments.patient)
    reference = direct(policy, arguments.episodes, arguments.seed, out / "direct")
    successes = sum(episode["success"] for episode in episodes)
    interval = wilson_interval(successes, len(episodes))
    last = episodes[-1]
    loop = {key: last[key] for key in ("period_error_p50", "period_error_p99", "latency_p50", "latency_p99")}
    result = {
        "episodes": len(episodes),
        "ros": {
            "success_rate": successes / len(episodes),
            "success_low": interval.low,
            "success_high": interval.high,
        },
        "direct": {key: reference[key] for key in ("success_rate", "success_low", "success_high")},
        "difference": successes / len(episodes) - reference["success_rate"],
        "stops": sum(episode["stops"] for episode in episodes),
        "faults": sum(episode["faults"] for episode in episodes),
        "loop": loop,
        "patient": arguments.patient,
        "cores": os.cpu_count(),
    }
    (out / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    rows = [
        [
            name,
            f"{100 * part['success_rate']:.1f} %",
            f"{100 * part['success_low']:.1f} to {100 * part['success_high']:.1f}",
        ]
        for name, part in (("through ROS 2", result["ros"]), ("stepped directly", result["direct"]))
    ]
    print_table(f"{len(episodes)} episodes", ["", "success", "95 % interval"], rows)
    print_table(
        "through ROS 2",
        ["stops", "faults", "period error p50", "p99", "latency p50", "p99"],
        [
            [
                str(result["stops"]),
                str(result["faults"]),
                f"{100 * loop['period_error_p50']:.1f} %",
                f"{100 * loop['period_error_p99']:.1f} %",
                f"{1000 * loop['latency_p50']:.0f} ms",
                f"{1000 * loop['latency_p99']:.0f} ms",
            ]
        ],
    )


if __name__ == "__main__":
    main()
