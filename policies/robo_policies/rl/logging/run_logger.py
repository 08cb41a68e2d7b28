"""What a run reports while it learns and afterwards: progress line, TensorBoard, metrics, learning curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure

from robo_core.console import Bar, say
from robo_policies.rl.runners.runner import Runner, RunState
from robo_rm.report.style import new_figure, place, plain, write_title

MILESTONES = (0.5, 0.9, 0.95)
RECENT = 20
"""Episodes whose success rate is shown beside the progress bar."""
STEPS_BETWEEN_SCALARS = 500


class ScalarWriter(Protocol):
    """As far as it is used of TensorBoard's SummaryWriter."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Write one number."""

    def close(self) -> None:
        """Finish the file."""


class RunLogger:
    """The log of one run.

    Args:
        folder: for the TensorBoard files; without TensorBoard installed none are written, and one line says so.
        runner: the run.
    """

    def __init__(self, folder: Path, runner: Runner) -> None:
        self._runner = runner
        self._writer = _summary_writer(folder)
        self._displayed = runner.state.steps
        self._written = runner.state.steps
        self._points = len(runner.state.curve)
        self._warned: set[str] = set()

    def on_step(self, bar: Bar, state: RunState, losses: Mapping[str, float]) -> None:
        """After each macro-action: advance the bar, write scalars now and then, warn of reward hacking once."""
        episodes = self._runner.monitor.episodes[-RECENT:]
        success = f"success {np.mean([e.success for e in episodes]):.2f}" if episodes else ""
        bar.advance(state.steps - self._displayed, note=success)
        self._displayed = state.steps
        self._write_curve(state)
        if state.steps - self._written < STEPS_BETWEEN_SCALARS:
            return
        self._written = state.steps
        for name, value in {**losses, **self._runner.monitor.metrics()}.items():
            self._scalar(f"training/{name}", value, state.steps)
        for name, value in self._runner.variance_fractions().items():
            self._scalar(f"reward_variance_fraction/{name}", value, state.steps)
        for check in self._runner.monitor.checks():
            if check.wrong and check.name not in self._warned:
                self._warned.add(check.name)
                say(f"warning at {state.steps} steps: {check.text}")

    def metrics(self, curve: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Flat metrics of the run: last and best success, steps to each milestone (NaN where never reached)."""
        state = self._runner.state
        metrics = {
            "success": float(curve[-1]["success"]),
            "best_success": max(float(point["success"]) for point in curve),
            "steps": float(state.steps),
            "macro_actions": float(state.macro_actions),
            "episodes": float(state.episodes),
            "seconds": float(state.seconds),
            "steps_per_second": state.steps / state.seconds if state.seconds else float("nan"),
        }
        for milestone in MILESTONES:
            reached = [point["steps"] for point in curve if point["success"] >= milestone]
            metrics[f"steps_to_{round(100 * milestone)}"] = float(reached[0]) if reached else float("nan")
        return metrics | {f"training_{name}": value for name, value in self._runner.monitor.metrics().items()}

    def figure(self, curve: Sequence[Mapping[str, float]]) -> Figure:
        """Success over control steps, in evaluations and while exploring."""
        figure = new_figure(7.2, 3.6)
        write_title(figure, f"Success while learning, {self._runner.state.seconds:.0f} s", 0.12)
        axes = plain(place(figure, 0.65, 0.45, 6.3, 2.65))
        steps = [point["steps"] for point in curve]
        axes.plot(
            steps, [point["success"] for point in curve], marker="o", markersize=3, linewidth=1.6, label="evaluated"
        )
        explored = [point.get("training_success", float("nan")) for point in curve]
        axes.plot(steps, explored, linewidth=1.2, alpha=0.6, label="while exploring")
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("control steps")
        axes.legend(frameon=False, fontsize=9, ncols=2)
        return figure

    def close(self) -> None:
        """Finish the TensorBoard files."""
        self._write_curve(self._runner.state)
        if self._writer is not None:
            self._writer.close()

    def _write_curve(self, state: RunState) -> None:
        for point in state.curve[self._points :]:
            for name in ("success", "length"):
                self._scalar(f"evaluation/{name}", point[name], int(point["steps"]))
        self._points = len(state.curve)

    def _scalar(self, name: str, value: float, steps: int) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, steps)


def _summary_writer(folder: Path) -> ScalarWriter | None:
    try:
        # Optional, and slow to import.
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        say("TensorBoard is not installed, so no log is written for it: pip install 'robo-rm[rl]'")
        return None
    writer: ScalarWriter = SummaryWriter(str(folder))
    return writer
