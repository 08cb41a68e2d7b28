"""The corrections of `calibrated` RA-BC weights, each one a switch of its own, and the settings of the other modes.

Kept apart from the arithmetic so that a command can show and check these settings without importing numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

from robo_core.errors import ConfigError

# paper and calibrated are RA-BC; the others are there to be compared with, see robo_rm.weights.selection.
RABC_MODES = ("paper", "calibrated")
FILTERS = ("success_only", "top_fraction")
MODES = (*RABC_MODES, *FILTERS, "advantage")
RANKINGS = ("final_progress", "mean_return")


@dataclass(frozen=True)
class Calibration:
    """How `calibrated` weights differ from the paper's; every correction can be switched off on its own."""

    quantile: float | None = 0.5
    """kappa is this quantile of the positive deltas of the episodes that did not fail, so that it fits the task's own
    pace. None: the fixed kappa."""
    dead_zone: float = 0.7
    """Deltas below this fraction of kappa have weight 0: a pause under a noisy model is still a pause. In [0, 1)."""
    normalise_horizon: bool = True
    """Rescale a delta that the episode's end cut short to the full horizon: an ending is not a pause."""
    protect_success: bool = True
    """The last `horizon` frames of an episode marked as a success have weight 1, as do those of an episode of unknown
    outcome whose stage annotation ends in the last stage of its task."""
    length_scaling: bool = True
    """Multiply the deltas of an episode by its length over the mean length: slow but steady work is not punished.
    Episodes marked as failures are left as they are: their length says nothing about their pace."""
    average: bool = True
    """Measure the mean progress over the horizon instead of that at its end: early gains count more, so that a pause
    about to end is still a pause."""
    smoothing: int = 3
    """Average progress over this many frames before and after each frame before differencing. 0: off."""
    failure_discount: float = 0.0
    """Multiply the weights of episodes marked as failures.
    1: their productive part counts in full; 0: they are left out, since a learned progress errs most in failures."""

    def check(self) -> None:
        """Raise ConfigError for a value out of range, naming the setting."""
        if self.quantile is not None and not 0 < self.quantile < 1:
            raise ConfigError(
                f"calibration.quantile={self.quantile} must lie between 0 and 1, or be null for a fixed kappa"
            )
        if not 0 <= self.dead_zone < 1:
            raise ConfigError(f"calibration.dead_zone={self.dead_zone} must be at least 0 and below 1")
        if self.smoothing < 0:
            raise ConfigError(f"calibration.smoothing={self.smoothing} must be 0 frames or more")
        if not 0 <= self.failure_discount <= 1:
            raise ConfigError(f"calibration.failure_discount={self.failure_discount} must lie between 0 and 1")


@dataclass(frozen=True)
class TopFraction:
    """Which episodes `top_fraction` keeps."""

    fraction: float = 0.5
    """Fraction of the episodes that are kept."""
    by: str = "final_progress"
    """`final_progress`, or `mean_return`: the mean progress over the episode's frames, which prefers fast episodes."""

    def check(self) -> None:
        """Raise ConfigError for a value out of range, naming the setting."""
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"top.fraction={self.fraction} must be above 0, at most 1")
        if self.by not in RANKINGS:
            raise ConfigError(f"top.by={self.by} is unknown; choose one of {', '.join(RANKINGS)}")


@dataclass(frozen=True)
class Advantage:
    """How `advantage` sorts frames into three classes."""

    positive: float = 0.3
    """Fraction of the frames, those with the most advantage, that have weight 1."""
    negative: float = 0.3
    """Fraction of the frames, those with the least advantage, that have weight 0."""
    neutral: float = 0.5
    """Weight of the frames between."""
    bins: int = 20
    """Frames are compared with those of the same bin of progress; so many bins."""

    def check(self) -> None:
        """Raise ConfigError for a value out of range, naming the setting."""
        for name in ("positive", "negative", "neutral"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"advantage.{name}={getattr(self, name)} must lie between 0 and 1")
        if self.positive + self.negative > 1 or not self.positive:
            raise ConfigError(
                f"advantage.positive={self.positive} and advantage.negative={self.negative}: the first must be above "
                "0, and both together at most 1"
            )
        if self.bins < 1:
            raise ConfigError(f"advantage.bins={self.bins} must be at least 1")
