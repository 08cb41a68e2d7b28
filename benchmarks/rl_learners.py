"""How many control steps per second does learning take, against Stable-Baselines3's SAC?

    python benchmarks/rl_learners.py --store DEMOS --model REWARD_MODEL [--env tidy_drawer/open] [--updates 20]
        [--macro-actions 400] [--rounds 3] [--json FILE]

Each learner learns the same task with the reward model in the loop and the same gradient steps per macro-action,
one thread, at its own sizes. Only what follows the first updates is timed, so neither setting up, compiling nor
evaluating counts. The learners take turns, each in a process of its own, so that all see the same machine:

    sac             ours with learner.compile=false, as short runs have it
    sac_compiled    ours with learner.compile=true, as long runs have it
    sb3_sac         Stable-Baselines3's SAC, unmodified
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

import numpy as np

from robo_core.console import print_table, progress_bar
from robo_core.outputs import write_atomically

LEARNERS = ("sac", "sac_compiled", "sb3_sac")
# Macro-actions after the first update that are not timed: whatever is compiled at its first call is done by then.
UNTIMED = 10


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="demonstrations of the task")
    parser.add_argument("--model", type=Path, required=True, help="folder of the reward model")
    parser.add_argument("--env", default="tidy_drawer/open")
    parser.add_argument("--updates", type=int, default=20, help="gradient steps per macro-action")
    parser.add_argument("--macro-actions", type=int, default=400, help="timed, of each learner in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--learner", choices=LEARNERS, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace) -> float:
    """Control steps per second of one learner, in this process."""
    import torch

    from robo_policies.rl.runners.experiment import Experiment
    from robo_policies.rl.runners.runner import RunState
    from robo_policies.rl.settings import LearningSettings, RunSettings, SacSettings, Sb3SacSettings
    from robo_rm.shaping.modes import ShapingSettings

    torch.set_num_threads(1)
    never = 10**9
    loop = LearningSettings(gradient_steps=options.updates, evaluate_every=never, evaluation_episodes=1)
    compiled = options.learner == "sac_compiled"
    learner = Sb3SacSettings() if options.learner == "sb3_sac" else SacSettings(compile=compiled)
    settings = RunSettings(
        env=options.env, store=str(options.store), demonstrations=None, reward_model=str(options.model),
        potential="model", policy=None, shaping=ShapingSettings("pbrs"), learning=loop, learner=learner, seed=0,
        max_steps=None,
    )  # fmt: skip
    first = loop.learning_starts + UNTIMED
    times: list[tuple[int, float]] = []

    def on_step(state: RunState, _: Mapping[str, float]) -> None:
        if state.macro_actions >= first:
            times.append((state.steps, time.monotonic()))

    with tempfile.TemporaryDirectory() as folder:
        runner = Experiment(settings, Path(folder)).runner
        runner.run((first + options.macro_actions) * loop.action_repeat, on_step)
    (steps, began), (taken, ended) = times[0], times[-1]
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
    title = f"{options.env}, {options.updates} updates per macro-action, median of {options.rounds} rounds in turn"
    print_table(title, ["learner", "control steps/s", "of sb3_sac"], body)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.json, json.dumps({"figures": figures, "rates": rates}, indent=1))


if __name__ == "__main__":
    main()
