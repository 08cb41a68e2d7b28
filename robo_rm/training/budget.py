"""How long a training goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robo_datasets.errors import ConfigError

# A small store needs more passes: the optimiser has to get somewhere first.
LEAST_STEPS = 300


@dataclass(frozen=True)
class Budget:
    """Training ends after ``steps`` or ``minutes``, whichever comes first; the learning rate falls towards that
    end.

    Where ``steps`` is None, ``passes`` makes them: how often each training frame is supervised, on average. Longer
    training lowers the loss and learns single episodes by heart.
    """

    steps: int | None
    minutes: float | None
    passes: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None and self.passes is None:
            raise ConfigError("give passes=..., steps=... or minutes=...; without any, training never ends")
        if any(bound is not None and bound <= 0 for bound in (self.steps, self.minutes, self.passes)):
            raise ConfigError(f"passes={self.passes} steps={self.steps} minutes={self.minutes}: all must be above 0")

    def over(self, frames: int, frames_per_step: int) -> Budget:
        """The budget in steps for a training split of so many frames."""
        if self.steps is not None or self.passes is None:
            return self
        steps = max(LEAST_STEPS, math.ceil(self.passes * frames / frames_per_step))
        return Budget(steps, self.minutes, self.passes)

    def spent(self, steps: int, seconds: float) -> float:
        """Share of the budget that is behind, 1 at the end."""
        by_steps = steps / self.steps if self.steps is not None else 0.0
        by_time = seconds / (60 * self.minutes) if self.minutes is not None else 0.0
        return max(by_steps, by_time)
