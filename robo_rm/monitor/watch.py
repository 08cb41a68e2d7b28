r"""The state machine behind the progress monitor: estimates in, one verdict out.

    on_track ----alarm: stall, overtime----> stalled --+
        |  \-----alarm: regression---------> failing --+--> done, when progress reaches the done level
        |   \----alarm: unfamiliar, unsure-> unknown --+
        +---------------------------------------------------> done

An alarm stays until the episode ends or the task is done. Advisory: nothing of the safety core listens to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robo_rm.monitor.conformal import p_value
from robo_rm.monitor.promise import MonitorCalibration
from robo_rm.monitor.scores import SCORES, VERDICTS, RunScores

ON_TRACK, DONE, STALLED, FAILING, UNKNOWN = "on_track", "done", "stalled", "failing", "unknown"
_TEXT = {
    "stall": "no progress for {value:.1f} s",
    "regression": "progress fell by {value:.2f}",
    "uncertainty": "the model is unsure (uncertainty {value:.3f})",
    "unfamiliar": "the images are unlike those of training (distance {value:.1f})",
    "overtime": "running for {value:.1f} s",
}


@dataclass(frozen=True)
class Verdict:
    """How a run stands."""

    state: str = ON_TRACK
    """``on_track``, ``done``, ``stalled``, ``failing`` or ``unknown`` (the model does not know this)."""
    message: str = ""
    """What a person should know; empty while all is well."""
    false_alarm_rate: float = 0.0
    """The smallest offered rate at which this is an alarm; 0 where nothing is promised."""


class MonitoredRun:
    """One run under a calibration. ``rate``: the highest rate of false alarms that is accepted.

    Raises:
        ValueError: the calibration promises no rate of at most ``rate``.
    """

    def __init__(self, calibration: MonitorCalibration, rate: float) -> None:
        offered = [value for value in calibration.promised() if value <= rate + 1e-12]
        if not offered:
            raise ValueError(f"no promise at a rate of {rate:g}; offered: {calibration.promised() or 'none'}")
        self._calibration, self._rates = calibration, sorted(offered)
        self._runs = calibration.scores
        self._scores = RunScores(calibration.rate_hz, calibration.settings)
        self._last: npt.NDArray[np.float64] | None = None
        self._alarm = Verdict()

    @property
    def level(self) -> float:
        """Smoothed progress."""
        return self._scores.level

    def update(
        self,
        time: float,
        progress: float,
        uncertainty: float = 0.0,
        frames: Mapping[str, npt.NDArray[np.uint8]] | None = None,
    ) -> Verdict:
        """Take one estimate at ``time`` (s, growing), with the images it was made from where they are available."""
        images = self._calibration.images
        strange = images.distance(frames) if images is not None and frames is not None else 0.0
        return self.update_measured(time, progress, uncertainty, strange)

    def update_measured(self, time: float, progress: float, uncertainty: float, unfamiliar: float) -> Verdict:
        """The same where the images' distance from training is known already."""
        values = self._scores.update(time, progress, uncertainty, unfamiliar)
        # The p-value only changes when a score does; most estimates change none.
        if self._last is None or (values != self._last).any():
            self._last = values
            self._update_alarm(values)
        if self.level > self._calibration.done_level:
            return Verdict(DONE, "", self._calibration.done_rate or 0.0)
        return self._alarm

    def _update_alarm(self, values: npt.NDArray[np.float64]) -> None:
        p, worst = p_value(self._runs, values)
        reached = [rate for rate in self._rates if p <= rate + 1e-12]
        if not reached:
            return
        name = SCORES[worst]
        if self._alarm.state == ON_TRACK or reached[0] < self._alarm.false_alarm_rate:
            text = _TEXT[name].format(value=values[worst])
            message = f"{text}: at most {reached[0]:.0%} of successful runs come to this"
            state = VERDICTS[name] if self._alarm.state == ON_TRACK else self._alarm.state
            self._alarm = Verdict(state, message, reached[0])
