"""Intervals: how far a figure may move with other episodes of the same kind.

The unit is the episode: frames of one episode resemble each other, so resampling frames would promise too much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Interval(NamedTuple):
    """A figure with the ends of its confidence interval; NaN ends where it cannot be had."""

    value: float
    low: float
    high: float


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Success rate with Wilson's score interval (Wilson 1927), sound for few trials and for rates of 0 and 1."""
    from scipy.stats import norm

    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if trials == 0:
        return Interval(float("nan"), 0.0, 1.0)
    z = float(norm.ppf((1 + level) / 2))
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    # Rounding may leave the end a hair inside the rate at 0 and 1.
    return Interval(rate, max(min(centre - half, rate), 0.0), min(max(centre + half, rate), 1.0))


def bootstrap_interval(
    statistic: Callable[[npt.NDArray[np.int64]], float],
    episodes: int,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over episodes.

    Args:
        statistic: from episode positions (E,), with repeats, to the figure; NaN where a draw does not support it.
        episodes: E, how many there are.
        level: share of resampled figures inside the interval.
        resamples: draws.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        The figure of all episodes as they are, and the interval over the draws that support the figure. The ends are
        NaN with fewer than two episodes, or where less than half of the draws support it.
    """
    everyone = np.arange(episodes, dtype=np.int64)
    value = float(statistic(everyone)) if episodes else float("nan")
    if episodes < 2 or not math.isfinite(value):
        return Interval(value, float("nan"), float("nan"))
    draws = np.random.default_rng(seed).integers(0, episodes, size=(resamples, episodes))
    values = np.array([statistic(draw) for draw in draws], dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) < resamples / 2:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def paired_bootstrap(
    first: npt.ArrayLike, second: npt.ArrayLike, level: float = 0.95, resamples: int = 10000, seed: int = 0
) -> Interval:
    """Mean of ``second - first`` over paired episodes (E,), with a percentile bootstrap interval."""
    difference = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    return bootstrap_interval(lambda draw: float(difference[draw].mean()), len(difference), level, resamples, seed)
