"""Conformal p-values for runs that are watched by several scores at once.

Calibration: n successful runs, each with J scores (the largest value over its time, larger is worse). A new run is put
beside them, each score is divided by a scale that all n + 1 runs have in common, and a run counts by the worst of its
scaled scores:

    V_i = max_j s_ij / Q_j,      p = #{i : V_i >= V_new} / (n + 1)

Q_j is an order statistic of the n + 1 values, so the rule treats all runs alike; where the new run is exchangeable with
the calibration runs, P(p <= a) <= a for every a (full conformal prediction, Vovk et al., Algorithmic Learning in a
Random World, 2005, section 2.2). The smallest p is 1 / (n + 1): below 1/a - 1 runs no alarm can keep a rate a.

Scores are running maxima, and p never rises when a score of the new run grows. So "an alarm at some time" is the same
event as "p <= a at the end", and the bound holds for the whole run.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_QUANTILE = 0.9
"""Which order statistic scales a score. It changes what is detected first, never the bound."""


def fewest_runs(rate: float) -> int:
    """The least number of calibration runs with which false alarms can be bounded by ``rate``.

    Raises:
        ValueError: the rate is not between 0 and 1.
    """
    if not 0 < rate < 1:
        raise ValueError(f"a rate of false alarms lies between 0 and 1, got {rate}")
    return math.ceil(1 / rate - 1 - 1e-9)


def scaled(runs: npt.NDArray[np.float64], new: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Each score over its scale, (n + 1, J), the new run last. 0/0 is 0: a score that nothing ever moved says nothing.

    Args:
        runs: (n, J) calibration scores, not negative.
        new: (J,) scores of the new run so far.
    """
    everything = np.vstack([runs, new[None]])
    place = math.ceil(_QUANTILE * len(everything)) - 1
    scale = np.partition(everything, place, axis=0)[place]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = everything / scale
    # An infinite score is beyond every other; its own scale must not hide that.
    return np.where(np.isinf(everything), np.inf, np.where(everything <= 0, 0.0, ratio))


def p_value(runs: npt.NDArray[np.float64], new: npt.NDArray[np.float64]) -> tuple[float, int]:
    """The p-value of a new run, and which of its scores is the worst.

    Args:
        runs: (n, J) calibration scores.
        new: (J,) scores of the new run.
    """
    ratio = scaled(runs, new)
    worst = ratio.max(axis=1)
    return float((worst >= worst[-1]).mean()), int(ratio[-1].argmax())


def limits(runs: npt.NDArray[np.float64], rate: float) -> npt.NDArray[np.float64]:
    """The value of each score (J,) from which it raises an alarm by itself; infinite where it never does."""
    found = np.full(runs.shape[1], np.inf)
    if len(runs) < fewest_runs(rate):
        return found
    for j in range(runs.shape[1]):
        low, high = 0.0, max(float(runs[:, j].max()), 1e-9) * 1e6
        probe = np.zeros(runs.shape[1])
        probe[j] = high
        if p_value(runs, probe)[0] > rate:
            continue
        for _ in range(100):
            middle = (low + high) / 2
            probe[j] = middle
            low, high = (low, middle) if p_value(runs, probe)[0] <= rate else (middle, high)
        found[j] = high
    return found


def level_for(values: npt.NDArray[np.float64], rate: float) -> float | None:
    """A level that a new value of the same kind reaches with probability ``rate`` at most; None: too few values.

    The ceil((n + 1)(1 - rate))-th smallest of ``values`` (n,); a value must lie *above* it.
    """
    if len(values) < fewest_runs(rate):
        return None
    place = math.ceil((len(values) + 1) * (1 - rate) - 1e-9)
    return float(np.sort(values)[min(place, len(values)) - 1])
