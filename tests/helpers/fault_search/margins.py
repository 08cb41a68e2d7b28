"""What the prover measures: how near to each promise anything came, and what was broken."""

from __future__ import annotations

from dataclasses import dataclass, field

SHARES = (
    "position", "velocity", "acceleration", "jerk", "stop", "stop_bound", "first_command", "fault_command",
)  # fmt: skip
COUNTS = ("sequences", "ticks", "armings", "accepted", "faults", "stops", "fault_commands")


@dataclass
class Margins:
    """The worst that was observed. The shares are of the limit: 1.0 touches it."""

    position: float = 0.0
    velocity: float = 0.0
    acceleration: float = 0.0
    jerk: float = 0.0
    stop: float = 0.0
    """Longest stop as a share of its own computed bound plus the tick in which it ends."""
    stop_time: float = 0.0
    """Longest stop, s."""
    stop_bound: float = 0.0
    """Longest computed bound as a share of the contract's max_stop_time."""
    first_command: float = 0.0
    """Furthest that a first command after arming lay from where the arm truly was, as a share of what a joint travels
    in one control period."""
    fault_command: float = 0.0
    """Furthest that a command in a fault lay from the measured pose, as a share of the following error."""
    armings: int = 0
    """First commands after arming."""
    fault_commands: int = 0
    ticks: int = 0
    stops: int = 0
    faults: int = 0
    accepted: int = 0
    sequences: int = 0
    violations: list[str] = field(default_factory=list)

    def add(self, other: Margins) -> None:
        """Take over the worse of both."""
        for name in (*SHARES, "stop_time"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.violations += other.violations
