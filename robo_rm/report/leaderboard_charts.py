"""Images of several models beside each other: their intervals, and their curves over one film strip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from robo_rm.metrics import Interval
from robo_rm.report.style import (
    BAD,
    FAINT,
    GOOD,
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
    write_title,
)

COLOURS = (PREDICTED, WEIGHT, GOOD, "#8e6bbf", BAD, "#c9a227", "#3b7f87", "#7b8794")
WIDTH = 10.0


def model_colour(number: int) -> str:
    """Colour of the model in a place."""
    return COLOURS[number % len(COLOURS)]


def intervals_figure(rows: Mapping[str, Sequence[Interval]], names: Sequence[str], better: Mapping[str, str]) -> Figure:
    """A small panel for each figure: a dot and its interval for each model.

    Args:
        rows: figure -> interval of each model.
        names: of the models.
        better: figure -> ``high`` or ``low``.
    """
    across, panel = 2, 0.34 + 0.19 * len(names)
    down = -(-len(rows) // across)
    left = 0.35 + 0.072 * max(len(name) for name in names)
    figure = new_figure(WIDTH, 0.2 + down * (panel + 0.42))
    width = (WIDTH - across * left - 0.4) / across
    for number, (title, intervals) in enumerate(rows.items()):
        column, row = number % across, number // across
        axes = plain(
            place(figure, left + column * (width + left + 0.2), 0.42 + row * (panel + 0.42), width, panel - 0.2)
        )
        for i, (name, (value, low, high)) in enumerate(zip(names, intervals, strict=True)):
            y = len(names) - 1 - i
            if np.isfinite(low):
                axes.plot([low, high], [y, y], color=model_colour(i), linewidth=2, alpha=0.55, solid_capstyle="round")
            axes.scatter([value], [y], color=model_colour(i), s=26, zorder=3, linewidth=0)
            axes.text(
                -0.02, y, name, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=8, color=INK
            )
        axes.set(ylim=(-0.6, len(names) - 0.4), yticks=[])
        axes.grid(axis="x", color=GRID, linewidth=0.7)
        axes.spines["left"].set_visible(False)
        arrow = "higher is better" if better[title] == "high" else "lower is better"
        axes.set_title(title, loc="left", fontsize=9, color=INK, pad=3, fontweight="bold")
        axes.set_title(arrow, loc="right", fontsize=7.5, color=FAINT, pad=3)
    return figure


def compared_figure(
    title: str,
    fps: float,
    progress: Mapping[str, npt.NDArray[np.float32]],
    truth: npt.NDArray[np.float32] | None,
    success: bool | None,
    frames: npt.NDArray[np.uint8] | None,
) -> Figure:
    """Progress (T,) of several models over one film strip; ``truth`` (T,) with NaN where unknown."""
    left, right, curve = 0.55, 0.15, 1.75
    across = WIDTH - left - right
    strip = 0.0 if frames is None else across / len(frames) * frames.shape[1] / frames.shape[2]
    figure = new_figure(WIDTH, 0.36 + strip + curve + 0.72)
    write_title(figure, shortened_title(title, 78), left)
    down = figure.get_size_inches()[1]
    figure.text(
        1 - right / WIDTH,
        1 - 0.09 / down,
        outcome_word(success),
        color=outcome_colour(success),
        fontsize=9.5,
        fontweight="bold",
        va="top",
        ha="right",
    )
    if frames is not None:
        for i, image in enumerate(frames):
            cell = empty(place(figure, left + i * across / len(frames), 0.36, 0.985 * across / len(frames), strip))
            cell.imshow(image, aspect="auto", interpolation="lanczos")
    axes = plain(place(figure, left, 0.42 + strip, across, curve))
    length = len(next(iter(progress.values())))
    time = np.arange(length) / fps
    if truth is not None:
        axes.plot(time, truth, color=TRUTH, linewidth=1.5, linestyle=(0, (4, 2)), label="true")
    for i, (name, values) in enumerate(progress.items()):
        axes.plot(time, values, color=model_colour(i), linewidth=1.7, label=name)
    axes.set(xlim=(0, time[-1]), ylim=(-0.03, 1.05), yticks=[0, 0.5, 1], xlabel="seconds")
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="lower left",
        bbox_to_anchor=(left / WIDTH, 0.0),
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
        ncols=min(6, len(progress) + 1),
    )
    return figure
