"""What can go wrong with a run, as numbers that only grow: the largest value so far of each score.

| score | meaning | unit |
|---|---|---|
| stall | longest time without a rise of progress above where it stood or fell to, before the task is nearly done | s |
| regression | how far progress fell below its best | progress |
| uncertainty | the model's own, smoothed | progress |
| unfamiliar | distance of the images from those of training | 1 |
| overtime | time since the start, before the task is nearly done | s |
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SCORES = ("stall", "regression", "uncertainty", "unfamiliar", "overtime")
VERDICTS = {
    "stall": "stalled",
    "overtime": "stalled",
    "regression": "failing",
    "uncertainty": "unknown",
    "unfamiliar": "unknown",
}
"""What an alarm of each score says: the task stands still, goes back, or the model does not know this."""


@dataclass(frozen=True)
class ScoreSettings:
    """How scores are made of estimates; the calibration holds for the settings it was made with."""

    rise: float = 0.02
    """Progress that counts as a rise."""
    fall: float = 0.05
    """Progress that counts as a fall; what is regained after one counts as a rise, so that a dropped and fetched object
    is no stall."""
    nearly_done: float = 0.9
    """From here on standing still and taking time are no fault."""
    smoothing: float = 0.5
    """Seconds over which a median is taken, so that one odd estimate does not count."""


class RunScores:
    """Scores of one run, estimate by estimate. ``rate``: estimates per second, which sets the length of the median."""

    def __init__(self, rate: float, settings: ScoreSettings | None = None) -> None:
        self.settings = settings or ScoreSettings()
        length = max(1, round(self.settings.smoothing * rate))
        self._window = length + 1 - length % 2  # odd, so that the median is one of the values
        self.reset()

    def reset(self) -> None:
        """Begin a new run."""
        self._recent: deque[tuple[float, float, float]] = deque(maxlen=self._window)
        self._start: float | None = None
        self._rose_at = 0.0
        self._mark = -math.inf
        self.level = 0.0
        """Smoothed progress now."""
        self.best = 0.0
        """The highest level so far."""
        self.values: npt.NDArray[np.float64] = np.zeros(len(SCORES))
        """The scores so far, (5,) in the order of ``SCORES``; they never fall."""

    def update(
        self, time: float, progress: float, uncertainty: float = 0.0, unfamiliar: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Take an estimate at ``time`` (s, growing) and return the scores so far.

        A number that is not finite counts as a state that the model does not know.
        """
        settings = self.settings
        numbers = (progress, uncertainty, unfamiliar)
        if not all(math.isfinite(number) for number in numbers):
            self.values[SCORES.index("unfamiliar")] = math.inf
            return self.values.copy()
        if self._start is None:
            self._start = self._rose_at = time
        self._recent.append(numbers)
        self.level, doubt, strange = np.median(np.array(self._recent), axis=0).tolist()
        if self.level >= self._mark + settings.rise:
            self._mark, self._rose_at = self.level, time
        elif self.level < self._mark - settings.fall:
            self._mark = self.level
        self.best = max(self.best, self.level)
        open_ = self.best < settings.nearly_done
        now = (
            time - self._rose_at if open_ else 0.0,
            self.best - self.level,
            doubt,
            strange,
            time - self._start if open_ else 0.0,
        )
        np.maximum(self.values, now, out=self.values)
        return self.values.copy()
