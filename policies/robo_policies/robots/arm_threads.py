"""The threads that talk to an arm, so that neither a slow driver nor a slow camera holds the control loop up.

One reads, one writes; both only hand over. The newest command wins, as with a controller's topic.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robo_hw.safety.clock import Clock
from robo_hw.safety.watch import frame_digest
from robo_policies.robots.arm import Arm, CameraFrame, Reading

_KEPT = 64
"""Readings that may wait for the control loop."""


@dataclass(frozen=True)
class Received:
    """One reading: begun and received at these moments of the steady clock, s, with the digest of each new image."""

    reading: Reading
    began: float
    at: float
    digests: Mapping[str, int]


class ArmThreads:
    """Reads and writes one connected arm until it is closed; every method may be called from the control loop.

    Args:
        arm: connected.
        clock: the safety core's.
        rate: readings per second at most.
        patience: s of failing calls after which the arm counts as lost.
    """

    def __init__(self, arm: Arm, clock: Clock, rate: float, patience: float = 1.0) -> None:
        self._arm, self._clock, self._period, self._patience = arm, clock, 1.0 / rate, patience
        self._lock = threading.Lock()
        self._readings: deque[Received] = deque(maxlen=_KEPT)
        self._command: np.ndarray | None = None
        self._changed = threading.Condition(self._lock)
        self._closing = threading.Event()
        self._lost = ""
        self._problems: dict[str, str] = {}
        self._failing: dict[str, float] = {}
        self.reads = self.writes = self.failures = 0
        self.read_seconds: deque[float] = deque(maxlen=2000)
        self.write_seconds: deque[float] = deque(maxlen=2000)
        self._last: dict[str, tuple[int, CameraFrame]] = {}
        self._threads = [
            threading.Thread(target=self._read, name="arm-reader", daemon=True),
            threading.Thread(target=self._write, name="arm-writer", daemon=True),
        ]

    def start(self) -> None:
        """Begin to read."""
        for thread in self._threads:
            thread.start()

    def take(self) -> list[Received]:
        """What came since the last call, oldest first."""
        with self._lock:
            found = list(self._readings)
            self._readings.clear()
        return found

    def send(self, positions: np.ndarray) -> None:
        """Have positions (D,) written; one that was not written yet is replaced."""
        with self._changed:
            self._command = np.array(positions)
            self._changed.notify()

    def problems(self) -> dict[str, str]:
        """What goes wrong now, by part: the driver's reads, its writes, each camera."""
        with self._lock:
            return dict(self._problems)

    @property
    def lost(self) -> str:
        """Why the arm is gone permanently; empty while it is there."""
        with self._lock:
            return self._lost

    def close(self) -> str:
        """End the threads and disconnect; returns what a person has to know where the driver hangs."""
        self._closing.set()
        with self._changed:
            self._changed.notify()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(3.0)
        if any(thread.is_alive() for thread in self._threads):
            return f"the driver of {self._arm.name} hangs and was not disconnected: switch the arm's power off"
        self._arm.disconnect()
        return ""

    # The threads ----------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        due = self._clock.now()
        while not self._closing.is_set() and not self.lost:
            began = self._clock.now()
            try:
                reading = self._arm.read()
            except Exception as error:  # noqa: BLE001 - drivers raise all kinds; silence is what the core checks
                self._failed("reading", error)
            else:
                self._take(reading, began)
            due = max(due + self._period, self._clock.now())
            self._closing.wait(max(due - self._clock.now(), 1e-4))

    def _take(self, reading: Reading, began: float) -> None:
        digests = {}
        for name, frame in reading.images.items():
            digest, before = frame_digest(frame.rgb), self._last.get(name)
            self._last[name] = (digest, frame)
            if before is None or frame.stamp is not None or digest != before[0]:
                digests[name] = digest  # without a stamp, the same pixels are the same image
        now = self._clock.now()
        with self._lock:
            self.reads += 1
            self.read_seconds.append(now - began)
            self._readings.append(Received(reading, began, now, digests))
            self._failing.pop("reading", None)
            kept = {part: line for part, line in self._problems.items() if part == "writing"}
            self._problems = kept | dict(reading.problems)

    def _write(self) -> None:
        while True:
            with self._changed:
                while self._command is None and not self._closing.is_set():
                    self._changed.wait()
                command, self._command = self._command, None
                if command is None or self._lost:
                    return
            began = self._clock.now()
            try:
                self._arm.write(command)
            except Exception as error:  # noqa: BLE001 - drivers raise all kinds
                self._failed("writing", error)
                continue
            with self._lock:
                self.writes += 1
                self.write_seconds.append(self._clock.now() - began)
                self._failing.pop("writing", None)
                self._problems.pop("writing", None)

    def _failed(self, part: str, error: Exception) -> None:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        connected = self._arm.connected
        now = self._clock.now()
        with self._changed:
            self.failures += 1
            self._problems[part] = f"{part} fails: {text}"
            since = self._failing.setdefault(part, now)
            if not connected:
                self._lost = self._lost or f"{self._arm.name} is no longer connected ({text})"
            elif now - since > self._patience:
                self._lost = self._lost or f"{self._arm.name}: {part} has failed for {now - since:.1f} s ({text})"
            if self._lost:
                self._changed.notify_all()
