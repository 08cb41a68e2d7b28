"""What a run of reinforcement learning tells while it goes on and afterwards: progress line, TensorBoard, curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robo_core.console import say
from robo_policies.rl.learning import Learning, Note

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MILESTONES = (0.5, 0.9, 0.95)
# Episodes over which the success shown beside the progress bar is counted.
RECENT = 20
STEPS_BETWEEN_SCALARS = 500


class RunLog:
    """The log of one run.

    Args:
        folder: for the TensorBoard files; without TensorBoard installed none are written, which is said once.
        learning: the run.
    """

    def __init__(self, folder: Path, learning: Learning) -> None:
        self._learning = learning
        self._writer = _writer(folder)
        self._shown = learning.note.steps
        self._written = learning.note.steps
        self._points = len(learning.note.curve)
        self._warned: set[str] = set()

    def tell(self, bar: Any, note: Note, losses: Mapping[str, float]) -> None:
        """After each decision: move the bar on, write scalars now and then, warn of reward hacking once."""
        episodes = self._learning.monitor.episodes[-RECENT:]
        success = f"success {np.mean([e.success for e in episodes]):.2f}" if episodes else ""
        bar.advance(note.steps - self._shown, note=success)
        self._shown = note.steps
        self._write_curve(note)
        if note.steps - self._written < STEPS_BETWEEN_SCALARS:
            return
        self._written = note.steps
        for name, value in {**losses, **self._learning.monitor.figures()}.items():
            self._scalar(f"training/{name}", value, note.steps)
        if self._learning.replay is not None and len(self._learning.replay):
            shares = self._learning.replay.shares(self._learning.shaping, self._learning.settings.discount)
            for name, value in shares.items():
                self._scalar(f"reward_variance_share/{name}", value, note.steps)
        for check in self._learning.monitor.checks():
            if check.wrong and check.name not in self._warned:
                self._warned.add(check.name)
                say(f"warning at {note.steps} steps: {check.text}")

    def metrics(self, curve: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Flat figures of the run: last and best success, steps to each milestone (NaN where never reached)."""
        note = self._learning.note
        figures = {
            "success": float(curve[-1]["success"]),
            "best_success": max(float(point["success"]) for point in curve),
            "steps": float(note.steps),
            "decisions": float(note.decisions),
            "episodes": float(note.episodes),
            "seconds": float(note.seconds),
            "steps_per_second": note.steps / note.seconds if note.seconds else float("nan"),
        }
        for milestone in MILESTONES:
            reached = [point["steps"] for point in curve if point["success"] >= milestone]
            figures[f"steps_to_{round(100 * milestone)}"] = float(reached[0]) if reached else float("nan")
        return figures | {f"training_{name}": value for name, value in self._learning.monitor.figures().items()}

    def figure(self, curve: Sequence[Mapping[str, float]]) -> Figure:
        """Success over control steps, evaluated and while exploring."""
        from robo_rm.report.style import new_figure, place, plain, write_title

        figure = new_figure(7.2, 3.6)
        write_title(figure, f"Success while learning, {self._learning.note.seconds:.0f} s", 0.12)
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
        self._write_curve(self._learning.note)
        if self._writer is not None:
            self._writer.close()

    def _write_curve(self, note: Note) -> None:
        for point in note.curve[self._points :]:
            for name in ("success", "length"):
                self._scalar(f"evaluation/{name}", point[name], int(point["steps"]))
        self._points = len(note.curve)

    def _scalar(self, name: str, value: float, steps: int) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, steps)


def _writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        say("TensorBoard is not installed, so no log is written for it: pip install 'robo-rm[rl]'")
        return None
    return SummaryWriter(str(folder))
