"""How fast a LeRobot data set is imported, against plain PyAV decoding and JPEG encoding on the same cores.

    python benchmarks/importing.py [--data DIR] [--rounds 3] [--workers N] [--episodes N] [--json out.json]

Both sides use the same number of processes, and a round of each includes starting them. The plain side decodes every
frame of every video and encodes it as the store does (quality 95, 4:4:4), and writes nothing. Rounds take turns, so
that what else the machine does meets both; the figure is the median of the rounds' ratios, of the clock's time and of
the processors' (which other work on the machine does not lengthen). The import is repeated on the store that is there,
which reads nothing but the files' times, and on a copy elsewhere, which reads all but decodes nothing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from robo_core.console import print_table, say
from robo_datasets.importers.lerobot.v2 import LeRobotV2Source
from robo_datasets.importers.run import import_source
from robo_datasets.importers.selection import SelectedSource, Selection
from robo_datasets.store.jpeg import DEFAULT_QUALITY, DEFAULT_SUBSAMPLING, frame_encoder
from robo_datasets.video.decoder import video_frames


def decode_and_encode(path: Path) -> int:
    """Every frame of a video as JPEG; returns how many."""
    count, encode = 0, frame_encoder(DEFAULT_QUALITY, DEFAULT_SUBSAMPLING)
    for frame in video_frames(path):
        encode(frame)
        count += 1
    return count


def plain(videos: list[Path], workers: int) -> int:
    """All videos, in as many processes as the import has."""
    if workers < 2:
        return sum(map(decode_and_encode, videos))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(decode_and_encode, videos))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock, and of all processors, worker processes included."""
    start, before = time.perf_counter(), os.times()
    work()
    after = os.times()
    return time.perf_counter() - start, sum(after[:4]) - sum(before[:4])


def main() -> None:
    """Run the rounds and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/g1_pick_bottle"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--episodes", type=int, help="only the first so many")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not (arguments.data / "meta/info.json").is_file():
        raise SystemExit(f"{arguments.data} is not a LeRobot v2.1 data set; give --data DIR")
    whole = LeRobotV2Source(arguments.data)
    numbers = [episode.number for episode in whole.episodes[: arguments.episodes]]
    selection = Selection([range(number, number + 1) for number in numbers])
    videos = [
        path
        for episode in whole.episodes[: arguments.episodes]
        for path in whole.files(episode)
        if path.suffix == ".mp4"
    ]
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store, copy = Path(folder, "demos.zarr"), Path(folder, "copy")
        shutil.copytree(arguments.data, copy)  # which also warms the file cache
        frames = 0

        def bring_in(source: Path) -> None:
            nonlocal frames
            chosen = SelectedSource(LeRobotV2Source(source), selection)
            frames += import_source(chosen, store, workers=arguments.workers).frames

        def measure(name: str, work: Callable[[], object]) -> None:
            clock, processors = timed(work)
            figures.setdefault(f"{name}_s", []).append(clock)
            figures.setdefault(f"{name}_cpu_s", []).append(processors)

        for _ in range(arguments.rounds):
            shutil.rmtree(store, ignore_errors=True)
            frames = 0
            measure("plain", lambda: plain(videos, arguments.workers))
            measure("import", lambda: bring_in(arguments.data))
            measure("again", lambda: bring_in(arguments.data))
            measure("moved", lambda: bring_in(copy))
    for kind in ("s", "cpu_s"):
        pairs = zip(figures[f"plain_{kind}"], figures[f"import_{kind}"], strict=True)
        figures[f"ratio_{kind.removesuffix('_s') if kind != 's' else 'clock'}"] = [one / two for one, two in pairs]
    medians = {name: statistics.median(values) for name, values in figures.items()}
    rows = [(name, medians[name], str([round(value, 3) for value in values])) for name, values in figures.items()]
    print_table("", ["figure", "median", "rounds"], rows)
    say(
        f"{frames} frames, {arguments.workers} processes: the import runs at {medians['ratio_clock']:.2f} of plain "
        f"decoding by the clock, {medians['ratio_cpu']:.2f} by the processors' time"
    )
    if arguments.json:
        record = {**medians, "frames": frames, "workers": arguments.workers}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
