"""The demo store against LeRobotDataset, a diffusion_policy-style zarr, and bare JPEG decoding from memory.

    python benchmarks/store.py [--data DIR] [--seconds 2] [--json store_benchmark.json] [--quick]

All contenders hold the same frames, and read them from the file cache: the disk is not what is measured. A random frame
of LeRobotDataset is an item of it, since it gives no less (frame, state and action, the frame as floats); a random
sample is that for everybody. Random reads are of the same frames in the same order, in rounds that take turns,
so that what else the machine does meets everybody; each figure is the median of its rounds. Frames are those of a
LeRobot v2.1 data set (``--data``, default ../shared/data/g1_pick_bottle) scaled to each size, or made up where that is
not there, and the JSON says which.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from contenders.store import CAMERA, DIM, FPS, WINDOW, Contender, DecodeOnly, DemoStoreContender, LeRobot, PolicyZarr

from robo_core.console import print_table, say
from robo_datasets import DemoStore
from robo_datasets.store.windows import read_ahead
from robo_datasets.video.decoder import opened_video

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from small_demos import smooth_frames

SIZES = ((128, 128), (240, 320))
ROUNDS = 5
STEP_S = 0.02
# Settings of the demo store, the default one first.
STORES: dict[str, dict[str, Any]] = {
    "jpeg": {},
    "jpeg 4:2:0": {"subsampling": "4:2:0"},
    "lossless": {"codec": "lossless"},
    "jpeg + cache": {"cached": True},
    "raw": {"codec": "raw"},
}
# Name, worker processes, whether a thread reads ahead, and seconds a batch that training leaves the processor alone.
LOADERS = (
    ("dataloader_0", 0, False, 0.0),
    ("dataloader_2", 2, False, 0.0),
    ("training_0", 0, False, STEP_S),
    ("training_0_ahead", 0, True, STEP_S),
    ("training_2", 2, False, STEP_S),
)
OPEN_COUNTS = (10, 1000, 10_000)
MEMORY_READS, MEMORY_EPISODES = 50_000, 1500


def load_episodes(data: Path, episodes: int, length: int) -> tuple[list[np.ndarray], str]:
    """Frames (length, 240, 320, 3) of some episodes, and where they come from."""
    videos = sorted(data.glob("videos/*/*/*.mp4"))[:episodes]
    if len(videos) < episodes:
        return [smooth_frames(length, 240, 320, seed=seed) for seed in range(episodes)], "made up"
    found = []
    for path in videos:
        with opened_video(path) as container:
            frames = itertools.islice(container.decode(video=0), length)
            found.append(np.stack([frame.to_ndarray(format="rgb24") for frame in frames]))
    return found, str(data.name)


def scaled(episodes: list[np.ndarray], size: tuple[int, int]) -> list[np.ndarray]:
    if episodes[0].shape[1:3] == size:
        return episodes
    return [
        np.stack([cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA) for frame in frames])
        for frames in episodes
    ]


def rate(read: Callable[[int], Any], numbers: Iterator[int], seconds: float, frames: int = 1) -> float:
    """Frames a second of calling ``read`` for about ``seconds``."""
    done, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        read(next(numbers))
        done += frames
    return done / spent


def in_turns(reads: dict[str, Callable[[int], Any]], top: int, seconds: float, frames: int = 1) -> dict[str, float]:
    """Median rate of each contender over rounds in which they take turns, on the same random numbers."""
    rates: dict[str, list[float]] = {name: [] for name in reads}
    for turn in range(ROUNDS):
        for name, read in reads.items():
            order = iter(np.random.default_rng(turn).integers(top, size=1_000_000).tolist())
            read(next(order))
            rates[name].append(rate(read, order, seconds / ROUNDS, frames))
    return {name: float(np.median(values)) for name, values in rates.items()}


def sequential(reads: dict[str, Callable[[int], Any]], top: int, seconds: float) -> dict[str, float]:
    return {name: rate(read, (number % top for number in range(10**9)), seconds) for name, read in reads.items()}


def loader_rate(
    dataset: Any, workers: int, seconds: float, frames: int, ahead: bool, step: float
) -> tuple[float, float]:
    """Frames a second that a DataLoader of random windows delivers, its start left out, and cores kept busy.

    ``step`` seconds pass after each batch, as while an accelerator works.
    """
    from torch.utils.data import DataLoader, RandomSampler

    busy, began = sum(os.times()[:4]), time.perf_counter()
    endless = RandomSampler(dataset, replacement=True, num_samples=10**9)
    loader = DataLoader(dataset, batch_size=16, sampler=endless, num_workers=workers)
    batches = iter(read_ahead(loader) if ahead else loader)
    next(batches)
    done, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        next(batches)
        done += 16 * frames
        if step:
            time.sleep(step)
    del batches  # waits for the workers, whose time counts from then on
    return done / spent, (sum(os.times()[:4]) - busy) / (time.perf_counter() - began)


def measure_size(episodes: list[np.ndarray], folder: Path, seconds: float) -> dict[str, dict[str, float]]:
    """All figures of one frame size, by contender."""
    stores = [DemoStoreContender(folder / f"{name}.zarr", name, **settings) for name, settings in STORES.items()]
    contenders: list[Contender] = [*stores, LeRobot(folder / "lerobot"), PolicyZarr(folder / "policy.zarr")]
    total = sum(map(len, episodes))
    table: dict[str, dict[str, float]] = {}
    for contender in contenders:
        started = time.perf_counter()
        contender.write(episodes)
        spent = time.perf_counter() - started
        table[contender.name] = {"append": total / spent, "bytes_per_frame": contender.size() / total}
        contender.open()
        say(f"  {contender.name} written in {spent:.1f} s")
    limit = DecodeOnly(stores[0].payloads())
    everybody = [limit, *contenders]
    table = {limit.name: {"bytes_per_frame": limit.size() / total}, **table}
    for what, found in (
        ("random_frames", in_turns({c.name: c.frame for c in everybody}, total, seconds * ROUNDS)),
        ("random_samples", in_turns({c.name: c.sample for c in contenders}, total, seconds * ROUNDS)),
        ("random_windows", in_turns({c.name: c.window for c in everybody}, total - WINDOW, seconds * ROUNDS, WINDOW)),
        ("sequential", sequential({c.name: c.frame for c in everybody}, total, seconds)),
    ):
        for name, value in found.items():
            table[name][what] = value
    for contender in contenders[:-1]:
        for what, workers, ahead, step in LOADERS:
            if ahead and contender not in stores:
                continue
            found_rate, cores = loader_rate(contender.dataset(), workers, 2 * seconds, WINDOW, ahead, step)
            table[contender.name] |= {what: found_rate, f"{what}_cores": cores}
    return table


def open_times(folder: Path, counts: tuple[int, ...]) -> dict[str, float]:
    """Seconds to open a store and ask for its last episode's length."""
    path = folder / "many.zarr"
    store = DemoStore.create(path, {"action": {"shape": (6,), "dtype": "float32"}}, fps=FPS)
    rows = {"action": np.zeros((20, 6), np.float32)}
    sync, os.fsync = os.fsync, lambda handle: None  # building the store is not what is measured
    times = {}
    try:
        for count in counts:
            while len(store) < count:
                with store.writer(task="wait") as episode:
                    episode.extend(rows)
            spent = []
            for _ in range(3):
                started = time.perf_counter()
                opened = DemoStore.open(path)
                if opened[-1].length != 20 or len(opened) != count:
                    raise RuntimeError("the store that was opened is not the one that was written")
                spent.append(time.perf_counter() - started)
            # The first one may have brought the index up to date; it counts like the others.
            times[f"open_{count}_s"] = max(spent)
    finally:
        os.fsync = sync
    return times


def memory_growth(path: Path, reads: int, **settings: Any) -> float:
    """Megabytes of memory that are not file cache, gained over many random reads of many episodes."""
    features = {CAMERA: {"shape": (64, 64, 3), "dtype": "uint8"}, "action": {"shape": (DIM,), "dtype": "float32"}}
    store = DemoStore.create(path, features, fps=FPS, **settings)
    frames, rows = smooth_frames(8, 64, 64), np.zeros((8, DIM), np.float32)
    sync, os.fsync = os.fsync, lambda handle: None  # writing is not what is measured
    try:
        for _ in range(MEMORY_EPISODES):
            with store.writer() as episode:
                episode.extend({CAMERA: frames, "action": rows})
    finally:
        os.fsync = sync
    store = DemoStore.open(path)
    uuids, rng = store.uuids, np.random.default_rng(0)

    def some(count: int) -> None:
        for _ in range(count):
            episode, frame = store.episode(uuids[rng.integers(len(uuids))]), int(rng.integers(8))
            episode[CAMERA][frame], episode["action"][frame]

    some(5000)
    before = anonymous_megabytes()
    some(reads)
    return anonymous_megabytes() - before


def anonymous_megabytes() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return float(line.split()[1]) / 1000
    raise RuntimeError("this system does not tell RssAnon")


def show(size: tuple[int, int], table: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Print one size's table; returns the ratios that are aimed at, by setting of the store."""
    figures = list(dict.fromkeys(key for row in table.values() for key in row))
    rows = [[figure, *(_figure(figure, row) for row in table.values())] for figure in figures]
    print_table(f"{size[0]}x{size[1]}: frames a second (bytes for bytes_per_frame)", ["figure", *table], rows)
    limit, lerobot, policy = (table[name] for name in (DecodeOnly.name, LeRobot.name, PolicyZarr.name))
    ratios = {
        name: {
            "random_frames_of_imdecode": table[name]["random_frames"] / limit["random_frames"],
            "random_frames_of_lerobot": table[name]["random_frames"] / lerobot["random_frames"],
            "random_samples_of_lerobot": table[name]["random_samples"] / lerobot["random_samples"],
            "random_windows_of_lerobot": table[name]["random_windows"] / lerobot["random_windows"],
            "dataloader_0_of_lerobot": table[name]["dataloader_0"] / lerobot["dataloader_0"],
            "dataloader_2_of_lerobot": table[name]["dataloader_2"] / lerobot["dataloader_2"],
            "random_frames_of_policy_zarr": table[name]["random_frames"] / policy["random_frames"],
            "bytes_of_lerobot": table[name]["bytes_per_frame"] / lerobot["bytes_per_frame"],
        }
        for name in STORES
    }
    rows = [[what, *(round(ratios[name][what], 2) for name in STORES)] for what in next(iter(ratios.values()))]
    print_table("ratios of the demo store", ["times", *STORES], rows)
    for name, found in ratios.items():
        met = found["random_frames_of_lerobot"] >= 20 and found["random_frames_of_imdecode"] >= 0.8
        say(f"  {name}: random frames {'reach' if met else 'do NOT reach'} 20 x LeRobotDataset and 0.8 x cv2.imdecode")
    return ratios


def _figure(figure: str, row: dict[str, float]) -> float | str:
    if figure not in row:
        return "-"
    return round(row[figure], 2) if figure.endswith("_cores") else round(row[figure])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data/g1_pick_bottle")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure, or each of its rounds")
    parser.add_argument("--json", type=Path, default=Path("store_benchmark.json"))
    parser.add_argument("--quick", action="store_true", help="few frames and few episodes, to try it out")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    episodes, origin = load_episodes(options.data, *((2, 40) if options.quick else (8, 200)))
    counts = OPEN_COUNTS[:2] if options.quick else OPEN_COUNTS
    report: dict[str, Any] = {"frames": origin, "frame_count": sum(map(len, episodes)), "cores": os.cpu_count()}
    folder = Path(tempfile.mkdtemp(prefix="store-benchmark-"))
    try:
        for size in SIZES:
            here = folder / f"{size[0]}x{size[1]}"
            here.mkdir()
            table = measure_size(scaled(episodes, size), here, options.seconds)
            ratios = show(size, table)
            report[f"{size[0]}x{size[1]}"] = {"figures": table, "ratios": ratios}
        for name in ("jpeg", "raw"):
            report[f"memory_growth_{name}_mb"] = memory_growth(folder / f"memory-{name}.zarr", MEMORY_READS, codec=name)
        report |= open_times(folder, counts)
        rows = [[key, value] for key, value in report.items() if isinstance(value, float)]
        print_table(f"memory over {MEMORY_READS} reads, and opening", ["figure", "value"], rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    say(f"wrote {options.json}")


if __name__ == "__main__":
    main()
