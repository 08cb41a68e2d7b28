"""Measures the bridge's loop; ros2_loop.py starts it in a Python with ROS: FOLDER RESULT SECONDS RESTARTS STOPS."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np
from image_rows import FRONT, WRIST, ImageRig
from rig import Process, Rig
from std_msgs.msg import Bool

LOADS: dict[str, tuple[str, ...]] = {
    "nothing else": (),
    "4K JPEG at 30 Hz": (f"{FRONT}=jpeg4k",),
    "PNG of 14 000 x 14 000 at 2 Hz, raw 1280 x 720 at 10 Hz": (f"{FRONT}=png14k", f"{WRIST}=raw"),
    "all of these and a hung policy": (f"{FRONT}=jpeg4k", f"{FRONT}=png14k", f"{WRIST}=raw"),
}
"""What goes on while the emergency stop is pressed."""


class Usual(ImageRig):
    """With the bridge's own settings."""

    def bridge_parameters(self) -> dict[str, object]:
        return {"diagnostics_rate": 1.0}


def loop(rig: Rig, seconds: float) -> dict[str, float]:
    """Period errors and latency of a motion of so many seconds."""
    rig.run()
    rig.spin(seconds + 1.0)  # diagnostics come once a second
    found = rig.observer.diagnostics["robo_rm_policy: control loop"]
    names = ("period", "ticks", "late", "period_error.p50", "period_error.p99", "latency.p50", "latency.p99")
    return {name: float(found[name]) for name in names}


def stop_once(rig: Rig, hangs: bool) -> tuple[float, float]:
    """Seconds from the publication of an e-stop to the first braking command, and to the last command before rest."""
    rig.run()
    if hangs:
        rig.server.say("hangs")
    rig.spin(0.15 + 0.02 * np.random.default_rng().random())  # at any moment of the period
    published = time.time_ns()
    rig.observer.estop.publish(Bool(data=True))
    rig.wait_state("fault")
    rig.spin(0.1)
    rig.observer.estop.publish(Bool(data=False))
    entries = rig.observer.commanded
    # A command tells when and in which state it was made; behind the first that brakes comes none of the motion.
    braking = [entry[0] for entry in entries if entry[1] == "stopping"]
    moving = [entry[0] for entry in entries if entry[1] != "running" and entry[3].any()]
    assert all(entry[0] < braking[0] for entry in entries if entry[1] == "running")
    rig.keeps_the_limits()
    return (braking[0] - published) * 1e-9, (moving[-1] - published) * 1e-9


def stops(rig: Usual, count: int) -> dict[str, dict[str, object]]:
    """Emergency stops under every load."""
    result: dict[str, dict[str, object]] = {}
    for name, words in LOADS.items():
        flood: Process | None = rig.flood(*words) if words else None
        try:
            rig.spin(2.0 if words else 0.5)
            taken = [stop_once(rig, "hung" in name) for _ in range(count)]
        finally:
            if flood is not None:
                flood.end()
        braking, rest = np.array(taken).T
        found = {f"p{q}": float(np.quantile(braking, q / 100)) for q in (50, 99)}
        result[name] = {**found, "most": float(braking.max()), "rest_p99": float(np.quantile(rest, 0.99)), "n": count}
        print(name, result[name], flush=True)
    return result


def restarts(rig: Rig, count: int) -> list[float]:
    """Seconds from the moment at which a killed policy server is back to the moment at which the arm may be armed."""
    resumed = []
    for _ in range(count):
        rig.run()
        rig.server.kill()
        rig.wait_state("holding", "disarmed")
        rig.server = rig.start_server()
        began = time.monotonic()
        rig.at_rest()
        rig.arm_it()
        rig.wait_state("running", seconds=15.0)
        resumed.append(time.monotonic() - began)
    return resumed


def main() -> None:
    folder, out, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    with contextlib.closing(Usual(folder)) as rig:
        result: dict[str, object] = {"loop": loop(rig, seconds)}
        result["worst_share"] = rig.keeps_the_limits()
        flood = rig.flood(*LOADS["all of these and a hung policy"])
        result["loop_flooded"] = loop(rig, seconds)
        flood.end()
        result["resumed"] = restarts(rig, int(sys.argv[4]))
        result["stops"] = stops(rig, int(sys.argv[5]))
        rig.at_rest()
    out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
