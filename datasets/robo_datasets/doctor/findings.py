"""What a check reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

ERROR = "error"
WARNING = "warning"

CHECKS = (
    "store", "index", "staging", "files", "annotations", "derived",
    "timestamps", "nan", "frozen_camera", "dead_camera", "twin_camera", "idle", "jump", "stage_gap", "stage",
    "constant", "mixed_units", "lag", "duplicate",
)  # fmt: skip
"""Every check by name; metrics.json holds a count of findings for each."""


@dataclass(frozen=True)
class Remedy:
    """What ``repair=true`` would do: ``kind`` is the name of a function of ``robo_datasets.doctor.repair``."""

    kind: str
    path: Path

    @property
    def advice(self) -> str:
        """What the remedy does, for the table."""
        return {
            "rebuild_index": "rebuilds index.json",
            "clear_staging": "salvages or removes it",
            "set_aside": "moves it to .quarantine",
            "remove": "removes it; it can be computed again",
            "rewrite_group": "writes the file again",
        }[self.kind]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (error) or worth a look (warning)."""

    check: str
    severity: str
    where: str
    """An episode's UUID, or a path."""
    message: str
    remedy: Remedy | None = None


@dataclass
class Report:
    """All findings, and what was examined."""

    findings: list[Finding] = field(default_factory=list)
    episodes: int = 0
    frames: int = 0
    lag: float | None = None
    """Seconds by which observation.state follows action; None where it cannot be measured."""
    repaired: set[int] = field(default_factory=set)
    """Positions in ``findings`` that were repaired."""

    @property
    def open_errors(self) -> int:
        """Errors that stand."""
        return sum(
            finding.severity == ERROR and number not in self.repaired for number, finding in enumerate(self.findings)
        )

    def metrics(self) -> dict[str, float | None]:
        """Flat metrics for metrics.json: totals, and the findings of each check."""
        counts = {f"findings_{check}": 0 for check in CHECKS}
        for finding in self.findings:
            counts[f"findings_{finding.check}"] += 1
        return {
            "episodes": self.episodes,
            "frames": self.frames,
            "errors": sum(finding.severity == ERROR for finding in self.findings),
            "warnings": sum(finding.severity == WARNING for finding in self.findings),
            "repaired": len(self.repaired),
            "state_action_lag_s": self.lag,
            **counts,
        }
