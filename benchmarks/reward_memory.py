"""Peak memory of training and scoring a reward model, on a store and on one of ten times its episodes.

    python benchmarks/reward_memory.py --store mixed.zarr --out memory_benchmark [--episodes 30] [--times 10]
        [--steps 40] [--cache 0.2]

The larger store holds each episode ``--times`` times under new names (hard links: the frames lie on the disk once,
and are mapped and read as often as they are named). Training keeps ``--cache`` GB of decoded images, less than the
smaller store has, so that both are beyond it; the larger store is also trained on with the default of 2 GB. Peaks are
those of processes of their own: resident memory (in which mapped files count, that the system takes back when it needs
the room) and the part of it that is the process's own. Run the same command again to resume.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from robo_core.console import print_table, say
from robo_core.outputs import write_atomically
from robo_datasets import DemoStore
from robo_datasets.store.layout import COMMIT_FILE, EPISODES, commit_json, read_commit

COLUMNS = ["episodes", "frames", "work", "kept images, GB", "peak, GB", "of its own, GB", "seconds"]


def copies(source: Path, target: Path, episodes: int, times: int) -> Path:
    """A store of the first ``episodes`` of another, each ``times`` times."""
    if (target / "whole").exists():
        return target
    shutil.rmtree(target, ignore_errors=True)
    (target / EPISODES).mkdir(parents=True)
    shutil.copy(source / "zarr.json", target)
    for name in DemoStore.open(source).uuids[:episodes]:
        for copy in range(times):
            new = name if copy == 0 else str(uuid.uuid5(uuid.UUID(name), str(copy)))
            folder = target / EPISODES / new
            shutil.copytree(source / EPISODES / name, folder, copy_function=os.link)
            commit = read_commit(folder)
            files = {file: (int(entry["crc32c"], 16), entry["bytes"]) for file, entry in commit["files"].items()}
            written, _ = commit_json(new, commit["length"], commit["schema"], files)
            write_atomically(folder / COMMIT_FILE, written)
    (target / "whole").touch()
    return target


def own_memory(stop: threading.Event, found: list[float]) -> None:
    """Note the most memory, in bytes, that belongs to this process alone, until told to stop."""
    while not stop.wait(0.05):
        lines = Path("/proc/self/status").read_text().splitlines()
        own = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
        found[0] = max(found[0], own)


def train(store: Path, out: Path, steps: int, cache: float) -> None:
    """Some steps of training and the held-out figures."""
    from robo_core.cli.main import main as robo_rm

    shutil.rmtree(out, ignore_errors=True)
    settings = (f"steps={steps}", "threads=1", f"cache_gb={cache}")
    if robo_rm(["train-reward", f"store={store}", f"out={out}", *settings]) != 0:
        raise SystemExit("training failed")


def score(store: Path, out: Path) -> None:
    """Progress and weights of the whole store."""
    from robo_core.cli.main import main as robo_rm

    shutil.rmtree(store / "derived", ignore_errors=True)
    if robo_rm(["score", f"model={out}", f"store={store}"]) != 0:
        raise SystemExit("scoring failed")


def measured(work: Callable[[], None]) -> dict[str, float]:
    """Run in this process, which does nothing else, and say what it took."""
    stop, own = threading.Event(), [0.0]
    watch = threading.Thread(target=own_memory, args=(stop, own), daemon=True)
    watch.start()
    start = time.monotonic()
    work()
    seconds = time.monotonic() - start
    stop.set()
    watch.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"peak_gb": peak / 1e9, "own_gb": own[0] / 1e9, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--episodes", type=int, default=30)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--cache", type=float, default=0.2)
    parser.add_argument("--work", choices=["train", "score"], help="used by the benchmark itself")
    options = parser.parse_args()
    model = options.out / "model"
    if options.work is not None:
        work_of: dict[str, Callable[[], None]] = {
            "train": lambda: train(options.store, model, options.steps, options.cache),
            "score": lambda: score(options.store, model),
        }
        print(json.dumps(measured(work_of[options.work])))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "memory.json"
    rows: dict[str, list[float | str]] = json.loads(path.read_text()) if path.exists() else {}
    for times in (1, options.times):
        store = copies(options.store, options.out / f"times_{times}.zarr", options.episodes, times)
        opened = DemoStore.open(store)
        cells = [("train", options.cache), ("score", 0.0)]
        if times > 1:
            cells.insert(1, ("train", 2.0))
        for work, cache in cells:
            name = f"{work}, {times} times, {cache:g} GB"
            if name in rows:
                continue
            say(name)
            command: list[str] = [sys.executable, __file__, "--store", str(store), "--out", str(options.out)]
            command += ["--work", work, "--steps", str(options.steps), "--cache", str(cache)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            kept = f"{cache:g}" if work == "train" else "-"
            numbers = [round(found[key], 2) for key in ("peak_gb", "own_gb", "seconds")]
            rows[name] = [len(opened), sum(opened.lengths.values()), work, kept, *numbers]
            write_atomically(path, json.dumps(rows, indent=1))
    print_table("peak memory", COLUMNS, list(rows.values()))
    say(f"wrote {path}")


if __name__ == "__main__":
    main()
