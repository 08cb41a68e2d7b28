"""The monitor without a calibration: fixed limits on progress, and no promise about false alarms."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from robo_rm.monitor.settings import Watch
from robo_rm.monitor.watch import DONE, FAILING, STALLED, Verdict


class LimitedRun:
    """Watches one episode. Estimates are smoothed with a median of the last five, which one odd value does not move."""

    def __init__(self, limits: Watch | None = None) -> None:
        self.limits = limits or Watch()
        self.limits.validate()
        self._recent: deque[float] = deque(maxlen=5)
        self._best = -math.inf
        self._mark = -math.inf
        self._rose_at = 0.0
        self._fell_at: float | None = None

    def update(
        self,
        time: float,
        progress: float,
        uncertainty: float = 0.0,
        frames: Mapping[str, npt.NDArray[np.uint8]] | None = None,
    ) -> Verdict:
        """Take one estimate at ``time`` (s, growing) and say how the run stands; only progress is looked at."""
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
            return Verdict(FAILING, f"progress fell from {self._best:.2f} to {level:.2f}; help may be needed")
        if level >= limits.done:
            return Verdict(DONE)
        still = time - self._rose_at
        if still >= limits.stall_after:
            return Verdict(STALLED, f"no progress for {still:.0f} s at {level:.2f}; help may be needed")
        return Verdict()
