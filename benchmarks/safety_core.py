"""The safety core: how long a tick takes, and how near to its promises random faults can drive it.

    python benchmarks/safety_core.py [--sequences 1000] [--ticks 20000] [--seed 0] [--json out/safety_core.json]

Timing: an arm of seven joints that follows exactly, a chunk of 30 actions every 0.3 s; `smooth` runs at full speed,
`held back` has so much noise that limits bind at nearly every tick (the search for a lawful speed then runs each time).
Margins: random arms and the packaged contracts, 0 to 7 random faults in 3 s each; the worst share of each limit that
any tick reached (1 touches it), the worst stop against its own bound, how far the first command after arming lay from
the arm (1: what a joint travels in one control period) and commands in a fault from the measured pose (1: the following
error), and the number of broken promises, which has to be 0. The exit code is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from robo_core.console import print_table, progress_bar, say
from robo_hw import ActionChunk, ManualClock, RobotContract, SafetyCore, example_contracts

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from fault_search.contract import random_contract
from fault_search.margins import COUNTS, SHARES, Margins
from fault_search.prover import prove

HOME = np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.5, 0.7])


def timings(mode: str, noise: float, ticks: int, seed: int) -> dict[str, Any]:
    """Microseconds of tick, observe and submit, p50 / p99 / worst, for seven joints."""
    contract, clock, random = RobotContract.load("franka_panda"), ManualClock(), np.random.default_rng(seed)
    core = SafetyCore(contract, clock, mode=mode)
    robot, phase, sequence, held_back = HOME + 0.25 * np.sin(np.arange(7)), 0.0, 0, 0
    spent: dict[str, list[float]] = {"tick": [], "observe": [], "submit": []}
    for i in range(-contract.safety.arm_states, 0):
        now = clock.advance(0.01)
        core.observe(contract.joint_names, robot, stamp=now)
        core.observe_camera("wrist", i, stamp=now)
    for i in range(ticks):
        now = clock.advance(0.01)
        began = time.perf_counter()
        core.observe(contract.joint_names, robot, stamp=now)
        spent["observe"].append(time.perf_counter() - began)
        core.observe_camera("wrist", i, stamp=now)
        if i == 0:
            core.arm()
        if i % 30 == 0:
            near = phase + np.linspace(-0.2, 1.0, 241)
            path = HOME + 0.25 * np.sin(1.5 * near[:, None] + np.arange(7))
            phase = float(near[np.argmin(((path - robot) ** 2).sum(axis=1))])
            actions = HOME + 0.25 * np.sin(1.5 * (phase + np.arange(1, 31)[:, None] / 20) + np.arange(7))
            actions += random.normal(0, noise, actions.shape)
            sequence += 1
            chunk = ActionChunk(actions, contract.joint_names, core.epoch, sequence, now - 0.01 if i else now)
            began = time.perf_counter()
            core.submit(chunk)
            spent["submit"].append(time.perf_counter() - began)
        began = time.perf_counter()
        command = core.tick()
        spent["tick"].append(time.perf_counter() - began)
        if command is None:
            raise RuntimeError(f"the core stopped commanding at tick {i}: {core.fault}")
        robot = command.positions
        held_back += core._motion.pace.held_back
    return {
        "mode": mode,
        "noise": noise,
        "ticks_held_back": held_back / ticks,
        **{
            name: {
                "p50_us": float(np.percentile(values, 50) * 1e6),
                "p99_us": float(np.percentile(values, 99) * 1e6),
                "worst_us": float(max(values) * 1e6),
            }
            for name, values in spent.items()
        },
    }


def search(sequences: int, seed: int) -> dict[str, Margins]:
    """The worst margins over random arms (half of the sequences) and the packaged contracts (the rest)."""
    names = example_contracts()
    found = {"random arms": Margins(), **{name: Margins() for name in names}}
    with progress_bar("fault sequences", total=sequences, unit="sequences") as bar:
        for i in range(sequences):
            if i % 2 == 0:
                found["random arms"].add(prove(random_contract(np.random.default_rng([seed, i])), 1, seed=i))
            else:
                name = names[i // 2 % len(names)]
                found[name].add(prove(RobotContract.load(name), 1, seed=seed * 1_000_003 + i))
            bar.advance(1)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=1000)
    parser.add_argument("--ticks", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("out/safety_core.json"))
    arguments = parser.parse_args()

    cases = [("smooth", "latest", 0.0), ("smooth", "real_time", 0.0), ("held back", "latest", 0.02)]
    timed = {f"{name}, {mode}": timings(mode, noise, arguments.ticks, arguments.seed) for name, mode, noise in cases}
    rows = [
        [case, name, *(f"{result[name][key]:.0f}" for key in ("p50_us", "p99_us", "worst_us"))]
        for case, result in timed.items()
        for name in ("tick", "observe", "submit")
    ]
    print_table("microseconds, 7 joints", ["case", "call", "p50", "p99", "worst"], rows)

    found = search(arguments.sequences, arguments.seed)
    print_table(
        "worst observed, as a share of the limit",
        ["arm", "position", "speed", "accel.", "jerk", "stop/bound", "bound/max", "first", "in fault", "broken"],
        [[name, *(f"{getattr(m, key):.4f}" for key in SHARES), len(m.violations)] for name, m in found.items()],
    )
    print_table(
        "what was tried",
        ["arm", *(key.replace("_", " ") for key in COUNTS), "longest stop, s"],
        [[name, *(getattr(m, key) for key in COUNTS), f"{m.stop_time:.3f}"] for name, m in found.items()],
    )
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.processor() or platform.machine(),
        "seed": arguments.seed,
        "timings": timed,
        "margins": {name: vars(m) for name, m in found.items()},
    }
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    say(f"written to {arguments.json}")
    broken = [text for m in found.values() for text in m.violations]
    for text in broken[:20]:
        say(f"broken: {text}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
