"""Whether one episode's signals are plausible."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robo_datasets.doctor.findings import ERROR, WARNING, Finding
from robo_datasets.store.demo_store import DemoStore
from robo_datasets.store.episode import Episode

FROZEN_SECONDS = 0.5
IDLE_SECONDS = 2.0
# A movement is what exceeds this fraction of a dimension's range over the store in one frame.
STILL = 1e-3
# A step of this fraction of the range, that is also this many times the 99th percentile of steps, is a jump.
JUMP_SHARE = 0.3
JUMP_TIMES = 10.0
# Time steps are off where they differ by this factor from 1 / fps.
LATE_FACTOR = 3.0
RATE_TOLERANCE = 0.2
UNITS = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
_LISTED = 3


class Scales:
    """Range of every dimension of a feature over a whole store, (D,), and the 99th percentile of its steps.

    NaN where a dimension never holds a number.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, typical_step: np.ndarray) -> None:
        self.low, self.high, self.typical_step = low, high, typical_step

    @property
    def span(self) -> np.ndarray:
        """high - low, (D,)."""
        return self.high - self.low


def flat_rows(episode: Episode, key: str) -> np.ndarray:
    """A low-dimensional feature as float64 (T, D)."""
    rows = episode[key][:]
    return rows.reshape(len(rows), -1).astype(np.float64)


def finite_rows(episode: Episode, key: str) -> np.ndarray:
    """``flat_rows`` with NaN and infinities, which have a check of their own, replaced by the dimension's median."""
    rows = flat_rows(episode, key)
    bad = ~np.isfinite(rows)
    if bad.any():
        for dim in np.flatnonzero(bad.any(axis=0)):
            good = rows[~bad[:, dim], dim]
            rows[bad[:, dim], dim] = np.median(good) if len(good) else 0.0
    return rows


def check_timestamps(episode: Episode, fps: float) -> Iterator[Finding]:
    """Stamps that do not rise, are in another unit, have holes, or run at another rate."""
    for name, stamps in (("timestamp", episode.timestamp), ("receive_timestamp", episode.receive_timestamp)):
        if stamps is None or len(stamps) < 2:
            continue
        steps = np.diff(stamps)
        back = np.flatnonzero(steps <= 0)
        if len(back):
            at = back[0] + 1
            what = (
                f"{name} does not rise at {len(back)} frames, first at frame {at} ({stamps[at - 1]} to {stamps[at]} s)"
            )
            yield Finding("timestamps", ERROR, episode.uuid, what)
            continue
        median = float(np.median(steps))
        unit = next((unit for unit, size in UNITS.items() if 0.5 < median * fps / size < 2), None)
        if unit:
            what = f"{name} advances by {median:g} a frame: these are {unit}, not seconds"
            yield Finding("timestamps", ERROR, episode.uuid, what)
            continue
        if name != "timestamp":
            continue
        holes = np.flatnonzero(steps > LATE_FACTOR / fps)
        if len(holes):
            worst = holes[np.argmax(steps[holes])]
            what = f"{len(holes)} holes in the time stamps, the longest {steps[worst]:.3f} s after frame {worst}"
            yield Finding("timestamps", WARNING, episode.uuid, what)
        if abs(median * fps - 1) > RATE_TOLERANCE:
            what = f"frames are {median:.4f} s apart, the store says {fps:g} frames/s"
            yield Finding("timestamps", WARNING, episode.uuid, what)


def check_numbers(episode: Episode, store: DemoStore) -> Iterator[Finding]:
    """NaN and infinities."""
    for key, feature in store.schema.items():
        if feature.is_frames or np.dtype(feature.dtype).kind != "f":
            continue
        bad = ~np.isfinite(flat_rows(episode, key))
        if bad.any():
            frame, dim = np.argwhere(bad)[0]
            frames = int(bad.any(axis=1).sum())
            what = f"{key} is NaN or infinite in {frames} frames, first in frame {frame}, dimension {dim}"
            yield Finding("nan", ERROR, episode.uuid, what)


def still_frames(episode: Episode, scales: dict[str, Scales]) -> np.ndarray | None:
    """(T - 1,) bool: nothing of the state moved between a frame and the next; None where no signal ever moves.

    A store of images alone, or one whose only numbers are constant, says nothing about motion.
    """
    still = np.ones(episode.length - 1, bool)
    known = False
    for key, scale in scales.items():
        moving = scale.span > 0
        if not key.startswith("observation.") or not moving.any():
            continue
        known = True
        steps = np.abs(np.diff(finite_rows(episode, key)[:, moving], axis=0))
        still &= ~(steps > STILL * scale.span[moving]).any(axis=1)
    return still if known else None


def check_idle(episode: Episode, fps: float, still: np.ndarray) -> Iterator[Finding]:
    """Spans in which the robot does nothing."""
    spans = runs(still, int(np.ceil(IDLE_SECONDS * fps)))
    if spans:
        seconds = sum(end - start for start, end in spans) / fps
        what = f"idle for {seconds:.1f} s in frames {list_spans(spans)}"
        yield Finding("idle", WARNING, episode.uuid, what)


def check_jumps(episode: Episode, scales: dict[str, Scales]) -> Iterator[Finding]:
    """Steps of the state that no robot makes; objects around it may fall."""
    for key, scale in scales.items():
        robot = key.startswith("observation.") and key != "observation.environment_state"
        if not robot or episode.length < 2:
            continue
        rows = finite_rows(episode, key)
        steps = np.abs(np.diff(rows, axis=0))
        limit = np.maximum(JUMP_SHARE * scale.span, JUMP_TIMES * scale.typical_step)
        # Switches (a gripper that is open or closed) jump by nature.
        moving = (scale.span > 0) & (scale.typical_step > 0)
        jumps = np.argwhere((steps > limit) & moving)
        if len(jumps):
            frame, dim = jumps[0]
            what = (
                f"{key}, dimension {dim} jumps from {rows[frame, dim]:.4g} to {rows[frame + 1, dim]:.4g} "
                f"at frame {frame + 1}"
            )
            more = f" and {len(jumps) - 1} more" if len(jumps) > 1 else ""
            yield Finding("jump", WARNING, episode.uuid, what + more)


def check_stages(episode: Episode, store: DemoStore) -> Iterator[Finding]:
    """Unlabelled frames among labelled ones, and stages that the store does not have."""
    stage = episode.stage
    wrong = np.flatnonzero((stage < -1) | (stage >= len(store.stages)))
    if len(wrong):
        what = f"frame {wrong[0]} has stage {stage[wrong[0]]}; the store has {len(store.stages)} stages"
        yield Finding("stage", ERROR, episode.uuid, what)
    labelled = np.flatnonzero(stage >= 0)
    if not len(labelled):
        return
    inside = stage[labelled[0] : labelled[-1] + 1] < 0
    spans = [(a + labelled[0], b + labelled[0]) for a, b in runs(inside, 1)]
    if spans:
        what = f"{int(inside.sum())} frames between labelled ones have no stage: {list_spans(spans)}"
        yield Finding("stage_gap", WARNING, episode.uuid, what)


def runs(flags: np.ndarray, shortest: int) -> list[tuple[int, int]]:
    """Runs [start, end) of true values that are at least ``shortest`` long."""
    padded = np.concatenate([[False], flags, [False]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(padded))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= shortest]


def list_spans(spans: list[tuple[int, int]]) -> str:
    """The first few spans in words."""
    shown = ", ".join(f"{start} to {end}" for start, end in spans[:_LISTED])
    return shown + (f" and {len(spans) - _LISTED} more" if len(spans) > _LISTED else "")
