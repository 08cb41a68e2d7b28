"""The report of a run of reinforcement learning: results, the learning reward, and signs of reward hacking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robo_policies.rl.logging.reward_hacking import MAX_DRIFT, MAX_DWELL, NEAR_SUCCESS, STILL, WINDOW
from robo_policies.rl.runners.runner import Runner
from robo_rm.report.page import Page
from robo_rm.report.style import BAD, GOOD, PREDICTED, TRUTH, new_figure, place, plain, write_title

_EXPLAINED = {
    "dwell": "time near the goal without reaching it",
    "hover": "standing still there",
    "return": "learning reward against success",
    "drift": "what the reward model knows",
}


_WATCHED = ("shaped", "success", "dwell", "stalled", "drift")


def write_report(
    path: Path,
    runner: Runner,
    env: str,
    terms: Sequence[Sequence[str]],
    metrics: Mapping[str, float],
    curve: Figure,
    following: str = "",
) -> None:
    """Write one HTML page, complete in itself.

    Args:
        path: of the page.
        runner: the run.
        env: that it learned in.
        terms: rows (term, what it is) of the reward.
        metrics: of the run.
        curve: the learning curve.
        following: the command to type next.
    """
    lead = f"{env}, {runner.state.steps} steps, {runner.state.seconds:.0f} s"
    page = Page("Reinforcement learning", lead, "reinforcement.md", following)
    page.section("Results")
    page.prose(_results(metrics, runner.settings.evaluation_episodes))
    page.image(
        curve,
        "Success in evaluations, always from the same initial states, and in the episodes learned from.",
        alt=f"Success over control steps: {metrics['success']:.0%} in the last evaluation, "
        f"{metrics['best_success']:.0%} in the best",
    )
    page.section("The learning reward")
    page.table(["term", "what it is"], terms)
    fractions = runner.variance_fractions()
    if fractions:
        page.table(
            ["term", "fraction of the learning reward's variance"],
            [[name, f"{fraction:.1%}"] for name, fraction in fractions.items()],
        )
    _signs(page, runner)
    page.write(path)


def _results(metrics: Mapping[str, float], episodes: int) -> str:
    text = f"The last evaluation succeeded in {metrics['success']:.0%} of {episodes} "
    text += f"episodes; the best in {metrics['best_success']:.0%}. "
    reached = {name: metrics.get(f"steps_to_{name}", float("nan")) for name in ("50", "90", "95")}
    known = [f"{name} % at {steps:.0f} steps" for name, steps in reached.items() if np.isfinite(steps)]
    return text + (f"First reached: {', '.join(known)}." if known else "Half of the episodes were never solved.")


def _signs(page: Page, runner: Runner) -> None:
    page.section("Is the reward being hacked?")
    monitor = runner.monitor
    checks = monitor.checks()
    if not checks:
        count = len(monitor.episodes)
        page.prose(
            f"{count} episodes were learned from, which is too few to tell; {WINDOW // 2} are needed."
            if count
            else "The run took no steps in the environment, so there is nothing to watch."
        )
        return
    page.verdicts(("no" if check.wrong else "yes", f"{_EXPLAINED[check.name]}: {check.text}.") for check in checks)
    page.prose(
        f"Each point is the mean over the last {WINDOW} episodes learned from. Near the goal means a potential of "
        f"{NEAR_SUCCESS:g} or more; standing still, a change of less than {STILL:g} in a macro-action. A warning needs "
        "failed episodes to do so; the dashed lines are its thresholds."
    )
    points = [point for point in runner.state.curve if "training_shaped" in point]
    if len(points) > 1:
        last = ", ".join(f"{name} {points[-1].get(f'training_{name}', float('nan')):.2f}" for name in _WATCHED)
        page.image(_monitor_figure(points, monitor.reference_drift), alt=f"Four curves over the steps; last: {last}")


def _monitor_figure(points: Sequence[Mapping[str, float]], reference: float) -> Figure:
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
    axes = panel(1, 0, "Macro-actions near the goal", {"dwell": ("dwell", BAD)})
    axes.axhline(MAX_DWELL, color=TRUTH, linewidth=1.0, linestyle="--")
    axes.set_ylim(-0.02, 1.02)
    axes = panel(0, 1, "Macro-actions standing still", {"stalled": ("stalled", BAD)})
    axes.set_ylim(-0.02, 1.02)
    axes = panel(1, 1, "The reward model's uncertainty", {"drift": ("uncertainty", PREDICTED)})
    if reference > 0:
        axes.axhline(reference, color=GOOD, linewidth=1.0, label="on demonstrations")
        axes.axhline(MAX_DRIFT * reference, color=TRUTH, linewidth=1.0, linestyle="--")
        axes.legend(frameon=False, fontsize=8)
    axes.set_ylim(bottom=0.0)
    return figure
