"""An episode at a glance: a film strip, progress under it, stage bands under that; and weights over time.

Everything shares one axis of time, so that a bump in the curve stands under the frame in which it happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from robo_core.errors import ModelError
from robo_rm.report.style import (
    FAINT,
    GRID,
    INK,
    PREDICTED,
    TRUTH,
    WEIGHT,
    empty,
    new_figure,
    outcome_colour,
    outcome_word,
    place,
    plain,
    shortened_title,
    stage_colour,
    write_title,
)
from robo_rm.reward_models.prediction import Prediction
from robo_rm.scoring import episode_kind

if TYPE_CHECKING:
    from robo_datasets import Episode

WIDTH = 10.0
LEFT, RIGHT = 1.05, 0.15
_TITLE_LETTERS = 50
"""So many fit beside the legend and the outcome."""
WEIGHT_SCALE = LinearSegmentedColormap.from_list("weight", ["#eef0f2", "#f6cfa3", WEIGHT])


@dataclass(frozen=True)
class EpisodeView:
    """What is drawn of one episode of T frames."""

    title: str
    fps: float
    progress: npt.NDArray[np.float32]
    """(T,) predicted."""
    stage: npt.NDArray[np.int64]
    """(T,) predicted."""
    stages: Sequence[str]
    success: bool | None = None
    true_progress: npt.NDArray[np.float32] | None = None
    """(T,), NaN where unknown."""
    true_stage: npt.NDArray[np.int64] | None = None
    """(T,), -1 where unlabelled."""
    uncertainty: npt.NDArray[np.float32] | None = None
    """(T,), half-width of the band round the prediction."""
    weights: npt.NDArray[np.float32] | None = None
    """(T,) in [0, 1]."""
    frames: npt.NDArray[np.uint8] | None = None
    """(N, H, W, 3) RGB, taken at the middles of N equal parts of the episode."""

    def __post_init__(self) -> None:
        length = len(self.progress)
        for name in ("stage", "true_progress", "true_stage", "uncertainty", "weights"):
            array = getattr(self, name)
            if array is not None and len(array) != length:
                raise ModelError(f"{self.title}: {name} has {len(array)} frames, the progress {length}")

    def with_weights(self, weights: npt.NDArray[np.float32]) -> EpisodeView:
        """The same view with weights."""
        return replace(self, weights=weights)


def episode_view(
    episode: Episode,
    prediction: Prediction,
    stages: Sequence[str],
    fps: float,
    *,
    true_progress: npt.NDArray[np.float32] | None = None,
    camera: str | None = None,
    images: int = 10,
    title: str | None = None,
    height: int = 120,
) -> EpisodeView:
    """Gather what `episode_figure` draws from a stored episode.

    Args:
        episode: a stored episode (``.uuid .length .success .stage .attributes``, ``episode[key][index]``).
        prediction: of a reward model on it.
        stages: names of the stages.
        fps: frames per second of the store.
        true_progress: (T,) labels or the simulator's own progress; None: no true curve.
        camera: key of the camera for the film strip, ``observation.images.<camera>``; None: no strip.
        images: frames in the strip.
        title: None: the kind of episode and the beginning of its uuid.
        height: rows of the stored thumbnails at most; the frames are thinned to it.
    """
    if title is None:
        title = f"{episode_kind(episode)}, episode {episode.uuid[:8]}"
    frames = None if camera is None else strip_frames(episode, camera, images, height)
    return EpisodeView(
        title=title,
        fps=float(fps),
        progress=prediction.progress,
        stage=prediction.stage,
        stages=list(stages),
        success=episode.success,
        true_progress=true_progress,
        true_stage=np.asarray(episode.stage, dtype=np.int64),
        uncertainty=prediction.uncertainty,
        frames=frames,
    )


def strip_frames(episode: Episode, camera: str, images: int = 10, height: int = 120) -> npt.NDArray[np.uint8]:
    """Frames (images, h, w, 3) at the middles of equal parts of an episode, thinned to about ``height`` rows."""
    middles = ((np.arange(images) + 0.5) * episode.length / images).astype(int)
    frames = np.asarray(episode[camera][[int(i) for i in middles]])
    step = max(1, frames.shape[1] // height)
    return frames[:, ::step, ::step]


def episode_figure(view: EpisodeView) -> Figure:
    """Film strip, progress (predicted and true), stage bands and, where there are any, weights."""
    across = WIDTH - LEFT - RIGHT
    strip = 0.0
    if view.frames is not None and len(view.frames):
        strip = across / len(view.frames) * view.frames.shape[1] / view.frames.shape[2]
    labelled = view.true_stage is not None and bool((view.true_stage >= 0).any())
    curve, band = 1.45, 0.17
    bands = [("predicted stage", view.stage)] + ([("true stage", view.true_stage)] if labelled else [])
    weighted = view.weights is not None
    legend = _legend_rows(view.stages, across) * 0.2
    height = (
        0.36 + (strip + 0.06 if strip else 0) + curve + 0.1 + (len(bands) + weighted) * (band + 0.05) + 0.4 + legend
    )
    figure = new_figure(WIDTH, height)
    _heading(figure, view)
    seconds = (0.0, max(len(view.progress) - 1, 1) / view.fps)
    top = 0.36
    if strip:
        _film(figure, view, top, strip, across)
        top += strip + 0.06
    axes = place(figure, LEFT, top, across, curve)
    _curves(axes, view, seconds)
    # Beside the title, where no curve can run into it.
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="upper right",
        bbox_to_anchor=(1 - (RIGHT + 1.6) / WIDTH, 1 - 0.03 / height),
        borderaxespad=0.1,
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
        handlelength=2.2,
        ncols=2,
    )
    top += curve + 0.1
    rows: list[Axes] = []
    for name, stage in bands:
        row = place(figure, LEFT, top, across, band)
        _band(row, np.asarray(stage), seconds)
        _row_name(row, name)
        rows.append(row)
        top += band + 0.05
    if view.weights is not None:
        row = place(figure, LEFT, top, across, band)
        empty(row)
        row.imshow(view.weights[None], aspect="auto", cmap=WEIGHT_SCALE, vmin=0, vmax=1, extent=(*seconds, 0, 1))
        _row_name(row, "weight")
        rows.append(row)
        top += band + 0.05
    _time_axis(rows[-1], seconds)
    _stage_legend(figure, view.stages, top + 0.36, across)
    return figure


def weights_figure(views: Sequence[EpisodeView], title: str = "Weights over time") -> Figure:
    """Progress of each episode coloured by the weight of its frames, one row an episode.

    Orange counts in full, pale grey not at all; the area under the curve is the weight itself.
    """
    row, gap = 0.95, 0.42
    figure = new_figure(WIDTH, 0.5 + len(views) * (row + gap) + 0.25)
    write_title(figure, title, 0.12)
    longest = max((len(view.progress) - 1) / view.fps for view in views)
    across = WIDTH - LEFT - RIGHT
    top = 0.62
    for view in views:
        if view.weights is None:
            raise ModelError(f"{view.title}: no weights to draw")
        axes = place(figure, LEFT, top, across, row)
        time = np.arange(len(view.progress)) / view.fps
        axes.fill_between(time, 0, view.weights, color=WEIGHT, alpha=0.22, linewidth=0, step="mid")
        points = np.stack([time, view.progress], axis=1)
        line = LineCollection(
            list(np.stack([points[:-1], points[1:]], axis=1)),
            array=(view.weights[:-1] + view.weights[1:]) / 2,
            cmap=LinearSegmentedColormap.from_list("line", ["#b8c0c8", "#e9a864", "#c55f0a"]),
            linewidths=2.2,
            capstyle="round",
        )
        line.set_clim(0, 1)
        axes.add_collection(line)
        axes.set(xlim=(0, longest), ylim=(-0.02, 1.05), yticks=[0, 0.5, 1])
        axes.grid(axis="y", color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.set_title(
            f"{view.title}, {outcome_word(view.success)}, mean weight {float(view.weights.mean()):.2f}",
            loc="left",
            fontsize=9,
            color=INK,
            pad=3,
        )
        top += row + gap
    axes.set_xlabel("seconds")
    figure.text(
        1 - RIGHT / WIDTH,
        1 - 0.1 / figure.get_size_inches()[1],
        "line: progress, orange where its frames count      area: weight",
        ha="right",
        va="top",
        fontsize=8.5,
        color=FAINT,
    )
    return figure


def _heading(figure: Figure, view: EpisodeView) -> None:
    write_title(figure, shortened_title(view.title, _TITLE_LETTERS), LEFT)
    across, down = figure.get_size_inches()
    figure.text(
        1 - RIGHT / across,
        1 - 0.09 / down,
        outcome_word(view.success),
        color=outcome_colour(view.success),
        fontsize=9.5,
        fontweight="bold",
        va="top",
        ha="right",
    )


def _film(figure: Figure, view: EpisodeView, top: float, height: float, across: float) -> None:
    images = view.frames if view.frames is not None else np.zeros((0, 1, 1, 3), np.uint8)
    width = across / max(len(images), 1)
    for i, image in enumerate(images):
        axes = empty(place(figure, LEFT + i * width, top, width * 0.985, height))
        axes.imshow(image, aspect="auto", interpolation="lanczos")


def _curves(axes: Axes, view: EpisodeView, seconds: tuple[float, float]) -> None:
    time = np.arange(len(view.progress)) / view.fps
    if view.uncertainty is not None:
        axes.fill_between(
            time,
            np.clip(view.progress - view.uncertainty, 0, 1),
            np.clip(view.progress + view.uncertainty, 0, 1),
            color=PREDICTED,
            alpha=0.13,
            linewidth=0,
        )
    if view.true_progress is not None:
        axes.plot(time, view.true_progress, color=TRUTH, linewidth=1.5, linestyle=(0, (4, 2)), label="true")
    axes.plot(time, view.progress, color=PREDICTED, linewidth=2.0, label="predicted", solid_capstyle="round")
    axes.set(xlim=seconds, ylim=(-0.03, 1.05), yticks=[0, 0.25, 0.5, 0.75, 1], ylabel="progress")
    axes.set_xticks([])
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def _band(axes: Axes, stage: npt.NDArray[np.int64], seconds: tuple[float, float]) -> None:
    empty(axes)
    starts = np.flatnonzero(np.concatenate([[True], stage[1:] != stage[:-1]]))
    ends = np.append(starts[1:], len(stage))
    scale = (seconds[1] - seconds[0]) / len(stage)
    for start, end in zip(starts, ends, strict=True):
        axes.add_patch(
            Rectangle((start * scale, 0), (end - start) * scale, 1, color=stage_colour(int(stage[start])), linewidth=0)
        )
        # Only where the number fits: about a fiftieth of the width.
        if end - start > len(stage) / 50 and stage[start] >= 0:
            axes.text(
                (start + end) / 2 * scale,
                0.46,
                str(int(stage[start])),
                ha="center",
                va="center",
                fontsize=7.5,
                color=INK,
            )
    axes.set(xlim=seconds, ylim=(0, 1))


def _row_name(axes: Axes, name: str) -> None:
    axes.text(-0.008, 0.48, name, transform=axes.transAxes, ha="right", va="center", fontsize=8, color=FAINT)


def _time_axis(axes: Axes, seconds: tuple[float, float]) -> None:
    plain(axes)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.set_xlim(seconds)
    axes.set_xticks(_ticks(seconds[1]))
    axes.set_xlabel("seconds", labelpad=1)


def _ticks(longest: float) -> list[float]:
    step = next((s for s in (0.5, 1, 2, 5, 10, 20, 60, 120, 300) if longest / s <= 12), longest / 8)
    return [float(t) for t in np.arange(0, longest + 1e-9, step)]


def _legend_rows(stages: Sequence[str], across: float) -> int:
    return len(_legend_lines(stages, across))


def _legend_lines(stages: Sequence[str], across: float) -> list[list[tuple[int, str, float]]]:
    """Stage names set in lines: (stage, words, left edge in inches)."""
    lines: list[list[tuple[int, str, float]]] = [[]]
    left = 0.0
    for i, name in enumerate(stages):
        words = f"{i} {name}"
        width = 0.32 + 0.067 * len(words)
        if left and left + width > across:
            lines.append([])
            left = 0.0
        lines[-1].append((i, words, left))
        left += width
    return lines


def _stage_legend(figure: Figure, stages: Sequence[str], top: float, across: float) -> None:
    width, down = figure.get_size_inches()
    for row, line in enumerate(_legend_lines(stages, across)):
        y = 1 - (top + 0.2 * row + 0.1) / down
        for stage, words, left in line:
            figure.patches.append(
                Rectangle(
                    ((LEFT + left) / width, y - 0.05 / down),
                    0.13 / width,
                    0.1 / down,
                    transform=figure.transFigure,
                    color=stage_colour(stage),
                    linewidth=0,
                )
            )
            figure.text((LEFT + left + 0.18) / width, y, words, fontsize=8, color=INK, va="center")
