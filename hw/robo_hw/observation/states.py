"""What the safety core can be doing, and what it reports: states, faults, stops, commands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt


class State(Enum):
    """What the core is doing."""

    DISARMED = "disarmed"
    """It commands nothing."""
    HOLDING = "holding"
    """It re-publishes one position and waits for a chunk."""
    RUNNING = "running"
    """It follows the path."""
    STOPPING = "stopping"
    """It brakes along the path; then it holds, is disarmed, or is in fault."""
    FAULT = "fault"
    """It holds, and nothing but ``reset_fault`` gets it out."""


@dataclass(frozen=True)
class Fault:
    """The first cause of a latched fault."""

    time: float
    cause: str
    """``e_stop``, ``joint_states``, ``following``, ``clock``, ``policy``."""
    message: str
    joint: str | None = None
    value: float | None = None
    limit: float | None = None


@dataclass
class Stop:
    """One stop: why, from when, and how long it may take at most."""

    cause: str
    message: str
    since: float
    """Steady-clock time of the tick from whose motion the arm brakes, s."""
    bound: float
    """Computed seconds from ``since`` to rest."""
    rested: float | None = None
    """Steady-clock time of the first tick at rest, s."""


@dataclass(frozen=True)
class Command:
    """What to send to the controller now, each array (D,) in the contract's units and joint order."""

    time: float
    positions: npt.NDArray[np.float64]
    velocities: npt.NDArray[np.float64]
    accelerations: npt.NDArray[np.float64]
    state: State
    stop_time: float
    """Seconds in which the arm would be at rest if it began to brake now."""


@dataclass(frozen=True)
class Status:
    """For diagnostics; re-publish it at 1 Hz and on every change."""

    time: float
    state: State
    fault: Fault | None
    epoch: int
    consumed: float
    degraded: tuple[str, ...]
    rate: float
    """Speed along the path as a fraction of nominal."""
    stop_time: float
    counts: dict[str, int]
