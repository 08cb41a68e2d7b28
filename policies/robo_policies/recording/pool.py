"""Recording with one process per core.

The parent deals out one episode at a time and each worker writes its own into the store. Workers are fresh
interpreters (``python -m robo_policies.recording.pool``), told what to do in JSON lines: safe beside torch's threads,
GL contexts and scripts without a main guard.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import IO, Any

from robo_core.errors import RoboError, StoreError
from robo_datasets import DemoStore
from robo_policies.recording.recorder import Recorded, RecordingPlan, record_episode


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def record_here(
    store: DemoStore, plan: RecordingPlan, indices: Sequence[int], created: str, note: Callable[[Recorded], None]
) -> None:
    """Record in this process."""
    env = plan.make_env()
    try:
        for index in indices:
            note(record_episode(store, env, plan, index, created))
    finally:
        env.close()


def record_in_processes(
    path: str | os.PathLike[str],
    plan: RecordingPlan,
    indices: Sequence[int],
    created: str,
    processes: int,
    note: Callable[[Recorded], None],
) -> None:
    """Record ``indices`` in ``processes`` workers; ``note`` is called in this thread as episodes are committed.

    Raises:
        StoreError: a worker failed; the message is its last line.
    """
    answers: queue.Queue[tuple[int, str | None]] = queue.Queue()
    waiting = list(reversed(indices))
    workers: list[subprocess.Popen[str]] = []
    logs: list[IO[str]] = []
    request = {"store": os.fspath(path), "created": created, "plan": asdict(plan)}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        for number in range(processes):
            logs.append(tempfile.TemporaryFile("w+"))  # noqa: SIM115 - closed below, after the worker has ended
            worker = subprocess.Popen(
                [sys.executable, "-m", "robo_policies.recording.pool"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=logs[-1],
                text=True,
                env=environment,
            )
            workers.append(worker)
            threading.Thread(target=_listen, args=(number, worker.stdout, answers), daemon=True).start()
            _tell(worker, request)
            _deal(worker, waiting)
        at_work = processes
        while at_work:
            number, line = answers.get()
            if line is None:
                at_work -= 1
                if workers[number].wait() != 0:
                    raise StoreError(f"a recording process failed: {_last_line(logs[number])}")
            else:
                _deal(workers[number], waiting)
                note(Recorded(**json.loads(line)))
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.terminate()
        for worker, log in zip(workers, logs, strict=False):
            worker.wait()
            for stream in (worker.stdin, worker.stdout):
                if stream is not None:
                    _close(stream)
            log.close()


def _tell(worker: subprocess.Popen[str], message: Any) -> None:
    assert worker.stdin is not None
    try:
        worker.stdin.write(json.dumps(message) + "\n")
        worker.stdin.flush()
    except BrokenPipeError:
        pass  # it died; its end of output tells, with the reason in its log


def _deal(worker: subprocess.Popen[str], waiting: list[int]) -> None:
    if waiting:
        _tell(worker, waiting.pop())
    elif worker.stdin is not None:
        _close(worker.stdin)


def _close(stream: IO[str]) -> None:
    with contextlib.suppress(BrokenPipeError):  # unsent words to a worker that is gone
        stream.close()


def _listen(number: int, stream: IO[str], answers: queue.Queue[tuple[int, str | None]]) -> None:
    for line in stream:
        if line.startswith("{"):
            answers.put((number, line))
    answers.put((number, None))


def _last_line(log: IO[str]) -> str:
    log.seek(0)
    lines = log.read().strip().splitlines()
    return lines[-1] if lines else "it was killed"


def main() -> int:
    """A worker: the plan on the first line of standard input, then an index a line; an answer a line."""
    # Ctrl-C reaches the whole group of processes; the parent decides, and stops us by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + signal.SIGTERM))
    request: dict[str, Any] = json.loads(sys.stdin.readline())
    # Libraries may print; the answers must stay alone on their stream.
    answers, sys.stdout = sys.stdout, sys.stderr
    plan = RecordingPlan(**{**request["plan"], "cameras": tuple(request["plan"]["cameras"])})
    try:
        store = DemoStore.open(request["store"])
        env = plan.make_env()
        for line in iter(sys.stdin.readline, ""):
            recorded = record_episode(store, env, plan, int(line), request["created"])
            print(json.dumps(asdict(recorded)), file=answers, flush=True)
        env.close()
    except RoboError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
