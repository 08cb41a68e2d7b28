"""Which video frame belongs to which row of a LeRobot episode: by presentation time, within a tolerance."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robo_core.errors import ConfigError, ImportSourceError
from robo_datasets.video.decoder import video_header
from robo_datasets.video.presentation_times import ShownFrames, match_times, shown_frames

ALIGNMENTS = ("time", "index")
# A start that is noted wrong by less than this has drifted; by more, the files are not what the count takes them for.
_DRIFT_S = 2.0
# Of a rate that is even: so near to the rows', relative, that no frame of a long file is counted wrong.
_EVEN = 1e-5


@dataclass(frozen=True)
class LeRobotReading:
    """How a LeRobot dataset is read."""

    cameras: Sequence[str] | None = None
    """Cameras to keep, all by default."""
    size: tuple[int, int] | None = None
    """(height, width) to scale frames to."""
    drop: Collection[str] = ()
    """Features to leave out, also such as cannot be read."""
    video_tolerance: float | None = None
    """Seconds that a row and its frame may lie apart; half a row by default, and then no frame may come twice."""
    align: str = "time"
    """time, or index: the first frame to the first row and so on, whatever the time stamps say."""
    depth_pictures: Collection[str] = ()
    """Cameras of depth in 8 bits that are to be kept as plain images."""

    def check(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: names the one that is wrong.
        """
        if self.align not in ALIGNMENTS:
            raise ConfigError(f"align={self.align} is not one of: {', '.join(ALIGNMENTS)}")
        tolerance = self.video_tolerance
        if tolerance is not None and not (math.isfinite(tolerance) and tolerance >= 0):
            raise ConfigError(f"video_tolerance={tolerance} is not a number of seconds from 0 up")


@dataclass(frozen=True)
class VideoPart:
    """Where an episode's frames of one camera stand."""

    path: Path
    start: float = 0.0
    """Seconds from the start of the file to the first frame."""
    first: float = 0.0
    """``start`` of the first episode in the file."""
    alone: bool = True
    """Whether the file holds this episode and no other."""
    before: int = 0
    """Frames of other episodes in front of it, where the file holds ``total`` frames."""
    total: int = -1
    """Frames of all episodes in the file, end to end; -1 where that is not known."""


@dataclass(frozen=True)
class RowFrames:
    """The frame of every row."""

    ticks: np.ndarray
    """(T,) presentation times in the stream's own units."""
    packets: list[bytes]
    """Hashes of the packets that the frames are decoded from, each once."""
    repeated: int
    """How many rows have the frame of the row before."""
    drift: float
    """Seconds by which the noted start of the episode in its file was wrong."""


def frames_of_rows(part: VideoPart, stamps: np.ndarray, reading: LeRobotReading, rate: float, number: int) -> RowFrames:
    """The frame of every row.

    Args:
        part: where the episode's frames stand.
        stamps: (T,) the rows' time stamps in seconds.
        reading: tolerance and kind of alignment.
        rate: rows per second.
        number: of the episode, for errors.

    Raises:
        ImportSourceError: a row has no frame within the tolerance, or the video goes on behind the last row.
    """
    half = 0.5 / rate
    tolerance = half if reading.video_tolerance is None else reading.video_tolerance
    wanted, shown, drift = _moments(part, stamps, max(tolerance, half), half)
    if reading.align == "index":
        picks, repeated = _by_index(part, shown, wanted, half, number), 0
    else:
        picks, repeated = _by_time(part, shown, wanted, tolerance, reading.video_tolerance is None, rate, number)
    return RowFrames(shown.ticks[picks], [shown.packets[pick] for pick in np.unique(picks)], repeated, drift)


def _moments(part: VideoPart, stamps: np.ndarray, around: float, half: float) -> tuple[np.ndarray, ShownFrames, float]:
    """When the rows' frames are shown on the file's own clock, the frames around these moments, and the drift."""
    if part.alone:
        shown = shown_frames(part.path)
        if len(shown.seconds):
            late = shown.seconds[0] > stamps[0] + half
            if late or match_times(shown.seconds, stamps, around).row is not None:
                return stamps - stamps[0] + shown.seconds[0], shown, 0.0
        return stamps, shown, 0.0
    header = video_header(part.path)
    drift = 0.0
    start = part.start + (header.start - part.first if header.start > part.first + half else 0.0)
    if header.frames == part.total and abs(header.fps * 2 * half - 1) < _EVEN:
        # Episodes fill the file end to end at an even rate, so that counting says where this one begins. Sums of
        # durations, which LeRobot notes, drift by whole frames in long files (lerobot#3177).
        counted = header.start + part.before / header.fps
        drift = start - counted if half < abs(counted - start) < _DRIFT_S else 0.0
    wanted = stamps + start - drift
    return wanted, shown_frames(part.path, wanted[0] - around, wanted[-1] + around), drift


def _by_index(part: VideoPart, shown: ShownFrames, wanted: np.ndarray, half: float, number: int) -> np.ndarray:
    first = 0 if part.alone else int(np.searchsorted(shown.seconds, wanted[0] - half))
    count, rows = len(shown.seconds) - first, len(wanted)
    if count < rows or (part.alone and count > rows):
        raise ImportSourceError(
            f"{part.path} has {count} frames, episode {number} {rows} rows; align=index needs a frame for every row; "
            "skip_bad=true leaves the episode out"
        )
    return np.arange(first, first + rows)


def _by_time(
    part: VideoPart,
    shown: ShownFrames,
    wanted: np.ndarray,
    tolerance: float,
    once: bool,
    rate: float,
    number: int,
) -> tuple[np.ndarray, int]:
    """Frames by row, and how many come again; ``once`` refuses that."""
    matched = match_times(shown.seconds, wanted, tolerance)
    where = f"{part.path} (episode {number})"
    own = (len(shown.seconds) - 1) / max(np.ptp(shown.seconds), 1e-9) if len(shown.seconds) > 1 else 0.0
    about = (
        f"the video has {len(shown.seconds)} frames there, {own:.4g} per second, the episode {len(wanted)} rows, "
        f"{rate:g} per second; video_tolerance=SECONDS allows more, align=index takes frame by frame, skip_bad=true "
        "leaves the episode out"
    )
    if matched.row is not None:
        distance = "" if math.isinf(matched.distance) else f", the nearest is {matched.distance:.4f} s away"
        raise ImportSourceError(
            f"{where} has no frame at row {matched.row} ({wanted[matched.row]:.4f} s) within {tolerance:.4f} s"
            f"{distance}: {about}"
        )
    if matched.repeated and once:
        raise ImportSourceError(f"{where} has one frame for two rows {matched.repeated} times: {about}")
    behind = int((shown.seconds > wanted[-1] + tolerance + 1e-6).sum()) if part.alone else 0
    if behind:
        raise ImportSourceError(f"{where} goes on for {behind} frames behind the last row: {about}")
    return matched.picks, matched.repeated
