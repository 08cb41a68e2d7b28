"""Does weighting by progress pay? Clone a mixed store with several weightings and seeds, and count successes.

    python benchmarks/rabc_quick.py --store demos.zarr --out rabc [--weightings none rabc oracle success_only]
        [--seeds 0 1 2] [--steps 2500] [--episodes 100] [--horizons 3 5 10 20] [--processes 2]

`rabc` reads the weights that `robo-rm score` put into the store; `oracle` computes weights in the same way from the
simulator's true progress, which bounds what a perfect reward model could give. Every run has the same steps, settings
and evaluation starts. Each of `--processes` runs has one core. Results are written to OUT/results.json as they come;
the same command goes on where it was interrupted. The table shows the mean over seeds, with Wilson's interval of all
episodes together.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from robo_datasets import DemoStore
from robo_datasets.console import print_table, progress_bar, say
from robo_datasets.outputs import write_atomically
from robo_rm.metrics.intervals import wilson_interval
from robo_rm.weights.rabc import store_weights

WEIGHTINGS = ("none", "rabc", "oracle", "success_only")
ORACLE = "oracle_weights"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--weightings", nargs="+", default=["none", "rabc"], choices=WEIGHTINGS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--horizons", nargs="+", type=int, default=[5])
    parser.add_argument("--evaluation-seed", type=int, default=2000)
    parser.add_argument("--env", default="tidy_drawer")
    parser.add_argument("--oracle-horizon", type=int, default=25)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], help="further train-policy settings, key=value")
    return parser.parse_args()


def write_oracle_weights(store: DemoStore, horizon: int) -> None:
    """Weights of the calibrated mode from the true progress, under a name of their own."""
    derived = store.derive(ORACLE, provenance={"mode": "calibrated", "horizon": horizon, "of": "simulator.progress"})
    if all(uuid in derived for uuid in store.uuids):
        return
    episodes = {uuid: store.episode(uuid) for uuid in store.uuids}
    weighed = store_weights(
        {uuid: np.asarray(episode["simulator.progress"][:])[:, 0] for uuid, episode in episodes.items()},
        horizon,
        mode="calibrated",
        success={uuid: episode.success for uuid, episode in episodes.items()},
    )
    for uuid in store.uuids:
        derived.write(uuid, {"weight": weighed.weights[uuid]})


def command(*words: str) -> None:
    """Run ``robo-rm`` on one core; its last words are shown where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "robo_rm.cli.main", *words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"robo-rm {' '.join(words)}\n{done.stderr.strip()}")


def run_one(options: argparse.Namespace, weighting: str, seed: int) -> dict[str, Any]:
    folder = options.out / f"{weighting}_{seed}"
    mode = {"oracle": ("weights=rabc", f"weights.name={ORACLE}")}.get(weighting, (f"weights={weighting}",))
    command(
        *("train-policy", f"store={options.store}", "policy=act", *mode, f"steps={options.steps}"),
        *(f"seed={seed}", f"out={folder}", "device=cpu", *options.set),
    )
    result: dict[str, Any] = {"training": json.loads((folder / "metrics.json").read_text())}
    for horizon in options.horizons:
        evaluation = folder / f"evaluation_{horizon}"
        command(
            *("eval-policy", f"policy={folder}", f"env={options.env}", f"episodes={options.episodes}"),
            *(f"seed={options.evaluation_seed}", f"execution.horizon={horizon}", "processes=1", f"out={evaluation}"),
        )
        result[f"horizon_{horizon}"] = json.loads((evaluation / "metrics.json").read_text())
    return result


def show(options: argparse.Namespace, runs: dict[str, Any]) -> list[dict[str, Any]]:
    """Print and return one row per weighting and horizon."""
    rows = []
    for horizon in options.horizons:
        for weighting in options.weightings:
            found = [runs[f"{weighting}_{seed}"][f"horizon_{horizon}"] for seed in options.seeds]
            rates = [100 * metrics["success_rate"] for metrics in found]
            _, low, high = wilson_interval(sum(m["successes"] for m in found), sum(m["episodes"] for m in found))
            rows.append(
                {
                    "horizon": horizon,
                    "weighting": weighting,
                    "success": round(float(np.mean(rates)), 1),
                    "interval": [round(100 * low, 1), round(100 * high, 1)],
                    "seeds": rates,
                    "progress": round(float(np.mean([metrics["progress"] for metrics in found])), 3),
                }
            )
    columns = ["execution horizon", "weighting", "success %", "95 % interval", "each seed", "progress"]
    body = [
        (
            row["horizon"],
            row["weighting"],
            row["success"],
            "{} to {}".format(*row["interval"]),
            ", ".join(f"{rate:.0f}" for rate in row["seeds"]),
            row["progress"],
        )
        for row in rows
    ]
    print_table(f"{options.store}, {options.steps} steps, {options.episodes} episodes a seed", columns, body)
    return rows


def main() -> None:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    store = DemoStore.open(options.store)
    if "oracle" in options.weightings:
        write_oracle_weights(store, options.oracle_horizon)
    path, lock = options.out / "results.json", threading.Lock()
    settings = {key: str(value) for key, value in vars(options).items() if key not in ("out", "processes", "seeds")}
    settings["content_hash"] = store.content_hash()
    settings.pop("weightings")
    report: dict[str, Any] = {"settings": settings, "runs": {}}
    if path.exists():
        earlier = json.loads(path.read_text())
        if earlier["settings"] != settings:
            raise SystemExit(f"{path} belongs to other settings; give another --out")
        report["runs"] = earlier["runs"]
    # All weightings of a seed before the next seed, so that an interrupted comparison is a fair one.
    wanted = [(weighting, seed) for seed in options.seeds for weighting in options.weightings]
    missing = [(weighting, seed) for weighting, seed in wanted if f"{weighting}_{seed}" not in report["runs"]]
    with (
        progress_bar("runs", total=len(wanted), unit="runs", done=len(wanted) - len(missing)) as bar,
        ThreadPoolExecutor(options.processes) as pool,
    ):

        def work(pair: tuple[str, int]) -> None:
            result = run_one(options, *pair)
            with lock:
                report["runs"]["{}_{}".format(*pair)] = result
                write_atomically(path, json.dumps(report, indent=1))
                bar.advance(1, note="{} seed {}".format(*pair))

        for _ in pool.map(work, missing):
            pass
    report["table"] = show(options, report["runs"])
    write_atomically(path, json.dumps(report, indent=1))
    say(f"wrote {path}")


if __name__ == "__main__":
    main()
