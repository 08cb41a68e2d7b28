"""Settings of when a served reward model's progress asks for help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robo_rm.monitor.limits import ProgressLimits


@dataclass(frozen=True)
class Watch:
    """When the monitor asks for help. The limits count where the reward model has no calibrated monitor."""

    false_alarm_rate: float = 0.05
    """Highest fraction of successful runs that may raise an alarm: one of the rates of `robo-rm calibrate-monitor`."""

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

    def limits(self) -> ProgressLimits:
        """The fixed limits, checked.

        Raises:
            ConfigError: one is out of range.
        """
        from robo_rm.monitor.limits import ProgressLimits

        limits = ProgressLimits(self.stall_after, self.rise, self.drop, self.drop_for, self.done)
        limits.validate()
        return limits
