"""How fast a LeRobot data set is imported, against plain PyAV decoding and JPEG encoding on the same cores.

    python benchmarks/importing.py [--data DIR] [--rounds 3] [--workers N] [--episodes N] [--json out.json]

Two commands take turns, each from its start to its end and with the same number of processes: ``robo-rm import
lerobot`` into a new store, and ``benchmarks/plain_decoding.py`` on the same videos, which writes nothing. Other work on
the machine so meets both; the figure is the median of the rounds' ratios, of the clock's time and of the processors'
(which other work lengthens less). The import is repeated on the store that is there, which reads nothing but the files'
times, and on a copy elsewhere, which reads all but decodes nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from robo_core.console import print_table, say
from robo_datasets import DemoStore
from robo_datasets.importers.lerobot.v2 import LeRobotV2Source

_PLAIN = Path(__file__).with_name("plain_decoding.py")
_PR_SET_CHILD_SUBREAPER = 36


def timed(command: Sequence[str], compiled: Path) -> tuple[float, float]:
    """Seconds on the clock, and of all processors, until the command and every process of it have ended.

    ``compiled`` is where Python keeps compiled modules, which installed packages have.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(compiled)
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    clock = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:6])} failed: {done.stderr}")
    try:
        while True:
            os.wait()  # helpers that outlive the command for a moment count too
    except ChildProcessError:
        pass
    after = os.times()
    return clock, after.children_user + after.children_system - before.children_user - before.children_system


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
    # Processes whose parent has ended become children of this one, so that their time is counted.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    whole = LeRobotV2Source(arguments.data)
    chosen = whole.episodes[: arguments.episodes]
    videos = [str(path) for episode in chosen for path in whole.files(episode) if path.suffix == ".mp4"]
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store, copy, compiled = Path(folder, "demos.zarr"), Path(folder, "copy"), Path(folder, "compiled")
        shutil.copytree(arguments.data, copy)  # which also warms the file cache

        def bring_in(source: Path, count: int | None = arguments.episodes) -> list[str]:
            words = [f"source={source}", f"store={store}", f"workers={arguments.workers}"]
            words += [] if count is None else [f"episodes=[{','.join(str(e.number) for e in chosen[:count])}]"]
            return [sys.executable, "-m", "robo_core.cli.main", "import", "lerobot", *words]

        def decode(files: Sequence[str]) -> list[str]:
            return [sys.executable, str(_PLAIN), "--workers", str(arguments.workers), *files]

        def measure(name: str, command: Sequence[str]) -> None:
            clock, processors = timed(command, compiled)
            figures.setdefault(f"{name}_s", []).append(clock)
            figures.setdefault(f"{name}_cpu_s", []).append(processors)

        for command in (decode(videos[:2]), bring_in(arguments.data, 2)):
            timed(command, compiled)  # once, to compile
        for _ in range(arguments.rounds):
            shutil.rmtree(store, ignore_errors=True)
            measure("plain", decode(videos))
            measure("import", bring_in(arguments.data))
            measure("again", bring_in(arguments.data))
            measure("moved", bring_in(copy))
        frames = sum(DemoStore.open(store).lengths.values())
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
