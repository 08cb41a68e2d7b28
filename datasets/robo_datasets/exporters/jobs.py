"""Exporting in parts: built beside the target, in parallel, resumable, put in place by one rename.

.<name>.export/plan.json     what is being built, from which content
.<name>.export/done/<job>    one file a finished job, with what the job found
.<name>.export/data/...      becomes the target
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from robo_core.checksummed import digest, replace_durably
from robo_core.console import progress_bar, say
from robo_core.errors import StoreError

_PLAN = "plan.json"


class Building:
    """A target that is being built; ``data`` is the folder that will become it.

    Raises:
        StoreError: the target holds something already, or its place cannot be written to.
    """

    def __init__(self, target: str | Path, plan: Mapping[str, Any]) -> None:
        self.target = Path(target)
        if self.target.is_file() or (self.target.is_dir() and any(self.target.iterdir())):
            raise StoreError(f"{self.target} already holds something; give another target")
        self._place = self.target.with_name(f".{self.target.name}.export")
        self.data = self._place / "data"
        self._done = self._place / "done"
        seal = digest(dict(plan))
        try:
            if self._place.exists() and not self._is_ours(seal):
                say(f"{self._place} is an unfinished export of something else; starting over")
                shutil.rmtree(self._place)
            self.data.mkdir(parents=True, exist_ok=True)
            self._done.mkdir(exist_ok=True)
            replace_durably(self._place / _PLAN, json.dumps({"plan": seal}).encode())
        except OSError as error:
            raise StoreError(f"{self._place} cannot be written: {error.strerror}") from error

    def _is_ours(self, seal: str) -> bool:
        try:
            found = json.loads((self._place / _PLAN).read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(found, dict) and found.get("plan") == seal

    def run(
        self,
        name: str,
        function: Callable[[Any, Path], dict[str, Any]],
        jobs: Mapping[str, Any],
        workers: int | None,
        weights: Mapping[str, int],
        unit: str = "frames",
    ) -> dict[str, dict[str, Any]]:
        """Run the jobs that are not done yet and return what all of them found, by job name.

        Args:
            name: shown with the progress bar.
            function: ``function(job, data folder)``, importable from a module; returns plain JSON.
            jobs: job name to job, picklable.
            workers: processes; the machine's cores by default, 0 for none besides this one.
            weights: job name to its units of work.
            unit: what is counted.

        Raises:
            StoreError: a job failed, or a worker process died.
        """
        todo = [job for job in jobs if not (self._done / f"{job}.json").exists()]
        before = sum(weights[job] for job in jobs) - sum(weights[job] for job in todo)
        count = min(len(todo), (os.cpu_count() or 1) if workers is None else workers)
        with progress_bar(name, total=sum(weights[job] for job in jobs), unit=unit, done=before) as bar:
            if count < 2:
                for job in todo:
                    self._finish(job, function(jobs[job], self.data))
                    bar.advance(weights[job])
            else:
                self._run_in_processes(function, {job: jobs[job] for job in todo}, count, weights, bar.advance)
        return {job: json.loads((self._done / f"{job}.json").read_bytes()) for job in jobs}

    def _run_in_processes(
        self,
        function: Callable[[Any, Path], dict[str, Any]],
        jobs: Mapping[str, Any],
        count: int,
        weights: Mapping[str, int],
        advance: Callable[[float], None],
    ) -> None:
        context = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(count, context) as pool:
                futures = {pool.submit(function, job, self.data): name for name, job in jobs.items()}
                try:
                    for future in as_completed(futures):
                        self._finish(futures[future], future.result())
                        advance(weights[futures[future]])
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        except BrokenProcessPool as error:
            raise StoreError(
                f"a worker process died while exporting to {self.target} (out of memory?); run the same command "
                "again to resume"
            ) from error

    def _finish(self, job: str, found: dict[str, Any]) -> None:
        replace_durably(self._done / f"{job}.json", json.dumps(found).encode())

    def put_in_place(self) -> None:
        """Give the finished folder its name.

        Raises:
            StoreError: something stands there now.
        """
        try:
            if self.target.is_dir():
                self.target.rmdir()
            os.rename(self.data, self.target)
        except OSError as error:
            raise StoreError(f"{self.target} cannot be put in place: {error.strerror}") from error
        shutil.rmtree(self._place, ignore_errors=True)


def group_episodes(lengths: Sequence[int], weight: Callable[[int], float], most: float) -> list[list[int]]:
    """Cut episodes 0.. into runs of neighbours whose weights sum to at most ``most``; one alone may weigh more."""
    groups: list[list[int]] = []
    sum_ = 0.0
    for number, length in enumerate(lengths):
        if not groups or sum_ + weight(length) > most:
            groups.append([])
            sum_ = 0.0
        groups[-1].append(number)
        sum_ += weight(length)
    return groups
