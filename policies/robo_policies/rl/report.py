"""The report of a run of reinforcement learning: what came of it, what was learnt from, and signs of reward hacking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from robo_policies.rl.monitor import MOST_DRIFT, MOST_DWELL, NEAR_GOLD, STILL, WINDOW
from robo_rm.report.page import Page
from robo_rm.report.style import BAD, GOOD, PREDICTED, TRUTH, new_figure, place, plain, write_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from robo_policies.rl.learning import Learning

_EXPLAINED = {
    "dwell": "time near the goal without reaching it",
    "hover": "standing still there",
    "return": "learning reward against success",
    "drift": "what the reward model knows",
}


def write_report(
    path: Path,
    learning: Learning,
    world: str,
    terms: Sequence[Sequence[str]],
    metrics: Mapping[str, float],
    curve: Figure,
) -> None:
    """Write one HTML page, complete in itself.

    Args:
        path: of the page.
        learning: the run.
        world: that it learnt in.
        terms: rows (term, what it is) of the reward.
        metrics: of the run.
        curve: the learning curve.
    """
    page = Page("Reinforcement learning", f"{world}, {learning.note.steps} steps, {learning.note.seconds:.0f} s")
    page.section("What came of it")
    page.prose(_outcome(metrics, learning))
    page.image(curve, "Success of evaluations, always from the same starts, and of the episodes learnt from.")
    page.section("What was learnt from")
    page.table(["term", "what it is"], terms)
    if learning.replay is not None and len(learning.replay):
        shares = learning.replay.shares(learning.shaping, learning.settings.discount)
        page.table(
            ["term", "share of the learning reward's variance"],
            [[name, f"{share:.1%}"] for name, share in shares.items()],
        )
    _signs(page, learning)
    page.write(path)


def _outcome(metrics: Mapping[str, float], learning: Learning) -> str:
    told = f"The last evaluation succeeded in {metrics['success']:.0%} of {learning.settings.evaluation_episodes} "
    told += f"episodes; the best in {metrics['best_success']:.0%}. "
    reached = {name: metrics.get(f"steps_to_{name}", float("nan")) for name in ("50", "90", "95")}
    known = [f"{name} % at {steps:.0f} steps" for name, steps in reached.items() if np.isfinite(steps)]
    return told + (f"First reached: {', '.join(known)}." if known else "Half of the episodes were never solved.")


def _signs(page: Page, learning: Learning) -> None:
    page.section("Is the reward being hacked?")
    monitor = learning.monitor
    checks = monitor.checks()
    if not checks:
        seen = len(monitor.episodes)
        page.prose(
            f"{seen} episodes were learnt from, which is too few to tell; {WINDOW // 2} are needed."
            if seen
            else "The run took no decisions in the world, so there is nothing to watch."
        )
        return
    page.verdicts(("no" if check.wrong else "yes", f"{_EXPLAINED[check.name]}: {check.text}.") for check in checks)
    page.prose(
        f"Each point is the mean over the last {WINDOW} episodes learnt from. Near the goal means a potential of "
        f"{NEAR_GOLD:g} or more; standing still, a change of less than {STILL:g} in a decision. A warning needs "
        "failed episodes to do so; the dashed lines are where it begins."
    )
    points = [point for point in learning.note.curve if "training_shaped" in point]
    if len(points) > 1:
        page.image(_monitor_figure(points, monitor.reference_drift))


def _monitor_figure(points: Sequence[Mapping[str, Any]], reference: float) -> Figure:
    """Four panels over the run's steps: reward and success, dwell, stall, uncertainty."""
    figure = new_figure(8.4, 4.5)
    steps = [point["steps"] for point in points]

    def panel(column: int, row: int, title: str, names: Mapping[str, tuple[str, str]]) -> Axes:
        axes = plain(place(figure, 0.6 + 4.1 * column, 0.42 + 2.2 * row, 3.45, 1.45))
        write_title(figure, title, 0.6 + 4.1 * column, 0.12 + 2.2 * row, 10.0)
        for name, (label, colour) in names.items():
            values = [point.get(f"training_{name}", float("nan")) for point in points]
            axes.plot(steps, values, color=colour, linewidth=1.6, label=label)
        return axes

    axes = panel(0, 0, "Learning reward and success", {"shaped": ("reward", PREDICTED), "success": ("success", GOOD)})
    axes.legend(frameon=False, fontsize=8)
    axes = panel(1, 0, "Decisions near the goal", {"dwell": ("dwell", BAD)})
    axes.axhline(MOST_DWELL, color=TRUTH, linewidth=1.0, linestyle="--")
    axes.set_ylim(-0.02, 1.02)
    axes = panel(0, 1, "Decisions standing still", {"stalled": ("stalled", BAD)})
    axes.set_ylim(-0.02, 1.02)
    axes = panel(1, 1, "The reward model's uncertainty", {"drift": ("uncertainty", PREDICTED)})
    if reference > 0:
        axes.axhline(reference, color=GOOD, linewidth=1.0, label="on demonstrations")
        axes.axhline(MOST_DRIFT * reference, color=TRUTH, linewidth=1.0, linestyle="--")
        axes.legend(frameon=False, fontsize=8)
    axes.set_ylim(bottom=0.0)
    return figure
