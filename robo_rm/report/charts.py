"""Charts of a report: success rates with intervals, stage confusion, ROC, reliability, scores by outcome."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from robo_rm.metrics import auroc, reliability_bins, roc_curve, wilson_interval
from robo_rm.report.style import (
    BAD,
    FAINT,
    GOOD,
    GRID,
    INK,
    PREDICTED,
    UNKNOWN,
    WEIGHT,
    ink_on,
    new_figure,
    place,
    write_title,
)

_BARS = (UNKNOWN, WEIGHT, PREDICTED, GOOD, "#8e6bbf", "#c9a227")


def success_figure(results: Sequence[tuple[str, int, int]], title: str = "Success", level: float = 0.95) -> Figure:
    """Success rates of several policies with Wilson intervals.

    Args:
        results: (name, successes, trials) of each policy; the first is drawn in grey as the reference.
        title: of the chart.
        level: of the intervals.
    """
    row = 0.52
    figure = new_figure(7.2, 1.05 + row * len(results))
    write_title(figure, title, 0.12)
    longest = max(len(name) for name, _, _ in results)
    left = min(0.35 + 0.085 * longest, 2.9)
    axes = place(figure, left, 0.45, 7.2 - left - 0.35, row * len(results))
    for i, (name, successes, trials) in enumerate(results):
        rate, low, high = wilson_interval(successes, trials, level)
        colour = _BARS[i % len(_BARS)]
        y = len(results) - 1 - i
        axes.barh(y, rate, height=0.58, color=colour, alpha=0.85, linewidth=0)
        axes.plot([low, high], [y, y], color=INK, linewidth=1.6, solid_capstyle="butt")
        for end in (low, high):
            axes.plot([end, end], [y - 0.13, y + 0.13], color=INK, linewidth=1.6)
        words = f"{rate:.0%}  ({successes}/{trials})"
        inside = high > 0.72
        axes.text(
            0.015 if inside else high + 0.02,
            y,
            words,
            va="center",
            ha="left",
            fontsize=9.5,
            fontweight="bold",
            color="white" if inside else INK,
        )
        axes.text(-0.015, y, name, va="center", ha="right", fontsize=9.5, color=INK)
    axes.set(xlim=(0, 1), ylim=(-0.55, len(results) - 0.45), yticks=[], xticks=np.linspace(0, 1, 6))
    axes.set_xticklabels([f"{x:.0%}" for x in np.linspace(0, 1, 6)])
    axes.set_xlabel(f"fraction of rollouts that succeeded; lines are {level:.0%} Wilson intervals", labelpad=4)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    return figure


def confusion_figure(counts: npt.NDArray[np.int64], stages: Sequence[str], title: str = "Stage confusion") -> Figure:
    """Fraction of each true stage's frames (rows) that was taken for each stage (columns); (K, K) counts."""
    size = len(stages)
    cell = 0.52 if size <= 8 else 0.34
    left = 0.75 + 0.068 * max(len(name) for name in stages)
    figure = new_figure(left + max(size * cell, 2.9) + 0.2, 1.2 + size * cell)
    write_title(figure, title, 0.12)
    total = counts.sum(axis=1, keepdims=True)
    fraction = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    axes = place(figure, left, 0.75, size * cell, size * cell)
    image = axes.imshow(fraction, cmap="Blues", vmin=0, vmax=1.12, aspect="auto")
    for i in range(size):
        for j in range(size):
            if fraction[i, j] >= 0.005:
                axes.text(
                    j,
                    i,
                    f"{100 * fraction[i, j]:.0f}",
                    ha="center",
                    va="center",
                    fontsize=9 if size <= 8 else 7,
                    color=ink_on(np.asarray(image.cmap(image.norm(fraction[i, j])))),
                )
    axes.set(xticks=range(size), yticks=range(size))
    axes.set_xticklabels([str(i) for i in range(size)])
    axes.set_yticklabels([f"{name}  {i}" for i, name in enumerate(stages)], color=INK)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    across, down = figure.get_size_inches()
    figure.text(left / across, 0.2 / down, "predicted stage, % of the true stage's frames", fontsize=8.5, color=FAINT)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def roc_figure(
    scores: Sequence[tuple[str, npt.ArrayLike]], success: npt.ArrayLike, title: str = "Success against failure"
) -> Figure:
    """ROC curves of one or more scores, (name, (N,)) each, against the outcomes (N,)."""
    figure = new_figure(4.4, 4.3)
    write_title(figure, title, 0.12)
    axes = place(figure, 0.62, 0.5, 3.55, 3.2)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (2, 3)))
    for (name, score), colour in zip(scores, (PREDICTED, WEIGHT, GOOD, BAD), strict=False):
        false, true = roc_curve(score, success)
        axes.plot(
            false,
            true,
            color=colour,
            linewidth=2,
            drawstyle="steps-post",
            label=f"{name}: AUROC {auroc(score, success):.3f}",
        )
    axes.set(
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.02),
        xlabel="fraction of failures passed",
        ylabel="fraction of successes passed",
    )
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.legend(loc="lower right", frameon=False, fontsize=8.5, labelcolor=INK)
    return figure


def reliability_figure(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    title: str = "Is the stage as sure as it says?",
    bins: int = 10,
) -> Figure:
    """Fraction correct against confidence, with the number of frames as the dots' size."""
    figure = new_figure(4.4, 4.3)
    write_title(figure, title, 0.12)
    axes = place(figure, 0.62, 0.5, 3.55, 3.2)
    table = np.array(reliability_bins(confidence, correct, bins))
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (2, 3)))
    axes.plot(table[:, 0], table[:, 1], color=PREDICTED, linewidth=1.6)
    area = 20 + 180 * table[:, 2] / table[:, 2].max()
    axes.scatter(table[:, 0], table[:, 1], s=area, color=PREDICTED, alpha=0.8, linewidth=0, zorder=3)
    axes.set(xlim=(-0.01, 1.03), ylim=(-0.01, 1.03), xlabel="probability given to the stage", ylabel="fraction correct")
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.text(
        0.99, 0.03, "below the line: over-sure\nabove: too modest", fontsize=8, color=FAINT, va="bottom", ha="right"
    )
    return figure


def scores_figure(
    final: npt.ArrayLike,
    highest: npt.ArrayLike,
    success: Sequence[bool | None],
    groups: Sequence[str],
    title: str = "Final and highest progress by kind of episode",
) -> Figure:
    """One dot an episode at its final progress, with a thin tail up to its highest; one row a kind.

    Args:
        final: (E,) final progress.
        highest: (E,) highest progress.
        success: (E,) outcomes.
        groups: (E,) kind of each episode.
    """
    last, top = np.asarray(final, dtype=np.float64), np.asarray(highest, dtype=np.float64)
    kinds = sorted(set(groups), key=lambda kind: -float(last[[g == kind for g in groups]].mean()))
    row = 0.46
    left = 0.4 + 0.075 * max(len(kind) for kind in kinds)
    figure = new_figure(7.2, 1.05 + row * len(kinds))
    write_title(figure, title, 0.12)
    axes = place(figure, left, 0.45, 7.2 - left - 0.3, row * len(kinds))
    colours = {True: GOOD, False: BAD, None: UNKNOWN}
    for i, kind in enumerate(kinds):
        members = [j for j, g in enumerate(groups) if g == kind]
        for place_in_row, j in enumerate(sorted(members, key=lambda j: last[j])):
            y = len(kinds) - 1 - i + (place_in_row / max(len(members) - 1, 1) - 0.5) * 0.62
            colour = colours[success[j]]
            axes.plot([last[j], top[j]], [y, y], color=colour, linewidth=1, alpha=0.45)
            axes.scatter([last[j]], [y], s=22, color=colour, alpha=0.85, linewidth=0, zorder=3)
        axes.text(
            -0.025,
            len(kinds) - 1 - i,
            kind.replace("_", " "),
            ha="right",
            va="center",
            fontsize=9,
            color=INK,
        )
    for name, colour in (("success", GOOD), ("failure", BAD), ("unknown", UNKNOWN)):
        if colours[{"success": True, "failure": False}.get(name)] in {colours[s] for s in success}:
            axes.scatter([], [], s=22, color=colour, linewidth=0, label=name)
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=3,
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
        handletextpad=0.1,
        borderaxespad=0.1,
    )
    axes.set(xlim=(-0.01, 1.02), ylim=(-0.6, len(kinds) - 0.4), yticks=[], xlabel="predicted progress")
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    return figure
