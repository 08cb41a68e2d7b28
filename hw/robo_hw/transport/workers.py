"""The threads that run the networks: each takes the newest observation of a client, and skips those it missed."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

import numpy as np

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import FrameError
from robo_hw.transport.messages import Message, shortened
from robo_hw.transport.served import Observation, ServedPolicy, ServedProgress


class Asker(Protocol):
    """The client's session, which the answers go to."""

    closed: bool

    def answer(self, message: Message) -> None:
        """Send an answer; from any thread."""


@dataclasses.dataclass
class Job:
    """One observation to answer. ``header``: the message it came in."""

    session: Asker
    observation: Observation
    task: str
    header: Message
    received: float = 0.0
    """When it came, by the server's clock, s."""


Answer: TypeAlias = Callable[[Job], Message]
"""Answers the observations of one client during one episode, and may remember those before."""


class Worker:
    """A thread that answers observations; newest first, older ones are forgotten."""

    def __init__(
        self,
        name: str,
        start: Callable[[str], Answer],
        needs: Mapping[str, tuple[int, ...]],
        report: Callable[[str], None],
    ) -> None:
        self._start, self._needs, self._report = start, dict(needs), report
        self._waiting: dict[Asker, Job] = {}
        self._episodes: dict[Asker, tuple[int, Answer]] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._answered = self._skipped = self._failed = 0
        self._seconds: deque[float] = deque(maxlen=1000)
        self._complaint = ""
        self._began: float | None = None
        self._thread = threading.Thread(target=self._work, name=f"{name}-worker", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        """Have this observation answered next; one that still waits is dropped."""
        with self._changed:
            self._skipped += job.session in self._waiting
            self._waiting[job.session] = job
            self._changed.notify()

    def forget(self, session: Asker) -> None:
        """A client is gone."""
        with self._changed:
            self._waiting.pop(session, None)
            self._episodes.pop(session, None)

    @property
    def busy(self) -> float:
        """Seconds since it began to compute on its present observation; 0 where it waits for one."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def counts(self) -> dict[str, float]:
        """Answers, skipped observations, failures, and the median and 99th percentile of computing, s."""
        seconds = list(self._seconds) or [0.0]
        p50, p99 = np.percentile(seconds, [50, 99])
        return {
            "answers": self._answered,
            "skipped": self._skipped,
            "failures": self._failed,
            "seconds_p50": float(p50),
            "seconds_p99": float(p99),
        }

    def close(self) -> None:
        """End the thread; a network that is computing is waited for, at most 5 s."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(5.0)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                session = next(iter(self._waiting))
                job = self._waiting.pop(session)
            began = self._began = time.monotonic()
            try:
                self._check(job)
                reply = self._recall(job)(job)
            except Exception as error:  # noqa: BLE001 - a policy may raise anything; the client gets its text, the arm stops on silence
                self._failed += 1
                text = str(error) if isinstance(error, FrameError) else f"{type(error).__name__}: {error}"
                if text != self._complaint:
                    self._complaint = text
                    self._report(f"an observation could not be used: {shortened(text, 300)}")
                field = text.partition(":")[0]
                reply = {"type": "error", "field": shortened(field, 200), "message": shortened(text)}
            else:
                self._answered += 1
                self._complaint = ""
                self._seconds.append(time.monotonic() - began)
                header = job.header
                reply |= {"episode": header["episode"], "observed_at": header["observed_at"]}
            self._began = None
            session.answer({**reply, "epoch": job.header["epoch"], "sequence": job.observation.sequence})
            if session.closed:  # it went while its observation was worked on
                self.forget(session)

    def _recall(self, job: Job) -> Answer:
        wanted = job.header["episode"]
        with self._changed:
            episode, answer = self._episodes.get(job.session, (None, None))
        if answer is None or episode != wanted:
            answer = self._start(job.task)
            with self._changed:
                self._episodes[job.session] = wanted, answer
        return answer

    def _check(self, job: Job) -> None:
        values = job.observation.values
        for key, shape in self._needs.items():
            if key not in values:
                raise FrameError(f"{key}: needed, and not in the observation")
            if values[key].shape != tuple(shape):
                raise FrameError(f"{key}: shape {values[key].shape} came, {tuple(shape)} is needed")


def policy_worker(policy: ServedPolicy, contract: RobotContract, report: Callable[[str], None]) -> Worker:
    """Answers with chunks. Whether a chunk may be believed is for the core to say; here it only has to be numbers."""
    joints = list(contract.joint_names)
    most = contract.safety.max_horizon * len(joints)

    def start(task: str) -> Answer:
        run = policy.start(task)
        before: float | None = None

        def answer(job: Job) -> Message:
            nonlocal before
            consumed = job.header["consumed"]
            executed = None if before is None else max(consumed - before, 0.0)
            began = time.monotonic()
            raw = np.asarray(run.act(dataclasses.replace(job.observation, executed=executed)))
            before = consumed
            if raw.dtype.kind not in "fiu" or not 1 <= raw.size <= most:
                wanted = f"(H, {len(joints)}) is needed"
                raise FrameError(f"actions: the policy gave {raw.dtype} of shape {raw.shape}; {wanted}")
            return {
                "type": "chunk",
                "core_epoch": job.header["core_epoch"],
                "consumed": consumed,
                "joints": joints,
                # A bad number inside is passed on: the core checks it, names the joint and brakes.
                "actions": raw.astype(np.float64),
                "seconds": time.monotonic() - began,
                "received": job.received,
            }

        return answer

    return Worker("policy", start, policy.info.needs, report)


def progress_worker(progress: ServedProgress, report: Callable[[str], None]) -> Worker:
    """Answers with estimates of progress."""

    def start(task: str) -> Answer:
        run = progress.start(task)

        def answer(job: Job) -> Message:
            estimate = run.step(job.observation)
            if not np.isfinite([estimate.progress, estimate.uncertainty]).all():
                raise FrameError(f"progress: the reward model gave {estimate.progress} +- {estimate.uncertainty}")
            return {
                "type": "progress",
                "progress": min(max(float(estimate.progress), 0.0), 1.0),
                "stage": int(estimate.stage),
                "stage_name": shortened(estimate.stage_name, 200),
                "uncertainty": float(estimate.uncertainty),
                "verdict": shortened(estimate.verdict, 40),
                "false_alarm_rate": float(estimate.false_alarm_rate),
                "message": shortened(estimate.message),
            }

        return answer

    return Worker("progress", start, progress.needs, report)
