"""Worker processes of an evaluation: a fresh interpreter each, told in JSON what to run, answering in JSON lines.

Not `multiprocessing`: a forked child of a process that has used torch's threads can hang, and a spawned one runs the
user's script again unless it is guarded. Started as `python -m robo_policies.evaluation.worker`.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from robo_core.errors import ModelError, RoboError
from robo_policies.cloning.settings import Execution
from robo_policies.cloning.steering_settings import SteeringSettings
from robo_policies.evaluation.rollouts import Rollout, image_size_of


def run_in_processes(
    folder: Path,
    env: str,
    seed: int,
    jobs: Sequence[Sequence[int]],
    execution: Execution,
    processes: int,
    note: Callable[[Sequence[Rollout]], None],
    steering: SteeringSettings,
) -> None:
    """Deal ``jobs`` (waves of episode numbers) out to ``processes`` workers and pass their rollouts to ``note``.

    Raises:
        ModelError: a worker failed; the message is its last line.
    """
    answers: queue.Queue[tuple[int, str | None]] = queue.Queue()
    workers: list[subprocess.Popen[str]] = []
    logs: list[IO[str]] = []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        for index in range(processes):
            log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed below, after the worker has ended
            worker = subprocess.Popen(
                [sys.executable, "-m", "robo_policies.evaluation.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
            workers.append(worker)
            logs.append(log)
            request = {
                "policy": str(folder),
                "env": env,
                "seed": seed,
                "jobs": [list(job) for job in jobs[index::processes]],
                "execution": asdict(execution),
                "steering": asdict(steering),
            }
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write(json.dumps(request))
            worker.stdin.close()
            threading.Thread(target=_listen, args=(index, worker.stdout, answers), daemon=True).start()
        open_workers = processes
        while open_workers:
            index, line = answers.get()
            if line is None:
                open_workers -= 1
                if workers[index].wait() != 0:
                    raise ModelError(f"an evaluation process failed: {_last_line(logs[index])}")
            elif line.startswith("{"):
                note([Rollout(**rollout) for rollout in json.loads(line)["rollouts"]])
    finally:
        for worker, output in zip(workers, logs, strict=True):
            if worker.poll() is None:
                worker.kill()
            worker.wait()
            if worker.stdout is not None:
                worker.stdout.close()
            output.close()


def _listen(index: int, stream: IO[str], answers: queue.Queue[tuple[int, str | None]]) -> None:
    try:
        for line in stream:
            answers.put((index, line))
    except ValueError:
        pass  # the parent closed the stream because another worker failed
    answers.put((index, None))


def _last_line(log: IO[str]) -> str:
    log.seek(0)
    lines = log.read().strip().splitlines()
    return lines[-1] if lines else "it was killed"


def main() -> int:
    """Run the request on standard input."""
    request: dict[str, Any] = json.load(sys.stdin)
    # Libraries may print; the answers must stay alone on their stream.
    answers: IO[str] = sys.stdout
    sys.stdout = sys.stderr
    import torch

    torch.set_num_threads(1)
    from robo_policies.cloning.learned import load_policy
    from robo_policies.evaluation.evaluate import EnvironmentPool, run_jobs, steered

    def note(rollouts: Sequence[Rollout]) -> None:
        print(json.dumps({"rollouts": [rollout.as_dict() for rollout in rollouts]}), file=answers, flush=True)

    try:
        policy = load_policy(request["policy"], "cpu")
        pool = EnvironmentPool(request["env"], image_size_of(policy))
        with steered(policy, SteeringSettings(**request["steering"])):
            run_jobs(policy, pool, request["seed"], request["jobs"], Execution(**request["execution"]), note)
        pool.close()
    except RoboError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
