"""What benchmarks of many runs share: commands on one core, and cells (runs of one comparison) side by side."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from robo_core.console import progress_bar


class AnyCell(Protocol):
    """One run."""

    @property
    def arm(self) -> str: ...

    @property
    def seed(self) -> int: ...


Cell = TypeVar("Cell", bound=AnyCell)


def run(core: int | None, *words: str) -> None:
    """Run Python on one core; its last words are shown where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        if core is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, {core})
        _, errors = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"python {' '.join(words)}\n{errors.strip()}")


def robo_rm(core: int | None, *words: str) -> None:
    """Run ``robo-rm`` on one core."""
    run(core, "-m", "robo_core.cli.main", *words)


def read_results(out: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """What the finished cells of these studies or tasks have left."""
    return [json.loads(path.read_text()) for name in names for path in sorted((out / name).glob("*/cell.json"))]


def check_settings(folder: Path, finished: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
    """Stop where finished cells were made with other settings."""
    for result in finished:
        for key, value in settings.items():
            if result["settings"].get(key) != value:
                raise SystemExit(
                    f"{folder} holds cells with {key}={result['settings'].get(key)}, not {value}; give another --out"
                )


def run_cells(
    name: str, cells: Sequence[Cell], done: int, processes: int, work: Callable[[Cell, int | None], None]
) -> None:
    """Run cells, each on a core of its own; ``processes`` at once, two where that is 0."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]
    free: queue.Queue[int | None] = queue.Queue()
    for core in cores[: processes or 2]:
        free.put(core)

    def on_free_core(cell: Cell) -> Cell:
        core = free.get()
        try:
            work(cell, core)
        finally:
            free.put(core)
        return cell

    with (
        progress_bar(name, total=len(cells) + done, unit="cells", done=done) as bar,
        ThreadPoolExecutor(free.qsize()) as pool,
    ):
        for cell in pool.map(on_free_core, cells):
            bar.advance(1, note=f"{cell.arm}, seed {cell.seed}")
