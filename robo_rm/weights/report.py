"""What the weights of a store amount to, in numbers and in plain warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robo_rm.metrics import voc
from robo_rm.weights.options import FILTERS
from robo_rm.weights.rabc import StoreWeights

FULL = 0.99
NOTHING = 0.01
UNIFORM_FRACTION = 0.95
BINARY_FRACTION = 0.02
STARVED = 0.1
FOLLOWS = 0.85


@dataclass(frozen=True)
class WeightReport:
    """Counts over all frames of a store."""

    frames: int
    effective: float
    """Effective sample size (sum w)^2 / sum w^2 in frames (Kish): as many equally weighted frames say as much."""
    full: float
    """Fraction of frames with weight 1."""
    fractional: float
    """Fraction of frames with a weight between 0 and 1."""
    nothing: float
    """Fraction of frames with weight 0."""
    mean: float
    mean_success: float
    """Mean weight in episodes marked as successes, and those that count like them; NaN where there are none."""
    mean_failure: float
    """Mean weight in episodes marked as failures; NaN where there are none."""
    unknown: int
    """Episodes of unknown outcome."""
    finished: int
    """Of these, those that count like successes."""
    warnings: tuple[str, ...]

    def metrics(self) -> dict[str, float]:
        """Flat metrics under stable keys."""
        return {
            "frames": self.frames,
            "effective_sample_size": self.effective,
            "effective_fraction": self.effective / self.frames,
            "weight_full": self.full,
            "weight_fractional": self.fractional,
            "weight_zero": self.nothing,
            "weight_mean": self.mean,
            "weight_mean_success": self.mean_success,
            "weight_mean_failure": self.mean_failure,
            "episodes_unknown_outcome": self.unknown,
            "episodes_counted_like_successes": self.finished,
        }


def effective_sample_size(weights: np.ndarray) -> float:
    """(sum w)^2 / sum w^2 (Kish); 0 where every weight is 0."""
    weights = np.asarray(weights, dtype=np.float64)
    square = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / square if square > 0 else 0.0


def weight_report(
    result: StoreWeights,
    stages: Mapping[str, np.ndarray] | None = None,
    names: Sequence[str] = (),
    progress: Mapping[str, np.ndarray] | None = None,
) -> WeightReport:
    """Count the weights of a store and say what is odd about them.

    Args:
        result: the weights.
        stages: by episode uuid, (T,) stage of each frame, -1 where unlabelled; to find stages that hardly count.
        names: of the stages.
        progress: by episode uuid, (T,) what the weights were made from; to find a model that does not follow the task.
    """
    flat = np.concatenate(list(result.weights.values())).astype(np.float64)
    full, nothing = float((flat >= FULL).mean()), float((flat <= NOTHING).mean())
    by_outcome = {
        outcome: [array for uuid, array in result.weights.items() if _counts_as(result, uuid) is outcome]
        for outcome in (True, False)
    }
    mean_success, mean_failure = (_mean(by_outcome[outcome]) for outcome in (True, False))
    return WeightReport(
        frames=len(flat),
        effective=effective_sample_size(flat),
        full=full,
        fractional=max(0.0, 1.0 - full - nothing),
        nothing=nothing,
        mean=float(flat.mean()),
        mean_success=mean_success,
        mean_failure=mean_failure,
        unknown=sum(result.success.get(uuid) is None for uuid in result.weights),
        finished=len(result.finished & result.weights.keys()),
        warnings=(
            *_warnings(result, flat, full, nothing, mean_success, mean_failure),
            *_starved_stages(result, stages or {}, names),
            *_lost(result, progress or {}),
        ),
    )


def _counts_as(result: StoreWeights, uuid: str) -> bool | None:
    return True if uuid in result.finished else result.success.get(uuid)


def _mean(arrays: list[np.ndarray]) -> float:
    return float(np.concatenate(arrays).mean()) if arrays else float("nan")


def _warnings(
    result: StoreWeights,
    flat: np.ndarray,
    full: float,
    nothing: float,
    mean_success: float,
    mean_failure: float,
) -> list[str]:
    only_failures = bool(result.success) and all(outcome is False for outcome in result.success.values())
    if result.failures_left_out and only_failures:
        return [
            "every weight is 0: all episodes are marked as failures, which are left out. Keep their productive part "
            "with calibration.failure_discount=1, or record successes"
        ]
    if not flat.any():
        return [
            "every weight is 0: no frame gains progress over the horizon. Look at the model with eval-reward, "
            "and try a longer horizon"
        ]
    found = []
    low, high = np.quantile(flat, [(1 - UNIFORM_FRACTION) / 2, (1 + UNIFORM_FRACTION) / 2])
    if high - low < 0.05:
        advice = " (kappa is far below the task's pace; mode=calibrated fits it)" if result.mode == "paper" else ""
        found.append(
            f"the weights are nearly uniform ({low:.2f} to {high:.2f} in {UNIFORM_FRACTION:.0%} of frames): "
            f"training with them is plain cloning{advice}"
        )
    elif 1.0 - full - nothing < BINARY_FRACTION and result.mode not in FILTERS:  # filters are meant to be binary
        advice = (
            "try mode=calibrated" if result.mode == "paper" else "lower calibration.dead_zone or raise the quantile"
        )
        found.append(
            f"the weights are nearly binary ({full:.0%} at 1, {nothing:.0%} at 0): they filter frames rather than "
            f"weight them; {advice}"
        )
    if mean_failure > mean_success:
        found.append(
            f"frames of failed episodes have more weight ({mean_failure:.2f}) than those of successes "
            f"({mean_success:.2f}): the model may hallucinate progress on failures. Look at it with eval-reward"
        )
    starved = [
        uuid
        for uuid, array in result.weights.items()
        if _counts_as(result, uuid) is True and float(array.mean()) < STARVED
    ]
    if starved:
        found.append(
            f"{len(starved)} episode(s) that succeeded, or count like it, keep less than a tenth of their weight, the "
            f"first {starved[0]}"
        )
    return found


def _lost(result: StoreWeights, progress: Mapping[str, np.ndarray]) -> list[str]:
    """A model that does not follow successful episodes leaves out frames at random, which is worse than no weights."""
    followed = voc([array for uuid, array in progress.items() if result.success.get(uuid) is not False])
    if followed >= FOLLOWS or not progress or np.isnan(followed):
        return []
    return [
        f"the progress hardly rises along the episodes that did not fail (voc {followed:.2f}): these weights may do "
        "worse than none. Train the model longer, and look at it with eval-reward"
    ]


def _starved_stages(result: StoreWeights, stages: Mapping[str, np.ndarray], names: Sequence[str]) -> list[str]:
    """A stage that hardly counts anywhere is one that the policy will not learn."""
    total, count = np.zeros(len(names)), np.zeros(len(names))
    for uuid, stage in stages.items():
        known = (stage >= 0) & (stage < len(names))
        total += np.bincount(stage[known], result.weights[uuid][known], len(names))
        count += np.bincount(stage[known], minlength=len(names))
    mean = np.divide(total, count, out=np.ones(len(names)), where=count > 0)
    if not total.any():  # every weight is 0, which is said already
        return []
    return [
        f"stage '{names[k]}' keeps a mean weight of {mean[k]:.2f}: a policy will hardly learn it. Look at "
        "its progress with eval-reward, or try a longer horizon"
        for k in np.flatnonzero(mean < STARVED)
    ]
