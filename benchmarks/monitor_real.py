"""What the progress monitor can promise on two public sets of real episodes, both small.

    python benchmarks/monitor_real.py --data ../shared/data --out out/monitor_real [--json FILE]

robometer_quality: 23 episodes of 17 tasks, graded (12 successes, 9 half successes, 2 failures), 16 stills each over
the whole episode, with the published curves of four reward models. The monitor is calibrated on these curves.

sentinel_push_chair: 14 rollouts of one policy (4 successes, 10 failures). A reward model trained on the 23 episodes
above, which has seen neither this robot nor this task, leaves all four successes for calibration. Every success has 5
or 6 frames and every failure 9, so time alone tells them apart. An alarm within the time of the longest success
(`early`) cannot come from that.

Failures are watched by a monitor calibrated on all successes, at the lowest rate that these can promise. False alarms
are not measured: no success is left over, and leaving one out counts one alarm by construction, that of the worst run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robo_datasets import DemoStore
from robo_rm import load_reward_model
from robo_rm.monitor.conformal import fewest_runs
from robo_rm.monitor.fitting import Watched, fit_runs, follow, image_model, watch

BELOW_PLOT = -0.05
"""Where a published curve leaves its plot."""


def robo_rm(*words: str) -> None:
    subprocess.run([str(Path(sys.executable).with_name("robo-rm")), *words], check=True)


def best_rate(successes: int) -> float:
    """The lowest rate, in whole percents, that so many successful runs can promise."""
    return next(percent / 100 for percent in range(1, 100) if fewest_runs(percent / 100) <= successes)


def alarms(fitted: Sequence[Watched], watched: Sequence[Watched], rate: float, rate_hz: float) -> list[float | None]:
    """When the monitor, calibrated on the runs ``fitted``, raises an alarm in each of ``watched``, s; None: never."""
    monitor = fit_runs(fitted, [rate], rate_hz, fraction=1)
    return [follow(run, monitor)[rate].alarm_at for run in watched]


def report(name: str, runs: Sequence[Watched], grades: dict[str, str], rate_hz: float) -> dict[str, Any]:
    """Alarms by grade, at the lowest rate that all successes can promise."""
    good = [run for run in runs if run.success]
    rate = best_rate(len(good))
    longest = max(run.time[-1] for run in good)
    row: dict[str, Any] = {"successes": len(good), "rate": rate}
    for grade in sorted({grades[run.uuid] for run in runs if not run.success}):
        bad = [run for run in runs if grades[run.uuid] == grade]
        at = [moment for moment in alarms(good, bad, rate, rate_hz) if moment is not None]
        early = sum(bool(moment <= longest) for moment in at)
        row[grade] = {"runs": len(bad), "detected": len(at), "early": early}
        row[grade]["median_s"] = float(np.median(at)) if at else None
    print(f"{name}: {json.dumps(row)}", flush=True)
    return row


def curves(store: DemoStore, data: Path) -> dict[str, list[Watched]]:
    """The runs of robometer_quality as each published model saw them."""
    published = json.loads((data / "published_curves.json").read_text())
    found: dict[str, list[Watched]] = {}
    for uuid in store.uuids:
        episode = store.episode(uuid)
        place = str(episode.attributes["folder"])
        for model, values in published[place].items():
            progress = np.array([BELOW_PLOT if value is None else value for value in values])
            zeros = np.zeros(len(progress))
            time = np.arange(len(progress)) / store.fps
            found.setdefault(model, []).append(
                Watched(uuid, episode.success is True, time, progress, zeros, zeros, None)
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("out/monitor_real"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    stores = {}
    for name in ("robometer_quality", "sentinel_push_chair"):
        path = options.out / f"{name}.zarr"
        robo_rm("import", "keyframes", f"source={options.data / name}", f"store={path}")
        stores[name] = DemoStore.open(path)
    table = {}
    store = stores["robometer_quality"]
    grades = {uuid: str(store.episode(uuid).attributes["grade"]) for uuid in store.uuids}
    for model_name, runs in curves(store, options.data / "robometer_quality").items():
        table[f"robometer_quality, {model_name}"] = report(model_name, runs, grades, float(store.fps))
    folder = options.out / "rm"
    robo_rm("train-reward", f"store={store.path}", f"out={folder}", "stage_groups=[[]]", "holdout=0", "threads=1")
    model = load_reward_model(folder)
    rollouts = stores["sentinel_push_chair"]
    grades = {uuid: str(rollouts.episode(uuid).attributes["grade"]) for uuid in rollouts.uuids}
    pictures = image_model(model, store, 0)
    for name, compared in (("pictures compared", pictures), ("progress alone", None)):
        runs = [watch(model, rollouts, uuid, compared) for uuid in rollouts.uuids]
        if compared is None:
            runs = [replace(run, uncertainty=np.zeros(len(run.time))) for run in runs]
        table[f"sentinel_push_chair, {name}"] = report(name, runs, grades, float(rollouts.fps))
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
