"""How regular the control loop is and how long an observation takes to become motion."""

from __future__ import annotations

from collections import deque

import numpy as np


class Quantiles:
    """Quantiles of the last ``capacity`` values."""

    def __init__(self, capacity: int = 3000) -> None:
        self._values: deque[float] = deque(maxlen=capacity)

    def add(self, value: float) -> None:
        """Take note of one value."""
        self._values.append(value)

    def __len__(self) -> int:
        return len(self._values)

    def quantiles(self, *fractions: float) -> list[float]:
        """The quantiles at ``fractions`` (0 to 1); NaN while there is nothing."""
        if not self._values:
            return [float("nan")] * len(fractions)
        return [float(value) for value in np.quantile(np.array(self._values), fractions)]


class LoopTiming:
    """The control loop's period and its error, as a fraction of the period asked for."""

    def __init__(self, period: float) -> None:
        self.period = period
        self.ticks = 0
        self.late = 0
        """Ticks that came more than half a period late."""
        self.errors = Quantiles()
        self._last: float | None = None

    def tick(self, now: float) -> None:
        """A tick began at ``now``, s."""
        self.ticks += 1
        if self._last is not None:
            error = (now - self._last) / self.period - 1.0
            self.errors.add(abs(error))
            self.late += error > 0.5
        self._last = now
