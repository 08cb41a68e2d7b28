"""The whole line on a small task: the commands a user would type, one after the other, resumable.

Every part is a ``robo-rm`` command, printed before it runs, so the demo is also the recipe for the user's own data.
A part that has finished with the same settings is not run again; a part that was interrupted resumes,
because each command does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from robo_core.cli.following import without_next
from robo_core.console import PROGRESS_FILE_VARIABLE, progress_bar, read_report, say
from robo_core.errors import RoboError
from robo_core.outputs import write_atomically

POLL_SECONDS = 0.5
SECONDS_TO_STOP = 20.0


@dataclass(frozen=True)
class Step:
    """One part of the line: commands that run side by side, each the words after ``robo-rm``."""

    name: str
    title: str
    commands: tuple[tuple[str, ...], ...]

    def fingerprint(self, before: str) -> str:
        """Identify these commands and all that came before them."""
        return hashlib.sha256(json.dumps([before, self.commands]).encode()).hexdigest()[:16]


class Pipeline:
    """Runs parts in order and remembers in ``folder/parts.json`` which have finished."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "parts.json"
        self._finished: dict[str, dict[str, float | str]] = {}
        if self._path.exists():
            self._finished = json.loads(self._path.read_text())

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time of each finished part, in seconds, over all the runs it took."""
        return {name: float(record["seconds"]) for name, record in self._finished.items()}

    def run(self, parts: Sequence[Step]) -> None:
        """Run the parts that have not finished.

        Raises:
            SystemExit: a command failed or was interrupted; it has told the user why. Carries its exit code.
        """
        fingerprint = ""
        for number, part in enumerate(parts, start=1):
            fingerprint = part.fingerprint(fingerprint)
            heading = f"[{number}/{len(parts)}] {part.title}"
            if self._finished.get(part.name, {}).get("fingerprint") == fingerprint:
                say(f"{heading}: already done")
                continue
            say(heading)
            for words in part.commands:
                say(f"  robo-rm {shlex.join(words)}")
            with self._timed(part.name, fingerprint), without_next():
                self._run_step(part)

    def unfinished(self, parts: Sequence[Step]) -> list[Step]:
        """Those of the parts that `run` would run."""
        fingerprint, left = "", []
        for part in parts:
            fingerprint = part.fingerprint(fingerprint)
            if self._finished.get(part.name, {}).get("fingerprint") != fingerprint:
                left.append(part)
        return left

    @property
    def peak_memory_gib(self) -> float:
        """Largest resident memory of any one process of any part, in GiB."""
        return max((float(record["memory_gib"]) for record in self._finished.values()), default=0.0)

    @contextlib.contextmanager
    def _timed(self, name: str, fingerprint: str) -> Iterator[None]:
        record = self._finished.get(name, {})
        earlier = float(record.get("seconds", 0.0)) if record.get("unfinished") == fingerprint else 0.0
        start = time.monotonic()
        state = "unfinished"
        try:
            yield
            state = "fingerprint"
        finally:
            self._finished[name] = {
                state: fingerprint,
                "seconds": earlier + time.monotonic() - start,
                "memory_gib": max(peak_memory_gib(), float(record.get("memory_gib", 0.0))),
            }
            write_atomically(self._path, json.dumps(self._finished, indent=1))

    def _run_step(self, part: Step) -> None:
        if len(part.commands) == 1:
            from robo_core.cli.main import main

            code = main(list(part.commands[0]))
        else:
            code = run_side_by_side(part.commands, self._folder / "logs")
        if code != 0:
            raise SystemExit(code)


def run_side_by_side(commands: Sequence[tuple[str, ...]], logs: Path) -> int:
    """Run commands as processes of their own, the cores shared out among them, with one bar for all.

    Returns:
        The exit code of the first that failed (its last words are printed), or 0.
    """
    logs.mkdir(parents=True, exist_ok=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = str(max(1, cores // len(commands)))
    processes: list[subprocess.Popen[bytes]] = []
    reports = [logs / f"progress-{index}.json" for index in range(len(commands))]
    outputs = [logs / f"output-{index}.txt" for index in range(len(commands))]
    try:
        for words, report, output in zip(commands, reports, outputs, strict=True):
            report.unlink(missing_ok=True)
            environment = os.environ | {"OMP_NUM_THREADS": threads, PROGRESS_FILE_VARIABLE: str(report)}
            with open(output, "wb") as file:
                command = [sys.executable, "-m", "robo_core.cli.main", *words]
                processes.append(subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment))
        failed = _watch(processes, reports)
    finally:
        _stop(processes)
    if failed is not None:
        print(outputs[failed].read_text(errors="replace")[-4000:], file=sys.stderr)
        return processes[failed].returncode
    for output in outputs:
        say("\n".join(f"  {line}" for line in output.read_text(errors="replace").splitlines()))
    return 0


def _watch(processes: Sequence[subprocess.Popen[bytes]], reports: Sequence[Path]) -> int | None:
    """Show how far all are, as shares of their work, until every one has ended or one has failed: its index."""
    with progress_bar("side by side", total=100.0 * len(processes), unit="%") as bar:
        shown = 0.0
        while True:
            states = [process.poll() for process in processes]
            current, notes = 0.0, []
            for report, state in zip(reports, states, strict=True):
                progress = read_report(report)
                if progress and progress["total"]:
                    current += 100.0 * min(1.0, progress["done"] / progress["total"])
                    notes.append(progress["note"])
                elif state == 0:
                    current += 100.0
            bar.advance(max(0.0, current - shown), note=" | ".join(note for note in notes if note))
            shown = max(shown, current)
            failed = [index for index, state in enumerate(states) if state not in (None, 0)]
            if failed or all(state == 0 for state in states):
                return failed[0] if failed else None
            time.sleep(POLL_SECONDS)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what still runs: ask first, so that each can keep its checkpoint, then insist."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def peak_memory_gib() -> float:
    """Largest resident memory of this process or of any child that has ended, in GiB."""
    # Linux counts in kilobytes.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(own, children) / 2**20


def read_metrics(folder: Path) -> dict[str, float | None]:
    """Read the ``metrics.json`` that a command left in its folder.

    Raises:
        RoboError: it is not there.
    """
    path = folder / "metrics.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise RoboError(f"{path} is missing; remove {folder.parent} and run the demo again") from None
