"""The robot's own stop signals (safety mode, program state, a drive's enable): anything but "ok" disarms."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class _Signal:
    name: str
    ok: tuple[object, ...]
    heartbeat: float
    received_at: float = -np.inf
    value: object = None
    good: bool = False


class RobotStops:
    """The newest value of every stop signal. Every method may be called from any thread.

    ``signals``: name -> (values that mean all is well, heartbeat in s: the longest silence; 0: silence is normal).
    """

    def __init__(self, signals: Mapping[str, tuple[Sequence[object], float]]) -> None:
        self._lock = threading.Lock()
        self._signals = {name: _Signal(name, tuple(ok), heartbeat) for name, (ok, heartbeat) in signals.items()}

    def update(self, name: str, value: object, now: float) -> str | None:
        """A signal came; returns why the robot stopped, or None where the value means all is well."""
        with self._lock:
            signal = self._signals[name]
            signal.received_at, signal.value = now, value
            signal.good = any(_same(value, good) for good in signal.ok)
            return None if signal.good else _stopped(signal)

    def overdue(self, now: float) -> str | None:
        """Why a signal that has a heartbeat counts as a stop, or None; for use while armed."""
        with self._lock:
            for signal in self._signals.values():
                if signal.heartbeat > 0 and now - signal.received_at > signal.heartbeat:
                    return _silent(signal, now)
            return None

    def problems(self, now: float) -> list[str]:
        """Why the arm must not be armed, one line each: a stop, silence, or a signal that was never received."""
        lines = []
        with self._lock:
            for signal in self._signals.values():
                if signal.received_at == -np.inf:
                    lines.append(f"the robot's stop signal {signal.name} was never received; start the robot's driver")
                elif not signal.good:
                    lines.append(_stopped(signal))
                elif signal.heartbeat > 0 and now - signal.received_at > signal.heartbeat:
                    lines.append(_silent(signal, now))
        return lines


def _stopped(signal: _Signal) -> str:
    wanted = " or ".join(str(value) for value in signal.ok)
    return f"the robot stopped: {signal.name} is {signal.value}, not {wanted}"


def _silent(signal: _Signal, now: float) -> str:
    return (
        f"the robot's stop signal {signal.name} is silent for {now - signal.received_at:.3f} s, its heartbeat is "
        f"{signal.heartbeat:g} s"
    )


def _same(value: object, good: object) -> bool:
    # True is not 1: a contract that says `ok: [1]` of a Bool was written for another topic.
    return isinstance(value, bool) == isinstance(good, bool) and bool(value == good)
