"""Mean weights by quality of the demonstrations: what weighing makes of pauses, good work and failures.

    python benchmarks/weight_means.py STORE [--json FILE]

STORE is one that `robo-rm record` made and `robo-rm score` scored, such as OUT/tidy_drawer/demos.zarr of
benchmarks/rabc.py. Paused are frames about which no value of the state moves more than 0.02 (rad) within 0.6 s; the
last 0.6 s of an episode are left out there, since a recording runs on after success.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from contenders.rabc_weights import PAPER_HORIZON, SECONDS_AHEAD, learned_progress, true_progress

from robo_core.console import print_table
from robo_core.outputs import write_atomically
from robo_datasets import DemoStore
from robo_rm.weights.rabc import store_weights

STILL = 0.02
PAUSED = "paused frames"


def is_paused(state: np.ndarray, ahead: int) -> np.ndarray:
    """(T,) whether nothing moves about each frame, for states (T, D)."""
    frame, half = np.arange(len(state)), ahead // 2
    earlier, later = np.maximum(frame - half, 0), np.minimum(frame + half, len(state) - 1)
    moved = np.abs(state[later] - state[earlier]).max(axis=1)
    return (moved < STILL) & (frame < len(state) - ahead)


def means(store: DemoStore, weights: dict[str, np.ndarray], ahead: int) -> dict[str, float]:
    """Mean weight of paused frames and of each quality, and the share of clean frames that weigh nothing."""
    rows: dict[str, list[np.ndarray]] = {PAUSED: []}
    for uuid, values in weights.items():
        episode = store.episode(uuid)
        rows[PAUSED].append(values[is_paused(np.asarray(episode["observation.state"][:]), ahead)])
        rows.setdefault(str(episode.attributes["quality"]), []).append(values)
    found = {name: float(np.concatenate(parts).mean()) for name, parts in rows.items()}
    if "clean" in rows:
        found["clean frames of weight 0"] = float((np.concatenate(rows["clean"]) == 0).mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    store = DemoStore.open(options.store)
    ahead = max(2, round(SECONDS_AHEAD * store.fps))
    success = {uuid: store.episode(uuid).success for uuid in store.uuids}
    learned = learned_progress(store)
    made = {
        f"paper, {PAPER_HORIZON} frames": store_weights(learned, PAPER_HORIZON, "paper", success=success),
        f"calibrated, {ahead} frames": store_weights(learned, ahead, success=success),
        "the same, true progress": store_weights(true_progress(store), ahead, success=success),
    }
    table = {name: means(store, result.weights, ahead) for name, result in made.items()}
    columns = list(next(iter(table.values())))
    body = [[name, *(f"{row[column]:.2f}" for column in columns)] for name, row in table.items()]
    print_table(f"mean weights, {options.store}", ["weights", *columns], body)
    if options.json is not None:
        write_atomically(options.json, json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
