"""The picture of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from robo_rm.report.style import GOOD, INK, PREDICTED, WEIGHT, new_figure, place, plain, write_title

_COLOURS = (INK, PREDICTED, WEIGHT, GOOD)
_POINTS = 240


def loss_figure(curve: Sequence[Sequence[float]], losses: Sequence[str]) -> Figure:
    """Losses over steps of a reward model.

    Args:
        curve: rows of step, seconds, and the losses.
        losses: their names.
    """
    rows = np.asarray(curve, dtype=np.float64)
    lines = {name: rows[:, 2 + column] for column, name in enumerate(losses)}
    return curve_figure(rows[:, 0], lines, f"Training loss, {rows[-1, 1]:.0f} s")


def curve_figure(steps: npt.ArrayLike, lines: Mapping[str, npt.ArrayLike], title: str) -> Figure:
    """Up to four lines over steps, on a logarithmic scale, long ones averaged into a few hundred points.

    Args:
        steps: (N,), N >= 1.
        lines: (N,) each, by name.
        title: of the picture.
    """
    figure = new_figure(7.2, 3.6)
    write_title(figure, title, 0.12)
    axes = plain(place(figure, 0.65, 0.45, 6.3, 2.65))
    for (name, values), colour in zip(lines.items(), _COLOURS, strict=False):
        axes.plot(_thin(steps), np.maximum(_thin(values), 1e-6), color=colour, linewidth=1.6, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.legend(frameon=False, fontsize=9, ncols=len(lines))
    return figure


def _thin(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return np.array([part.mean() for part in np.array_split(array, min(_POINTS, len(array)))])
