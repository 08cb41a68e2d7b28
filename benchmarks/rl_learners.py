"""How many control steps a second does learning take, against Stable-Baselines3's SAC?

    python benchmarks/rl_learners.py --store DEMOS --model REWARD_MODEL [--env tidy_drawer/open] [--updates 20]
        [--decisions 400] [--rounds 3] [--json FILE]

Each learner learns the same task with the reward model in the loop and the same number of updates a decision, one
thread, at its own sizes. Decisions after the first updates are timed, so neither setting up, compiling nor evaluating
counts. The learners take turns, each in a process of its own, so that all see the same machine:

    sac             ours with learner.compile=false, as short runs have it
    sac_compiled    ours with learner.compile=true, as long runs have it
    sb3_sac         Stable-Baselines3's SAC as it comes
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robo_core.console import print_table, progress_bar
from robo_core.outputs import write_atomically

LEARNERS = ("sac", "sac_compiled", "sb3_sac")
# Decisions after warm-up that are not timed: what is compiled or made at its first call is done by then.
UNTIMED = 10


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="demonstrations of the task")
    parser.add_argument("--model", type=Path, required=True, help="folder of the reward model")
    parser.add_argument("--env", default="tidy_drawer/open")
    parser.add_argument("--updates", type=int, default=20, help="a decision")
    parser.add_argument("--decisions", type=int, default=400, help="timed, of each learner in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--learner", choices=LEARNERS, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace) -> float:
    """Control steps a second of one learner, in this process."""
    import torch

    from robo_policies.rl.settings import ControlSacSettings, LearningSettings, SacSettings
    from robo_policies.rl.training import RlTraining, RunSettings
    from robo_rm.shaping.modes import ShapingSettings

    torch.set_num_threads(1)
    never = 10**9
    loop = LearningSettings(updates_per_decision=options.updates, evaluate_every=never, evaluation_episodes=1)
    compiled = options.learner == "sac_compiled"
    learner = ControlSacSettings() if options.learner == "sb3_sac" else SacSettings(compile=compiled)
    settings = RunSettings(
        env=options.env, store=str(options.store), demonstrations=None, reward_model=str(options.model),
        potential="model", policy=None, shaping=ShapingSettings("pbrs"), learning=loop, learner=learner, seed=0,
        max_steps=None,
    )  # fmt: skip
    first = loop.warmup + UNTIMED
    seen: list[tuple[int, float]] = []

    def tell(note: Any, _: Mapping[str, float]) -> None:
        if note.decisions >= first:
            seen.append((note.steps, time.monotonic()))

    with tempfile.TemporaryDirectory() as folder:
        learning = RlTraining(settings, Path(folder)).learning
        learning.run((first + options.decisions) * loop.repeat, tell)
    (steps, began), (taken, ended) = seen[0], seen[-1]
    return (taken - steps) / (ended - began)


def main() -> None:
    options = parse()
    if options.learner:
        print(measure(options))
        return
    rates: dict[str, list[float]] = {name: [] for name in LEARNERS}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with progress_bar("learners", total=options.rounds * len(LEARNERS), unit="runs") as bar:
        for _ in range(options.rounds):
            for name in LEARNERS:
                words = [sys.executable, *sys.argv, "--learner", name]
                done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(done.stderr.strip())
                rates[name].append(float(done.stdout.strip().splitlines()[-1]))
                bar.advance(1)
    theirs = np.array(rates["sb3_sac"])
    figures = {
        name: {"steps_per_second": float(np.median(values)), "ratio": float(np.median(np.array(values) / theirs))}
        for name, values in rates.items()
    }
    body = [(name, f"{one['steps_per_second']:.1f}", f"{one['ratio']:.2f}") for name, one in figures.items()]
    title = f"{options.env}, {options.updates} updates a decision, median of {options.rounds} rounds in turn"
    print_table(title, ["learner", "control steps/s", "of sb3_sac"], body)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.json, json.dumps({"figures": figures, "rates": rates}, indent=1))


if __name__ == "__main__":
    main()
