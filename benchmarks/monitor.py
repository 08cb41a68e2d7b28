"""The calibrated monitor on mixed tidy_drawer runs: false alarms, failures detected, and how soon.

    python benchmarks/monitor.py --out out/monitor --json out/monitor.json

Records 100 mixed demonstrations and trains a reward model on them, records 160 further mixed runs that it never sees,
and calibrates on nine tenths (1 % needs 99 successes), a half and a quarter of them; the others are measured, over
several divisions (seeds). Failures take no part in calibrating alarms, so all of them are watched as well. About 20
minutes on two cores; stores and model that are there already are not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from robo_datasets import DemoStore
from robo_rm import load_reward_model
from robo_rm.monitor.conformal import p_value
from robo_rm.monitor.fitting import Watched, fit_runs, follow, image_model, scores_of, watch
from robo_rm.monitor.promise import MonitorCalibration
from robo_rm.monitor.scores import ScoreSettings
from robo_rm.scoring import check_model_fits

TRAINING, FURTHER = 100, 160
RATES = (0.01, 0.05)
FRACTIONS = (0.9, 0.5, 0.25)
DIVISIONS = 200


def robo_rm(*words: str) -> None:
    subprocess.run([str(Path(sys.executable).with_name("robo-rm")), *words], check=True)


def prepare(out: Path) -> None:
    """Both stores and the model; each command skips what is there."""
    record = ("record", "env=tidy_drawer", "quality=mixed")
    robo_rm(*record, f"store={out / 'train.zarr'}", f"episodes={TRAINING}", "seed=0")
    if not (out / "rm" / "card.md").exists():
        robo_rm("train-reward", f"store={out / 'train.zarr'}", f"out={out / 'rm'}")
    robo_rm(*record, f"store={out / 'runs.zarr'}", f"episodes={FURTHER}", "seed=2000")


def of_all_failures(runs: list[Watched], monitor: MonitorCalibration, rate: float) -> dict[str, Any]:
    """How many failures raise an alarm at a rate, and how long after their last progress, s: the median."""
    outcomes = [follow(run, monitor)[rate] for run in runs if not run.success]
    found = [outcome for outcome in outcomes if outcome.alarm_at is not None]
    delays = [outcome.alarm_at - outcome.onset for outcome in found if outcome.alarm_at and outcome.onset is not None]
    median = float(np.median(delays)) if delays else None
    return {"failures": len(outcomes), "detected": len(found), "delay_median_s": median}


def over_divisions(scores: np.ndarray, fraction: float, seed: int = 7) -> dict[str, Any]:
    """Fractions of successes that raise an alarm over divisions of their scores (n, J): mean and 99th percentile."""
    random, count = np.random.default_rng(seed), round(fraction * len(scores))
    alarms: dict[float, list[float]] = {rate: [] for rate in RATES}
    for _ in range(DIVISIONS):
        order = random.permutation(len(scores))
        fitted, others = scores[order[:count]], scores[order[count:]]
        chances = np.array([p_value(fitted, one)[0] for one in others])
        for rate, found in alarms.items():
            found.append(float((chances <= rate + 1e-12).mean()))
    return {f"{rate:g}": (float(np.mean(one)), float(np.quantile(one, 0.99))) for rate, one in alarms.items()}


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
    for fraction in FRACTIONS:
        for seed in arguments.seeds:
            monitor = fit_runs(runs, RATES, float(store.fps), pictures, fraction, seed)
            told: dict[str, Any] = dict(monitor.measured)
            told |= {f"all_failures_at_{rate:g}": of_all_failures(runs, monitor, rate) for rate in monitor.promised()}
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
                    f"{told['done_on_successes']:.1%} of successes, {told['done_on_failures']:.1%} of failures; "
                    f"all failures: {told[f'all_failures_{name}']}",
                    flush=True,
                )
    successes = [run for run in runs if run.success]
    scores = np.array([scores_of(run, float(store.fps), ScoreSettings()).values for run in successes])
    for fraction in FRACTIONS:
        found[f"divisions_{fraction:g}"] = over_divisions(scores, fraction)
        print(f"{DIVISIONS} divisions, {fraction:g} to calibrate: {found[f'divisions_{fraction:g}']}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
