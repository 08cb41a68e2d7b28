"""RA-BC weights of the same progress: ours against LeRobot's, in one run, with the largest difference.

    python benchmarks/weights.py [frames=100000] [clock=wall|cpu] [out=benchmarks/results/weights.json]

LeRobot reads its progress from a parquet file and weighs batch by batch; both are counted, as a training run pays both.
With clock=cpu processor time is counted, which leaves out waiting for other work on the machine.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from robo_core.console import print_table
from robo_policies.cloning.lerobot_versions import from_lerobot, lerobot_version
from robo_rm.weights.rabc import store_weights

EPISODE = 400
HORIZON = 25
BATCH = 64


def made_up_progress(frames: int) -> dict[str, np.ndarray]:
    """Episodes of rising, noisy progress with pauses and steps back."""
    rng = np.random.default_rng(0)
    episodes = {}
    for number in range(frames // EPISODE):
        pace = rng.choice([0.0, 1.0, -0.6], size=EPISODE // 20, p=[0.2, 0.7, 0.1]).repeat(20)
        path = np.cumsum(pace + rng.normal(0, 0.2, EPISODE))
        episodes[f"{number:06d}"] = ((path - path.min()) / np.ptp(path)).astype(np.float32)
    return episodes


def lerobot_weights(
    progress: dict[str, np.ndarray], folder: Path, clock: Callable[[], float]
) -> tuple[np.ndarray, float, float]:
    """(raw weights (N,), seconds to read and take statistics, seconds to weigh every frame once)."""
    import pandas as pd

    flat = np.concatenate(list(progress.values()))
    table = pd.DataFrame(
        {
            "index": np.arange(len(flat)),
            "episode_index": np.repeat(np.arange(len(progress)), [len(p) for p in progress.values()]),
            "progress_sparse": flat,
        }
    )
    path = folder / "progress.parquet"
    table.to_parquet(path)
    started = clock()
    theirs = from_lerobot("RABCWeights")(path, chunk_size=HORIZON, device="cpu")
    read = clock() - started
    batches = [np.arange(start, min(start + BATCH, len(flat))) for start in range(0, len(flat), BATCH)]
    started = clock()
    for batch in batches:
        theirs.compute_batch_weights({"index": batch})
    weighed = clock() - started
    # Its batches are scaled to sum to the batch size; for the comparison take what goes into that.
    deltas = np.array([theirs._compute_delta(i) for i in range(len(flat))], dtype=np.float32)
    return theirs._compute_weights(deltas), read, weighed


def main(words: list[str]) -> None:
    """Run the comparison, print the table and write JSON where ``out=`` asks for it."""
    options = dict(word.split("=", 1) for word in words)
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    chosen = options.get("clock", "wall")
    if chosen not in clocks:
        raise SystemExit(f"clock={chosen}: give wall or cpu")
    clock = clocks[chosen]
    progress = made_up_progress(int(options.get("frames", 100_000)))
    frames = sum(map(len, progress.values()))
    seconds = {}
    for mode in ("paper", "calibrated"):
        seconds[mode] = float("inf")
        for _ in range(3):  # the first call also pays for pages of memory never touched before
            started = clock()
            result = store_weights(progress, HORIZON, mode)
            seconds[mode] = min(seconds[mode], clock() - started)
        if mode == "paper":
            ours = np.concatenate(list(result.weights.values()))
    with tempfile.TemporaryDirectory() as folder:
        theirs, read, weighed = lerobot_weights(progress, Path(folder), clock)
    rows = [
        ["robo-rm paper", frames / seconds["paper"], (read + weighed) / seconds["paper"]],
        ["robo-rm calibrated", frames / seconds["calibrated"], (read + weighed) / seconds["calibrated"]],
        [f"LeRobot {lerobot_version()}, reading and weighing", frames / (read + weighed), 1.0],
        [f"LeRobot {lerobot_version()}, weighing alone", frames / weighed, (read + weighed) / weighed],
    ]
    print_table(f"RA-BC weights of {frames} frames", ["", "frames/s", "times LeRobot"], rows)
    difference = float(np.abs(ours - theirs).max())
    print(f"largest difference in paper mode: {difference:.2g}")
    if "out" in options:
        path = Path(options["out"])
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "frames": frames,
            "clock": chosen,
            "difference": difference,
            "rows": {name: [rate, times] for name, rate, times in rows},
        }
        path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
