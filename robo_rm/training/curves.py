"""The picture of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from robo_rm.report.style import BAD, GOOD, INK, PREDICTED, WEIGHT, new_figure, place, plain, write_title

_COLOURS = (INK, PREDICTED, WEIGHT, GOOD)
_POINTS = 240


def loss_figure(
    curve: Sequence[Sequence[float]], losses: Sequence[str], held_out: Sequence[Sequence[float]] = ()
) -> Figure:
    """Losses over steps of a reward model.

    Args:
        curve: rows of step, seconds, and the losses.
        losses: their names.
        held_out: rows of step and squared error of progress on held-out episodes.
    """
    rows = np.asarray(curve, dtype=np.float64)
    lines = {name: rows[:, 2 + column] for column, name in enumerate(losses)}
    return curve_figure(rows[:, 0], lines, f"Training loss, {rows[-1, 1]:.0f} s", held_out, "held-out mse")


def curve_figure(
    steps: npt.ArrayLike,
    lines: Mapping[str, npt.ArrayLike],
    title: str,
    held_out: Sequence[Sequence[float]] = (),
    held_out_name: str = "held out",
) -> Figure:
    """Up to four lines over steps, on a logarithmic scale, long ones averaged into a few hundred points.

    Args:
        steps: (N,), N >= 1.
        lines: (N,) each, by name.
        title: of the picture.
        held_out: rows of step and what was measured on held-out episodes then; drawn with dots.
        held_out_name: its name.
    """
    figure = new_figure(7.2, 3.6)
    write_title(figure, title, 0.12)
    axes = plain(place(figure, 0.65, 0.45, 6.3, 2.65))
    for (name, values), colour in zip(lines.items(), _COLOURS, strict=False):
        axes.plot(_thin(steps), np.maximum(_thin(values), 1e-6), color=colour, linewidth=1.6, label=name)
    if len(held_out):
        points = np.asarray(held_out, dtype=np.float64)
        axes.plot(
            points[:, 0], np.maximum(points[:, 1], 1e-6), color=BAD, linestyle="--", marker="o", markersize=3,
            linewidth=1.2, label=held_out_name,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.legend(frameon=False, fontsize=9, ncols=len(lines) + bool(len(held_out)))
    return figure


def _thin(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return np.array([part.mean() for part in np.array_split(array, min(_POINTS, len(array)))])
