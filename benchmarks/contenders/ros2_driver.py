"""Runs episodes through policy server, bridge and simulated arm; ros2_closed_loop.py starts it in a Python with ROS."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path

from rig import Process, Rig, RunningServer, packaged_contract, patient_contract

SECONDS = 30.0  # the environment's own time limit, 600 steps at 20 Hz
VECTOR = "[observation.environment_state=/environment_state]"


class Line(Rig):
    """The rig with the real policy server."""

    def __init__(self, folder: Path, python: str, policy: str, patient: bool) -> None:
        self._words = [python, "-m", "robo_core.cli.main", "serve-policy", f"policy={policy}", "threads=1"]
        self._patient = patient
        super().__init__(folder)

    def contract_text(self) -> str:
        return patient_contract() if self._patient else packaged_contract()

    def start_server(self) -> Process:
        words = [*self._words, f"contract={self.contract_file}", f"listen={self.address}"]
        return self.child(RunningServer(words, self.folder))

    def bridge_parameters(self) -> dict[str, object]:
        return {"vectors": VECTOR, "connect_timeout": 60.0, "diagnostics_rate": 2.0}

    def episode(self, seed: int) -> dict[str, object]:
        """One episode from a seed; disarmed before and after."""
        observer = self.observer
        self.at_rest()
        observer.set_parameter("/mujoco_arm", "seed", seed)
        self.wait("a new episode", lambda: observer.trigger("/mujoco_arm/reset")[0])
        self.wait("the arm shows it", lambda: not observer.success)
        self.spin(0.5)  # until the bridge too sees the new pose; it would take the change for a jump
        before = dict(observer.status)
        self.arm_it()
        began = time.monotonic()
        while not observer.success and time.monotonic() - began < SECONDS and self.state != "fault":
            self.spin(0.05)
        seconds = time.monotonic() - began
        after = observer.status
        counts = {key: int(after.get(key, 0)) - int(before.get(key, 0)) for key in ("count.stop", "count.fault")}
        loop = observer.diagnostics.get("robo_rm_policy: control loop", {})
        names = ("period_error.p50", "period_error.p99", "latency.p50", "latency.p99")
        return {
            "seed": seed,
            "success": bool(observer.success),
            "seconds": round(seconds, 2),
            "stops": counts["count.stop"],
            "faults": counts["count.fault"],
            **{name.replace(".", "_"): float(loop.get(name, "nan")) for name in names},
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("policy", "out", "folder", "python"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--episodes", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--patient", action="store_true")
    arguments = parser.parse_args()
    out, first = Path(arguments.out), arguments.seed * 1_000_000
    lines = out.read_text().splitlines() if out.is_file() else []
    done = {json.loads(line)["seed"] for line in lines}
    left = [seed for seed in range(first, first + arguments.episodes) if seed not in done]
    if not left:
        return
    whole = Line(Path(arguments.folder), arguments.python, arguments.policy, arguments.patient)
    with contextlib.closing(whole):
        for seed in left:
            result = whole.episode(seed)
            with out.open("a") as file:
                file.write(json.dumps(result) + "\n")
            state = "done" if result["success"] else "not done"
            print(f"episode {seed - first}: {state} in {result['seconds']} s, {result['stops']} stops", flush=True)


if __name__ == "__main__":
    main()
