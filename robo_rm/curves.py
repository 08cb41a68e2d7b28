"""The picture of a training run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from robo_rm.report.style import GOOD, INK, PREDICTED, WEIGHT, new_figure, place, plain, write_title

_LINES = (("total", INK), ("stage", PREDICTED), ("within stage", WEIGHT), ("progress", GOOD))


def loss_figure(curve: Sequence[Sequence[float]]) -> Figure:
    """Losses over steps, on a logarithmic scale.

    Args:
        curve: rows of step, seconds, and the losses total, stage, within and progress.
    """
    rows = np.asarray(curve, dtype=np.float64)
    figure = new_figure(7.2, 3.6)
    write_title(figure, f"Training loss, {rows[-1, 1]:.0f} s", 0.12)
    axes = plain(place(figure, 0.65, 0.45, 6.3, 2.65))
    for column, (name, colour) in enumerate(_LINES):
        axes.plot(rows[:, 0], np.maximum(rows[:, 2 + column], 1e-6), color=colour, linewidth=1.6, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.legend(frameon=False, fontsize=9, ncols=len(_LINES))
    return figure
