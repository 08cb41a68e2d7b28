"""The index plan: which frames a training window shows, and therefore which states and labels it carries.

One array of frame indices is drawn per window, and images, states and labels are all gathered with it, so that no
augmentation can give an image another frame's label. Slot 0 of a window is the episode's first frame, always in view;
slots 1 .. N+1 are a walk through the episode: forward at about the model's gap, now and then standing still or turning
back (rewind). Every random choice is made per window.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from robo_datasets.store.windows import inside
from robo_rm.labels.progress import ProgressLabels
from robo_rm.settings import PlanSettings


class WindowShape(NamedTuple):
    """A window holds the newest frame, ``history`` past frames at ``gap`` frames, and the episode's first one."""

    history: int
    gap: int


@dataclass(frozen=True)
class Windows:
    """B windows of S = history + 2 slots, one from each of ``episode``'s entries.

    ``frames`` (B, S) are frame indices; images and states must be gathered with them. ``supervised`` (B, S) is False
    in slot 0 and in the padding of windows from very short episodes. The labels are those of `ProgressLabels`,
    gathered with the same indices.
    """

    episode: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int64]
    supervised: npt.NDArray[np.bool_]
    stage: npt.NDArray[np.int64] = field(repr=False)
    within: npt.NDArray[np.float32] = field(repr=False)
    progress: npt.NDArray[np.float32] = field(repr=False)
    complete: npt.NDArray[np.bool_] = field(repr=False)


def draw_windows(
    rng: np.random.Generator,
    labels: list[ProgressLabels],
    episodes: npt.ArrayLike,
    shape: WindowShape,
    settings: PlanSettings,
) -> Windows:
    """One training window from each of ``episodes`` (indices into ``labels``)."""
    chosen = np.asarray(episodes, dtype=np.int64)
    walks = [_walk(rng, len(labels[episode].stage), shape, settings) for episode in chosen]
    slots = shape.history + 2
    frames = np.zeros((len(chosen), slots), dtype=np.int64)
    supervised = np.zeros((len(chosen), slots), dtype=np.bool_)
    for row, walk in enumerate(walks):
        frames[row, 1 : 1 + len(walk)] = walk
        supervised[row, 1 : 1 + len(walk)] = True
    return _labelled(labels, chosen, frames, supervised)


def relabelled(windows: Windows, labels: list[ProgressLabels]) -> Windows:
    """The same frames under other labels of the same episodes; what was not supervised is not."""
    return _labelled(labels, windows.episode, windows.frames, windows.supervised)


def regular_window(t: npt.ArrayLike, shape: WindowShape) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The windows that show frames ``t`` (B,) as the newest: indices (B, S) and the slot of the newest frame (B,).

    Slots hold, in the order of time, the first frame and then every frame t - n * gap that exists, n <= history; what
    is left over is filled with frame 0 and, coming after the newest frame, is never looked at.
    """
    newest = np.asarray(t, dtype=np.int64)
    past = np.minimum(newest // shape.gap, shape.history)
    slot = np.arange(shape.history + 1)
    frames = newest[:, None] - (past[:, None] - slot[None, :]) * shape.gap
    frames = np.where(slot[None, :] <= past[:, None], frames, 0)
    first = np.zeros((len(newest), 1), dtype=np.int64)
    return np.concatenate([first, frames], axis=1), past + 1


def _labelled(
    labels: list[ProgressLabels],
    episodes: npt.NDArray[np.int64],
    frames: npt.NDArray[np.int64],
    supervised: npt.NDArray[np.bool_],
) -> Windows:
    def gather(name: str) -> npt.NDArray[Any]:
        return np.stack([getattr(labels[episode], name)[row] for episode, row in zip(episodes, frames, strict=True)])

    stage = gather("stage")
    return Windows(
        episode=episodes,
        frames=frames,
        supervised=supervised & (stage >= 0),
        stage=stage,
        within=gather("within"),
        progress=gather("progress"),
        complete=gather("complete"),
    )


def _walk(rng: np.random.Generator, length: int, shape: WindowShape, settings: PlanSettings) -> npt.NDArray[np.int64]:
    """Frame indices of slots 1 .. N+1, at most that many, each in [0, length)."""
    steps = _steps(rng, shape, settings)
    offsets = np.concatenate([[0], np.cumsum(steps)])
    # A window that would leave the episode is shortened at its end. Then a frame is drawn, and it takes one
    # of the slots that keep the window inside: every frame of the episode is shown about equally often, and
    # a frame near the beginning is shown with as few frames before it as it has when the model is used.
    low = np.minimum.accumulate(offsets)
    high = np.maximum.accumulate(offsets)
    offsets = offsets[: max(1, int(np.searchsorted(high - low, length - 1, side="right")))]
    low_all, high_all = int(offsets.min()), int(offsets.max())
    if rng.random() < settings.hold:
        beyond = int(rng.integers(0, high_all // 2 + 1))
        start = max(-low_all, length - 1 - high_all + beyond)
        return inside(start + offsets, 0, length - 1)[0]
    frame = int(rng.integers(length))
    starts = frame - offsets
    starts = starts[(starts + low_all >= 0) & (starts + high_all < length)]
    if starts.size:
        start = int(rng.choice(starts))
    else:
        start = int(np.clip(frame, -low_all, length - 1 - high_all))
    return start + offsets


def _steps(rng: np.random.Generator, shape: WindowShape, settings: PlanSettings) -> npt.NDArray[np.int64]:
    """The N steps between neighbours: positive forward, 0 standing still, negative back."""
    count = shape.history
    factor = (1 + settings.stretch) ** rng.uniform(-1, 1)
    jitter = rng.uniform(1 - settings.jitter, 1 + settings.jitter, count)
    steps = np.maximum(1, np.rint(shape.gap * factor * jitter)).astype(np.int64)
    if count and rng.random() < settings.pause:
        begin = int(rng.integers(0, count))
        # Half of the pauses last to the end of the window, as when a robot has stopped: time alone is no progress.
        still = count - begin if rng.random() < 0.5 else int(rng.integers(1, count - begin + 1))
        steps[begin : begin + still] = 0
    if count > 1 and rng.random() < settings.hover:
        # To and fro until the end, a part of a gap each way: moving alone is no progress either.
        begin = int(rng.integers(0, count - 1))
        reach = max(1, round(shape.gap * rng.uniform(0.2, 1.0)))
        steps[begin:] = reach * (-1) ** np.arange(count - begin)
    elif count and rng.random() < settings.rewind:
        back = int(rng.integers(1, min(settings.rewind_frames, count) + 1))
        # The frames shown last are shown again in reverse, as far back as the walk has been.
        back = min(back, count // 2)
        if back:
            steps[count - back :] = -steps[count - 2 * back : count - back][::-1]
    return steps
