"""Videos of the best and the worst episodes, as mp4 that browsers play."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from robo_policies.evaluation.rollouts import Rollout

STRIP = 8
"""Frames of a video that are put into a report."""


@dataclass(frozen=True)
class Video:
    """The video of one episode.

    Attributes:
        kind: ``best`` or ``worst``.
        rollout: how it went.
        path: the mp4.
        strip: (STRIP, H, W, 3) uint8, evenly spaced frames from the first to the last.
    """

    kind: str
    rollout: Rollout
    path: Path
    strip: np.ndarray


def best_and_worst(rollouts: Sequence[Rollout], number: int) -> list[tuple[str, Rollout]]:
    """The ``number`` fastest successes, and the ``number`` episodes with the least progress; none comes twice.

    Where nothing succeeds the best are those with the most progress; where all succeed the worst are the slowest.
    """
    ranked = sorted(rollouts, key=lambda one: (not one.success, one.steps if one.success else -one.best_progress))
    best = ranked[:number]
    worst = [one for one in reversed(ranked) if one not in best][:number]
    return [("best", one) for one in best] + [("worst", one) for one in worst]


def write_episode(folder: Path, kind: str, rollout: Rollout, frames: Sequence[np.ndarray], fps: float) -> Video:
    """Write one episode's frames into ``folder``, named by kind, episode and outcome."""
    outcome = "success" if rollout.success else "failure"
    path = folder / f"{kind}_episode_{rollout.episode:03d}_{outcome}.mp4"
    write_video(path, frames, fps)
    chosen = np.linspace(0, len(frames) - 1, STRIP).round().astype(int)
    return Video(kind, rollout, path, np.stack([frames[index] for index in chosen]))


def write_video(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """Write ``frames``, each (H, W, 3) uint8 RGB, as H.264 to ``path``; odd sizes lose their last row or column.

    Raises:
        ValueError: there are no frames.
    """
    import av

    if not frames:
        raise ValueError(f"{path}: no frames to write")
    height, width = (size - size % 2 for size in frames[0].shape[:2])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.mp4")
    with av.open(str(partial), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "20", "preset": "veryfast"}
        for frame in frames:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    partial.replace(path)
