"""How long a training goes on: a number of steps, whatever machine does them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robo_core.errors import ConfigError

# A small store needs more passes: the optimiser has to get somewhere first.
LEAST_STEPS = 300

STEPS, EARLY_STOPPING, MINUTES = "steps", "early_stopping", "minutes"
"""What can end a training, as ``ended_by`` says it."""


@dataclass(frozen=True)
class Budget:
    """Training ends after ``steps``; the learning rate falls towards that end, so that the same seed gives the same
    model on a busy machine and on an idle one.

    Where ``steps`` is None, ``passes`` makes them: how often each training frame is supervised, on average. Longer
    training lowers the loss and learns single episodes by heart. ``minutes`` is a cap: a training that it ends is cut
    off in the middle of its schedule, and says so.
    """

    steps: int | None
    minutes: float | None = None
    passes: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.passes is None:
            raise ConfigError(
                "give passes=... or steps=...: they decide how long training goes on; minutes=... only cuts it off"
            )
        if any(bound is not None and not bound > 0 for bound in (self.steps, self.minutes, self.passes)):
            raise ConfigError(f"passes={self.passes} steps={self.steps} minutes={self.minutes}: all must be above 0")

    def over(self, frames: int, frames_per_step: int) -> Budget:
        """The budget in steps for a training split of so many frames."""
        if self.steps is not None or self.passes is None:
            return self
        steps = max(LEAST_STEPS, math.ceil(self.passes * frames / frames_per_step))
        return Budget(steps, self.minutes, self.passes)

    @property
    def total(self) -> int:
        """Steps of the whole training; call `over` first."""
        assert self.steps is not None
        return self.steps

    def spent(self, steps: int) -> float:
        """Fraction of the training that is behind, 1 at the end."""
        return min(1.0, steps / self.total)

    def cut_off(self, seconds: float) -> bool:
        """Whether the cap in minutes is reached."""
        return self.minutes is not None and seconds >= 60 * self.minutes


def cut_off_warning(minutes: float, steps: int, total: int) -> str:
    """What to say of a training that the cap ended."""
    return (
        f"minutes={minutes:g} ended the training at step {steps} of {total}, before its learning rate had fallen: the "
        "speed of the machine decided what came out. Run it again with more minutes, or without, to resume"
    )
