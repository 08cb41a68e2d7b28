"""Plots of an evaluation: where failures stopped, how soon successes came, and film strips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from robo_policies.evaluation.results import Evaluation
from robo_rm.report.style import FAINT, GRID, INK, UNKNOWN, WEIGHT, new_figure, place, write_title

COLOURS = (UNKNOWN, WEIGHT)
"""Of the policy compared with, and of the one that is evaluated, as in the chart of success."""


def stopped_figure(evaluations: Mapping[str, Evaluation]) -> Figure:
    """Failures by the furthest stage they reached, as fractions of all episodes; one bar per policy and stage."""
    stages = next(iter(evaluations.values())).stages
    height = 0.24 * len(evaluations) * len(stages) + 0.16 * len(stages)
    left = 0.4 + 0.075 * max(len(stage) for stage in stages)
    figure = new_figure(7.2, 1.25 + height)
    write_title(figure, "Where failures stopped", 0.12)
    axes = place(figure, left, 0.5, 7.2 - left - 0.5, height)
    colours = _colours(len(evaluations))
    ticks = []
    for row, stage in enumerate(stages):
        place_of = (len(stages) - 1 - row) * (len(evaluations) + 0.7)
        ticks.append(place_of + (len(evaluations) - 1) / 2)
        for position, (name, evaluation) in enumerate(evaluations.items()):
            count, total = evaluation.stopped_at()[stage], len(evaluation.rollouts)
            y = place_of + len(evaluations) - 1 - position
            label = name if row == 0 else None
            axes.barh(y, count / total, height=0.86, color=colours[position], linewidth=0, label=label)
            axes.text(count / total + 0.008, y, str(count), va="center", fontsize=8.5, color=INK if count else FAINT)
    axes.set(yticks=ticks, xlim=(0, 1), ylim=(-0.7, max(ticks) + len(evaluations) / 2 + 0.4))
    axes.set_yticklabels(stages, color=INK, fontsize=9)
    axes.set_xticks(np.linspace(0, 1, 6), [f"{tick:.0%}" for tick in np.linspace(0, 1, 6)])
    axes.set_xlabel("fraction of all episodes that failed at this stage; the number is their count", labelpad=4)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if len(evaluations) > 1:
        axes.legend(frameon=False, fontsize=9, loc="lower right", labelcolor=INK)
    return figure


def time_figure(evaluations: Mapping[str, Evaluation]) -> Figure:
    """Fraction of the episodes that had succeeded by each second."""
    figure = new_figure(7.2, 2.9)
    write_title(figure, "How soon they succeed", 0.12)
    axes = place(figure, 0.65, 0.5, 6.1, 1.8)
    # A little beyond the longest episode, so that a success in its last moment is visible.
    end = 1.03 * max(rollout.seconds for one in evaluations.values() for rollout in one.rollouts)
    for colour, (name, evaluation) in zip(_colours(len(evaluations)), evaluations.items(), strict=True):
        times = sorted(rollout.seconds for rollout in evaluation.rollouts if rollout.success)
        fractions = np.arange(1, len(times) + 1) / len(evaluation.rollouts)
        axes.step(
            [0, *times, end],
            [0, *fractions, fractions[-1] if times else 0],
            where="post",
            color=colour,
            lw=2,
            label=name,
        )
    axes.set(xlim=(0, end), ylim=(0, 1.03), xlabel="simulated seconds")
    axes.set_yticks(np.linspace(0, 1, 5), [f"{tick:.0%}" for tick in np.linspace(0, 1, 5)])
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    if len(evaluations) > 1:
        axes.legend(frameon=False, fontsize=9, loc="best", labelcolor=INK)
    return figure


def strip_figure(strip: np.ndarray, title: str) -> Figure:
    """Frames (N, H, W, 3) uint8 of one episode side by side."""
    width = 9.6 / len(strip)
    figure = new_figure(9.6, width * strip.shape[1] / strip.shape[2] + 0.36)
    write_title(figure, title, 0.02)
    for number, image in enumerate(strip):
        axes = place(figure, number * width, 0.36, width * 0.985, width * strip.shape[1] / strip.shape[2])
        axes.imshow(image, aspect="auto", interpolation="lanczos")
        axes.set_axis_off()
    return figure


def success_bars(evaluations: Mapping[str, Evaluation]) -> Sequence[tuple[str, int, int]]:
    """(name, successes, episodes) of each policy, as the bar chart of success takes them."""
    return [(name, one.successes, len(one.rollouts)) for name, one in evaluations.items()]


def _colours(count: int) -> tuple[str, ...]:
    return COLOURS[:count]
