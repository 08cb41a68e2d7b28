"""Wilson intervals: values by hand, bounds, symmetry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_rm.metrics.intervals import wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # By hand with z = 1.96: for 5 of 10, (0.5 + 0.19207 -+ 1.96 sqrt(0.025 + 0.0096037)) / 1.38415.
        (5, 10, 0.2366, 0.7634),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (81, 100, 0.7222, 0.8749),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval_has_the_values_of_its_formula(successes, trials, low, high):
    assert wilson_interval(successes, trials)[1:] == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_rate_and_mirrors(counts):
    successes, trials = counts
    _, low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    mirrored = wilson_interval(trials - successes, trials)[1:]
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-12)


def test_more_successes_than_trials_are_refused():
    with pytest.raises(ValueError, match="3 successes in 2 trials"):
        wilson_interval(3, 2)
