"""Append to a store from several processes and kill them at random moments; prints what was found as JSON.

usage: python kill_writers.py STORE KILLS WRITERS SEED
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from robo_datasets import DemoStore

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "helpers"))
from small_demos import FEATURES, add_episode

LONGEST_LIFE_S = 0.06


def write_for_ever(path: Path, seed: int, pipe: int) -> None:
    """Append episodes; a UUID goes into the pipe when its episode is committed."""
    store = DemoStore.open(path)
    rng = np.random.default_rng(seed)
    while True:
        uuid = add_episode(store, length=int(rng.integers(1, 12)), seed=int(rng.integers(1 << 30)))
        os.write(pipe, uuid.encode())


def start_writer(path: Path, seed: int) -> tuple[int, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        write_for_ever(path, seed, writing)
        os._exit(1)
    os.close(writing)
    return child, reading


def main(path: Path, kills: int, writers: int, seed: int) -> dict[str, int]:
    rng = np.random.default_rng(seed)
    if not path.exists():
        DemoStore.create(path, FEATURES, fps=10, stages=["reach", "place"])
    promised: set[str] = set()
    result = {"kills": 0, "committed": 0, "lost": 0, "most_left_behind": 0}
    longest_life = LONGEST_LIFE_S
    # On a busy machine nobody may live long enough to commit anything: let them live longer then.
    while result["kills"] < kills or (not promised and result["kills"] < 50 * kills):
        longest_life *= 1.0 if promised else 1.1
        before = len(list((path / ".staging").glob("*"))) if (path / ".staging").exists() else 0
        children = [start_writer(path, int(rng.integers(1 << 30))) for _ in range(writers)]
        for child, _ in children:
            time.sleep(float(rng.uniform(0, longest_life)))
            os.kill(child, signal.SIGKILL)
        for child, reading in children:
            os.waitpid(child, 0)
            while data := os.read(reading, 36):
                promised.add(data.decode())
            os.close(reading)
        result["kills"] += writers
        store = DemoStore.open(path)
        result["lost"] += len(promised - set(store.uuids))
        left = len(list((path / ".staging").glob("*"))) if (path / ".staging").exists() else 0
        result["most_left_behind"] = max(result["most_left_behind"], left - before)
    for episode in store:
        episode.verify()
        for key in episode:
            assert len(episode[key][:]) == episode.length
    result["committed"] = len(store)
    result["promised"] = len(promised)
    return result


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))))
