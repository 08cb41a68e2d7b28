"""The calibrated monitor on mixed tidy_drawer runs: false alarms, failures detected, and how soon.

    python benchmarks/monitor.py --out out/monitor --json out/monitor.json

Records 100 mixed demonstrations and trains a reward model on them, records 160 further mixed runs that it never sees,
and calibrates on a half and a quarter of them; the others are measured, over several divisions (seeds). About 20
minutes on two cores; what is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from robo_datasets import DemoStore
from robo_rm import load_reward_model
from robo_rm.monitor.fitting import fit_runs, image_model, watch
from robo_rm.scoring import check_model_fits

TRAINING, FURTHER, STEPS = 100, 160, 1500
RATES = (0.01, 0.05)


def robo_rm(*words: str) -> None:
    subprocess.run([str(Path(sys.executable).with_name("robo-rm")), *words], check=True)


def prepare(out: Path) -> None:
    """Both stores and the model; each command skips what is there."""
    record = ("record", "env=tidy_drawer", "quality=mixed")
    robo_rm(*record, f"store={out / 'train.zarr'}", f"episodes={TRAINING}", "seed=0")
    if not (out / "rm" / "card.md").exists():
        robo_rm("train-reward", f"store={out / 'train.zarr'}", f"out={out / 'rm'}", f"steps={STEPS}")
    robo_rm(*record, f"store={out / 'runs.zarr'}", f"episodes={FURTHER}", "seed=2000")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/monitor"))
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    prepare(arguments.out)
    model = load_reward_model(arguments.out / "rm")
    store, training = (DemoStore.open(arguments.out / name) for name in ("runs.zarr", "train.zarr"))
    check_model_fits(model, store)
    pictures = image_model(model, training, 0)
    runs = [watch(model, store, uuid, pictures) for uuid in store.uuids]
    found = {}
    for fraction in (0.5, 0.25):
        for seed in arguments.seeds:
            monitor = fit_runs(runs, RATES, float(store.fps), pictures, fraction, seed)
            told = dict(monitor.measured)
            found[f"fraction_{fraction:g}_seed_{seed}"] = told
            for rate in monitor.promised():
                name = f"at_{rate:g}"
                print(
                    f"calibrated on {told['runs_fitted']:3d}, seed {seed}, promise {rate:4.0%}: false alarms "
                    f"{told[f'false_alarms_{name}']:.1%} of {told['successes']}, detected "
                    f"{told[f'detected_{name}']:.1%} of {told['failures']} (stalled {told[f'stalled_{name}']}, failing "
                    f"{told[f'failing_{name}']}, unknown {told[f'unknown_{name}']}), "
                    f"{told[f'delay_median_s_{name}']} s after the last progress, "
                    f"{told[f'before_end_median_s_{name}']} s before the end; done: "
                    f"{told['done_on_successes']:.1%} of successes, {told['done_on_failures']:.1%} of failures",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
