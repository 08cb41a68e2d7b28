"""Whether one policy succeeds more often than another, on the starts that both faced."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robo_core.errors import ConfigError
from robo_rm.metrics.intervals import Interval, wilson_interval

LEVEL = 0.05
"""Below this probability a difference counts as one."""


@dataclass(frozen=True)
class Comparison:
    """Two policies on the same starts.

    Attributes:
        pairs: starts that both faced.
        both: starts on which both succeeded.
        only_first: starts on which only the first policy succeeded.
        only_second: starts on which only the second did.
        difference: success of the second minus that of the first, with its 95 % interval.
        p_value: McNemar's exact test of both being equally good.
    """

    pairs: int
    both: int
    only_first: int
    only_second: int
    difference: Interval
    p_value: float

    @property
    def neither(self) -> int:
        """Starts on which both failed."""
        return self.pairs - self.both - self.only_first - self.only_second

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``undecided``: the second policy against the first."""
        if self.p_value >= LEVEL:
            return "undecided"
        return "better" if self.only_second > self.only_first else "worse"


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact McNemar test (McNemar 1947): a fair coin on the pairs that differ.

    Args:
        only_first: pairs in which only the first succeeded.
        only_second: pairs in which only the second did.

    Returns:
        The probability of a split at least so uneven if both are equally good; 1 where no pair differs.
    """
    from scipy.stats import binomtest

    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts of pairs must be 0 or more, not {only_first} and {only_second}")
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def paired_interval(both: int, only_first: int, only_second: int, neither: int) -> Interval:
    """The difference of two success rates over pairs with its 95 % interval (Newcombe 1998, method 10).

    Wilson's intervals of the two rates put together with the correlation of the pairs. Unlike a bootstrap it keeps a
    width where no pair differs, and its sides are not too short where few do.
    """
    pairs = both + only_first + only_second + neither
    first, low_first, high_first = wilson_interval(both + only_first, pairs, 1 - LEVEL)
    second, low_second, high_second = wilson_interval(both + only_second, pairs, 1 - LEVEL)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    agreement = float(both * neither - only_first * only_second)
    if agreement > 0:  # the continuity correction, which never turns a correlation round
        agreement = max(agreement - pairs / 2, 0.0)
    correlation = agreement / math.sqrt(margins) if margins else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))

    value = (only_second - only_first) / pairs
    return Interval(
        value,
        max(value - reach(second - low_second, high_first - first), -1.0),
        min(value + reach(high_second - second, first - low_first), 1.0),
    )


def compare(first: Sequence[bool], second: Sequence[bool]) -> Comparison:
    """Compare the successes of two policies, start by start.

    Args:
        first: (N,) success of the policy compared with.
        second: (N,) success of the other one on the same starts, in the same order.

    Raises:
        ConfigError: they are not as many, or there are none.
    """
    if len(first) != len(second) or not len(first):
        raise ConfigError(f"{len(first)} and {len(second)} episodes cannot be paired; both need the same, one or more")
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((a & ~b).sum()), int((~a & b).sum())
    return Comparison(
        pairs=len(a),
        both=int((a & b).sum()),
        only_first=only_first,
        only_second=only_second,
        difference=paired_interval(int((a & b).sum()), only_first, only_second, int((~a & ~b).sum())),
        p_value=mcnemar_exact(only_first, only_second),
    )
