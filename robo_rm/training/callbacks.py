"""Callbacks of the training engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from robo_rm.training.engine import Batch, Engine

# Evaluations over a training, by steps, so that they are the same on any machine.
EVALUATIONS = 10


class HeldOut:
    """Measures the averaged weights on held-out data after every tenth of the steps, and at the end.

    Args:
        measure: gives what is measured and what the progress bar shows of it.

    Attributes:
        rows: step and what was measured then, where it is finite.
    """

    def __init__(self, measure: Callable[[], tuple[float, str]]) -> None:
        self.rows: list[list[float]] = []
        self.note = ""
        self._measure = measure

    def after_step(self, engine: Engine[Batch]) -> str:
        """Measure when it is time."""
        steps, total = engine.steps, engine.recipe.budget.total
        if engine.ended_by or steps * EVALUATIONS // total > (steps - 1) * EVALUATIONS // total:
            with engine.averaged():
                value, self.note = self._measure()
            if math.isfinite(value):
                self.rows.append([steps, value])
        return ""

    def state(self) -> dict[str, object]:
        """The rows so far."""
        return {"rows": self.rows}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take up a `state`."""
        rows = state["rows"]
        assert isinstance(rows, list)
        self.rows = rows
