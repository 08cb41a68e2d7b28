"""Clocks. The core never asks the operating system for the time: it is given a clock, so tests own it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Anything with ``now()``: seconds that only ever grow (a steady clock, never the time of day)."""

    def now(self) -> float:
        """Seconds since some fixed moment."""
        ...


class SteadyClock:
    """The computer's steady clock, untouched by time-of-day changes and simulated time."""

    def now(self) -> float:
        """Seconds since an arbitrary moment."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is moved, for tests and dry runs."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = float(start)

    def now(self) -> float:
        """The time it was set to, s."""
        return self._now

    def advance(self, seconds: float) -> float:
        """Move by ``seconds`` (a fault may want it negative) and return the new time."""
        self._now += float(seconds)
        return self._now
