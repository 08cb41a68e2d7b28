"""Which frames of an episode's videos stand together, by their presentation times.

Container headers are not believed: frames exactly 1/3 s apart have an average rate that depends on how many there are,
a phone's recording changes its rate as it goes, and what an edit list hides is counted. Cameras of an episode are taken
to begin together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robo_core.errors import ImportSourceError

# A step that differs by this fraction from the typical one makes a video one of variable rate.
_UNSTEADY = 0.5
# Rates are the same, and a rate is a common one, within these fractions.
SAME_RATE = 0.02
_COMMON = 0.002
_NTSC = tuple(rate * 1000 / 1001 for rate in (24, 30, 60, 120))
# Cameras of an episode may end this many steps apart: recorders stop them one after the other.
_END_STEPS = 1.5


@dataclass(frozen=True)
class VideoClock:
    """When a video's frames are shown, and its rate."""

    times: np.ndarray
    """(n,) seconds from the first frame on, rising."""
    fps: float
    steady: bool

    @property
    def step(self) -> float:
        """Seconds a frame is typically shown."""
        return 1 / self.fps

    @property
    def end(self) -> float:
        """Seconds to where the last frame ends."""
        return float(self.times[-1]) + self.step


@dataclass(frozen=True)
class FramePlan:
    """An episode's frames: their times, and the frame of each camera that belongs to each."""

    times: np.ndarray
    """(T,) seconds."""
    picks: dict[str, np.ndarray]
    """Camera to (T,) frame numbers of its video, never falling."""
    notes: tuple[str, ...] = ()


def clock_of(times: np.ndarray, where: str) -> VideoClock:
    """The clock of a video from its presentation times (n,) in seconds.

    Raises:
        ImportSourceError: it has fewer than two frames, whose rate nobody knows.
    """
    if len(times) < 2:
        raise ImportSourceError(f"{where} has {len(times)} frames; at least two are needed to know their rate")
    steps = np.diff(times)
    typical = float(np.median(steps))
    if typical <= 0:
        raise ImportSourceError(f"{where} shows several frames at one time; its presentation times are wrong")
    steady = bool((np.abs(steps - typical) <= _UNSTEADY * typical).all())
    # The mean is the finer one: containers that count milliseconds say 33, 33, 34.
    rate = (len(times) - 1) / float(times[-1] - times[0]) if steady else 1 / typical
    return VideoClock(times - times[0], _tidy(rate), steady)


def common_rate(clocks: Sequence[VideoClock]) -> float:
    """The rate of most episodes, of the first among several."""
    counts: dict[float, int] = {}
    for clock in clocks:
        known = next((rate for rate in counts if same_rate(rate, clock.fps)), clock.fps)
        counts[known] = counts.get(known, 0) + 1
    return max(counts, key=lambda rate: counts[rate])


def same_rate(first: float, second: float) -> bool:
    """Whether two rates are one, but for rounding."""
    return abs(first - second) <= SAME_RATE * second


def plan_frames(clocks: Mapping[str, VideoClock], fps: float, convert: bool, where: str) -> FramePlan:
    """Bring the cameras of an episode together.

    Args:
        clocks: by camera; none empty.
        fps: the store's frames per second.
        convert: whether an episode of another steady rate is brought to ``fps`` too.
        where: the episode, for errors and notes.

    Raises:
        ImportSourceError: cameras end at different times, or the rate is another one and is not to be converted.
    """
    leading = max(clocks, key=lambda key: clocks[key].fps)
    lead = clocks[leading]
    ends = {key: clock.end for key, clock in clocks.items()}
    last, first = max(ends, key=lambda key: ends[key]), min(ends, key=lambda key: ends[key])
    slack = _END_STEPS * max(clock.step for clock in clocks.values())
    if ends[last] - ends[first] > slack:
        raise ImportSourceError(
            f"{where}: {first} has {len(clocks[first].times)} frames in {ends[first]:.3f} s, {last} has "
            f"{len(clocks[last].times)} in {ends[last]:.3f} s; all cameras must be cut to the same span"
        )
    notes = []
    if lead.steady and same_rate(lead.fps, fps):
        times = lead.times
    elif lead.steady and not convert:
        raise ImportSourceError(
            f"{where}: {leading} has {lead.fps:g} frames/s, most episodes have {fps:g}; fps={fps:g} brings all of them "
            "to one rate"
        )
    else:
        times = np.arange(max(1, int(np.floor(lead.times[-1] * fps + 1e-6)) + 1)) / fps
        kind = f"{lead.fps:g} frames/s" if lead.steady else "a variable rate"
        notes.append(f"{where} has {kind}; its frames were picked at {fps:g} frames/s")
    # A camera that stops a frame earlier than the others ends the episode.
    times = times[times < ends[first] - 1e-6]
    picks = {key: _shown_at(clock, times, fps) for key, clock in clocks.items()}
    for key, clock in clocks.items():
        if key != leading and not same_rate(clock.fps, lead.fps):
            notes.append(f"{where}: {key} has {clock.fps:g} frames/s, {leading} has {lead.fps:g}; aligned by time")
        elif len(picks[key]) < len(clock.times) and not notes:
            notes.append(f"{where}: {first} ends first, the last frame of {key} was left out")
    return FramePlan(times, picks, tuple(notes))


def _shown_at(clock: VideoClock, times: np.ndarray, fps: float) -> np.ndarray:
    """The frame that is shown at each time, (T,); times may lie half a frame beside those of the video."""
    slack = 0.5 * min(clock.step, 1 / fps)
    return np.maximum(np.searchsorted(clock.times, times + slack, side="right") - 1, 0)


def _tidy(rate: float) -> float:
    """A rate without the rounding of its container's clock."""
    candidates = (float(round(rate)), *_NTSC) if rate >= 1 else (1 / round(1 / rate),)
    nearest = min(candidates, key=lambda candidate: abs(candidate - rate))
    return nearest if nearest > 0 and abs(nearest - rate) <= _COMMON * rate else round(rate, 6)
