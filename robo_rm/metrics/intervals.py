"""Intervals: how far a metric may move with other episodes of the same kind.

The unit is the episode: frames of one episode resemble each other, so resampling frames would promise too much.

A percentile bootstrap knows only what it has seen: of five episodes without a single error it makes the interval 0 to
0. So bounds that decide about trust come from intervals that stay open there: exact ones (Clopper and Pearson 1934)
for counts, a score interval (Newcombe 2006) for the area under a ROC curve, and a pseudo-count interval for means.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Interval(NamedTuple):
    """A metric with the ends of its confidence interval; NaN ends where there is none."""

    value: float
    low: float
    high: float


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Success rate with Wilson's score interval (Wilson 1927), sound for few trials and for rates of 0 and 1."""
    return _proportion(successes, trials, level, "wilson")


def exact_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Success rate with the exact interval of Clopper and Pearson (1934), which never promises too much."""
    return _proportion(successes, trials, level, "exact")


def _proportion(successes: int, trials: int, level: float, method: str) -> Interval:
    from scipy.stats import binomtest

    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if trials == 0:
        return Interval(float("nan"), 0.0, 1.0)
    found = binomtest(int(successes), int(trials)).proportion_ci(level, method=method)
    rate = successes / trials
    # Rounding may leave an end a hair inside the rate at 0 and 1.
    return Interval(rate, min(float(found.low), rate), max(float(found.high), rate))


def trials_needed(bound: float, level: float = 0.95) -> int:
    """Fewest trials without an error after which the exact interval of the error rate ends at ``bound`` or below."""
    if not 0 < bound < 1:
        raise ValueError(f"a bound of {bound} is not between 0 and 1")
    return math.ceil(math.log((1 - level) / 2) / math.log1p(-bound))


def auroc_interval(value: float, successes: int, failures: int, level: float = 0.95) -> Interval:
    """Score interval of an area under the ROC curve (Newcombe 2006, Statistics in Medicine 25, method 5).

    The ends are the areas A at which the observed one lies z standard errors away, with the variance that Hanley and
    McNeil (1982) give for A. Both groups count as the smaller one, so that many successes do not stand in for failures
    that were never seen; with one of each it is Wilson's interval.

    Args:
        value: the area, NaN where it is not defined.
        successes: episodes on one side.
        failures: episodes on the other.
        level: of confidence.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    count = min(successes, failures)
    if not count or not math.isfinite(value):
        return Interval(value, float("nan"), float("nan"))
    z = float(norm.ppf((1 + level) / 2))

    def miss(area: float) -> float:
        inflation = 1 + (count - 1) * ((1 - area) / (2 - area) + area / (1 + area))
        return (value - area) ** 2 - z * z * area * (1 - area) * inflation / (count * count)

    # An area of 0 or 1 is a root itself; the end sought lies inside.
    hair = 1e-9
    low = 0.0 if value <= hair else float(brentq(miss, 0.0, min(value, 1 - hair)))
    high = 1.0 if value >= 1 - hair else float(brentq(miss, max(value, hair), 1.0))
    return Interval(value, min(low, value), max(high, value))


PSEUDO = 2
"""Made-up values at 0, and as many at 1, that keep the interval of a mean open (Agresti and Coull 1998)."""


def mean_interval(fractions: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Mean of episodes' fractions (E,) in [0, 1], with an interval that stays open where all are alike.

    Student's interval of the values and two made-up ones at each end of [0, 1]: the "plus four" interval of Agresti
    and Coull, for fractions instead of counts. NaN values are left out.
    """
    from scipy.stats import t

    values = np.asarray(fractions, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    widened = np.concatenate([values, np.zeros(PSEUDO), np.ones(PSEUDO)])
    half = float(t.ppf((1 + level) / 2, len(widened) - 1) * widened.std(ddof=1) / math.sqrt(len(widened)))
    centre, value = float(widened.mean()), float(values.mean())
    low, high = max(0.0, min(centre - half, value)), min(1.0, max(centre + half, value))
    # Where every episode agrees, the count of episodes has an exact interval.
    if (values == 0).all():
        return Interval(0.0, 0.0, exact_interval(0, len(values), level).high)
    if (values == 1).all():
        return Interval(1.0, exact_interval(len(values), len(values), level).low, 1.0)
    return Interval(value, low, high)


def student_interval(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Mean of values (N,) with Student's interval; NaN values are left out, the ends NaN with fewer than two."""
    from scipy.stats import t

    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array)]
    if len(array) < 2:
        return Interval(float(array.mean()) if len(array) else float("nan"), float("nan"), float("nan"))
    half = float(t.ppf((1 + level) / 2, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return Interval(float(array.mean()), float(array.mean()) - half, float(array.mean()) + half)


def hull(metric: Interval, *others: Interval) -> Interval:
    """The metric with the widest of several intervals; ends that are NaN are left out."""
    lows = [other.low for other in (metric, *others) if math.isfinite(other.low)]
    highs = [other.high for other in (metric, *others) if math.isfinite(other.high)]
    if not lows or not highs or not math.isfinite(metric.value):
        return Interval(metric.value, float("nan"), float("nan"))
    return Interval(metric.value, min(metric.value, *lows), max(metric.value, *highs))


def bootstrap_interval(
    statistic: Callable[[npt.NDArray[np.int64]], float],
    episodes: int,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over episodes.

    Args:
        statistic: from episode positions (E,), with repeats, to the metric; NaN where a draw does not support it.
        episodes: E, how many there are.
        level: fraction of resampled metrics inside the interval.
        resamples: draws.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        The metric of all episodes as they are, and the interval over the draws that support the metric. The ends are
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


ENOUGH = 50
"""Exchanges with as great a difference after which a p-value is known well enough (Besag and Clifford 1991)."""


def swap_p_value(
    difference: Callable[[npt.NDArray[np.bool_]], float], episodes: int, draws: int = 2000, seed: int = 0
) -> float:
    """Two-sided p-value of a difference between two models evaluated on the same episodes, by exchanging their labels.

    If the models were alike, which of an episode's two predictions is whose would not matter (Fisher's randomisation
    test, paired). It needs no variation between episodes: with three episodes it cannot fall below one in four.

    Args:
        difference: from (E,) bool, the episodes whose predictions are exchanged, to the difference of the metric.
        episodes: E.
        draws: random exchanges; the smallest p-value is 1 / (draws + 1).
        seed: of the exchanges.

    Returns:
        In (0, 1]; NaN where the difference itself is not defined.
    """
    observed = abs(float(difference(np.zeros(episodes, dtype=np.bool_)))) if episodes else float("nan")
    if not math.isfinite(observed):
        return float("nan")
    chance = np.random.default_rng(seed)
    as_far = 0
    for drawn in range(1, draws + 1):
        value = abs(float(difference(chance.random(episodes) < 0.5)))
        # A draw that does not support the metric speaks for neither side and counts as no smaller.
        as_far += not value < observed - 1e-12
        if as_far == ENOUGH:
            return as_far / drawn
    return (1 + as_far) / (draws + 1)


def holm(p_values: npt.ArrayLike, comparisons: int | None = None) -> npt.NDArray[np.float64]:
    """P-values (M,) adjusted for the number of comparisons (Holm 1979); NaN stays NaN and is not counted.

    Args:
        p_values: of the comparisons made.
        comparisons: how many could have been made, where these were chosen among more; theirs by default.
    """
    values = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(values))
    total = max(len(known), comparisons or 0)
    adjusted = np.full(len(values), np.nan)
    reached = 0.0
    for rank, place in enumerate(known[np.argsort(values[known], kind="stable")]):
        reached = max(reached, min(1.0, (total - rank) * float(values[place])))
        adjusted[place] = reached
    return adjusted
