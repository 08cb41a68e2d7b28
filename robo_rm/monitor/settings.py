"""Settings of when a reward model's progress asks for help."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robo_core.errors import ConfigError


@dataclass(frozen=True)
class Watch:
    """When the monitor asks for help. The limits count where the reward model has no calibrated monitor."""

    false_alarm_rate: float = 0.05
    """Highest fraction of successful runs that may raise an alarm; one of the rates of `robo-rm calibrate-monitor`."""

    stall_after: float = 8.0
    """Seconds without a rise of progress that count as a stall."""
    rise: float = 0.02
    """Smallest increase of progress that counts as a rise."""
    drop: float = 0.15
    """Drop below the best progress so far that counts as going back."""
    drop_for: float = 1.0
    """Seconds that such a drop must last."""
    done: float = 0.97
    """Progress from which the task counts as done."""

    def validate(self) -> None:
        """Check the ranges of the limits.

        Raises:
            ConfigError: a number is out of range; names it.
        """
        for name in ("stall_after", "rise", "drop", "drop_for", "done"):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0:
                raise ConfigError(f"{name}={value} must be above 0")
            if value > 1 and name in ("rise", "drop", "done"):
                raise ConfigError(f"{name}={value} is a fraction of the task, at most 1")
