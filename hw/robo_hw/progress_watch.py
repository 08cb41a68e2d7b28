"""Does the task get on? Looks at estimates of progress and says when they stand still or fall. Advisory only."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from robo_hw.errors import HardwareError


@dataclass(frozen=True)
class ProgressLimits:
    """When to ask for help; progress in [0, 1], times in seconds."""

    stall_after: float = 8.0
    """So long without a rise is a stall."""
    rise: float = 0.02
    """The least that counts as a rise."""
    drop: float = 0.15
    """So far below the best so far, it has gone back."""
    drop_for: float = 1.0
    """For so long, so that one odd estimate does not count."""
    done: float = 0.97
    """From here on the task is taken for done, and standing still is right."""

    def validate(self) -> None:
        """Check the ranges.

        Raises:
            HardwareError: a number is out of range; names it.
        """
        for name, value in vars(self).items():
            if not math.isfinite(value) or value <= 0:
                raise HardwareError(f"{name}={value} must be above 0")
        for name in ("rise", "drop", "done"):
            if getattr(self, name) > 1:
                raise HardwareError(f"{name}={getattr(self, name)} is a share of the task, at most 1")


@dataclass(frozen=True)
class ProgressVerdict:
    """``message`` is empty while all is well."""

    stalled: bool = False
    regressed: bool = False
    message: str = ""


class ProgressWatch:
    """Watches one episode. Estimates are smoothed with a median of the last five, which one odd value does not move."""

    def __init__(self, limits: ProgressLimits | None = None) -> None:
        self.limits = limits or ProgressLimits()
        self.limits.validate()
        self._recent: deque[float] = deque(maxlen=5)
        self._best = -math.inf
        self._mark = -math.inf
        self._rose_at = 0.0
        self._fell_at: float | None = None

    def reset(self) -> None:
        """Begin a new episode."""
        self._recent.clear()
        self._best = self._mark = -math.inf
        self._fell_at = None

    def update(self, time: float, progress: float) -> ProgressVerdict:
        """Take one estimate at ``time`` (s, growing) and say how the task stands."""
        limits = self.limits
        self._recent.append(progress)
        level = sorted(self._recent)[len(self._recent) // 2]
        if level >= self._mark + limits.rise:
            self._mark, self._rose_at = level, time
        self._best = max(self._best, level)
        if level < self._best - limits.drop:
            self._fell_at = time if self._fell_at is None else self._fell_at
        else:
            self._fell_at = None
        if self._fell_at is not None and time - self._fell_at >= limits.drop_for:
            return ProgressVerdict(
                regressed=True, message=f"progress fell from {self._best:.2f} to {level:.2f}; help may be needed"
            )
        still = time - self._rose_at
        if level < limits.done and still >= limits.stall_after:
            return ProgressVerdict(
                stalled=True, message=f"no progress for {still:.0f} s at {level:.2f}; help may be needed"
            )
        return ProgressVerdict()
