"""Exporting in parts: built beside the target, in parallel, resumable, put in place by one rename.

.<name>.export/plan.json     what is being built, from which content
.<name>.export/done/<job>    one file a finished job, with what the job found
.<name>.export/data/...      becomes the target
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from robo_core.checksummed import digest, replace_durably
from robo_core.console import progress_bar, say
from robo_core.errors import StoreError
from robo_core.processes import run_in_processes
from robo_core.threads import available_cores

Function = Callable[[Any, Path], dict[str, Any]]
"""A job and the data folder to what it found, as plain JSON; importable from a module."""
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
        function: Function,
        jobs: Mapping[str, Any],
        workers: int | None,
        weights: Mapping[str, int],
        unit: str = "frames",
    ) -> dict[str, dict[str, Any]]:
        """Run the jobs that are not done yet and return what all of them found, by job name.

        Args:
            name: shown with the progress bar.
            function: does one job.
            jobs: job name to job, picklable.
            workers: processes; the machine's cores by default, 0 for none besides this one.
            weights: job name to its units of work.
            unit: what is counted.

        Raises:
            StoreError: a job failed.
            WorkerDiedError: a worker process died.
        """
        todo = [job for job in jobs if not (self._done / f"{job}.json").exists()]
        before = sum(weights[job] for job in jobs) - sum(weights[job] for job in todo)
        with progress_bar(name, total=sum(weights[job] for job in jobs), unit=unit, done=before) as bar:

            def finish(result: tuple[str, dict[str, Any]]) -> None:
                job, found = result
                replace_durably(self._done / f"{job}.json", json.dumps(found).encode())
                bar.advance(weights[job])

            run_in_processes(
                partial(_work, function, self.data),
                [(job, jobs[job]) for job in todo],
                min(len(todo), available_cores() if workers is None else workers),
                nullcontext,
                finish,
                f"exporting to {self.target}",
                "finished parts are stored; run the same command again to resume",
            )
        return {job: json.loads((self._done / f"{job}.json").read_bytes()) for job in jobs}

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


def _work(function: Function, data: Path, state: None, job: tuple[str, Any]) -> tuple[str, dict[str, Any]]:
    return job[0], function(job[1], data)


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
