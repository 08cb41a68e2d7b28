"""Intervals: values by hand and from tables, bounds that stay open, corrections for many comparisons."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_rm.metrics.intervals import (
    Interval,
    auroc_interval,
    exact_interval,
    holm,
    hull,
    mean_interval,
    student_interval,
    swap_p_value,
    trials_needed,
    wilson_interval,
)


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


@settings(deadline=None)
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


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Clopper and Pearson's own: 1 - 0.025^(1/n) at 0, and beta quantiles.
    [(0, 1, 0.0, 0.975), (0, 36, 0.0, 0.0974), (1, 10, 0.0025, 0.4450), (10, 10, 0.6915, 1.0)],
)
def test_exact_intervals_against_published_values(successes, trials, low, high):
    assert exact_interval(successes, trials)[1:] == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("bound", [0.02, 0.1, 0.2, 0.5])
def test_the_trials_needed_are_the_fewest_that_keep_the_bound(bound):
    needed = trials_needed(bound)
    assert exact_interval(0, needed).high <= bound < exact_interval(0, needed - 1).high


class TestAuroc:
    def test_with_one_of_each_it_is_wilsons(self):
        assert auroc_interval(1.0, 1, 1).low == pytest.approx(wilson_interval(1, 1).low, abs=1e-6)

    def test_it_stays_open_at_the_ends_and_mirrors(self):
        top, bottom = auroc_interval(1.0, 8, 8), auroc_interval(0.0, 8, 8)
        assert 0.7 < top.low < 0.8
        assert (top.high, bottom.low) == (1.0, 0.0)
        assert bottom.high == pytest.approx(1 - top.low)

    def test_successes_do_not_stand_in_for_failures(self):
        assert auroc_interval(1.0, 500, 2).low == pytest.approx(auroc_interval(1.0, 2, 2).low)
        assert np.isnan(auroc_interval(float("nan"), 5, 5).low)
        assert np.isnan(auroc_interval(1.0, 5, 0).low)

    @settings(deadline=None)
    @given(st.floats(0, 1), st.integers(1, 60))
    def test_it_holds_the_area_and_narrows_with_more(self, area, count):
        found, more = auroc_interval(area, count, count), auroc_interval(area, 2 * count, 2 * count)
        assert 0 <= found.low <= area <= found.high <= 1
        assert more.high - more.low <= found.high - found.low + 1e-9

    def test_it_covers_as_often_as_it_promises(self):
        rng = np.random.default_rng(0)
        # Normal scores 1.8 standard deviations apart: the true area is Phi(1.8 / sqrt 2) = 0.898.
        covered = 0
        for _ in range(300):
            wins, losses = rng.normal(1.8, 1, 10), rng.normal(0, 1, 10)
            found = auroc_interval(float((wins[:, None] > losses).mean()), 10, 10)
            covered += found.low <= 0.8984 <= found.high
        assert covered / 300 >= 0.93


class TestMeans:
    def test_where_all_agree_the_interval_is_the_exact_one(self):
        assert mean_interval(np.zeros(36)).high == pytest.approx(exact_interval(0, 36).high)
        assert mean_interval([1.0, np.nan]).low == pytest.approx(exact_interval(1, 1).low)

    def test_a_worse_model_is_not_known_better(self):
        assert mean_interval([*np.zeros(35), 0.01]).high > mean_interval(np.zeros(36)).high

    def test_it_covers_shares_of_rare_events(self):
        rng = np.random.default_rng(1)
        found = [mean_interval((rng.random(12) < 0.1).astype(float)) for _ in range(300)]
        assert np.mean([f.low <= 0.1 <= f.high for f in found]) >= 0.93

    def test_nothing_gives_nothing(self):
        assert np.isnan(mean_interval([]).value)
        assert np.isnan(student_interval([0.5]).low)
        assert student_interval([1.0, 2.0, 3.0]) == pytest.approx((2, 2 - 2.4841, 2 + 2.4841), abs=1e-3)

    def test_the_widest_of_several_is_taken(self):
        nan = float("nan")
        assert hull(Interval(0.5, 0.4, 0.6), Interval(0.4, 0.1, 0.5)) == (0.5, 0.1, 0.6)
        assert hull(Interval(0.5, nan, nan), Interval(0.4, 0.1, 0.45)) == (0.5, 0.1, 0.5)
        assert np.isnan(hull(Interval(0.5, nan, nan)).low)
        assert np.isnan(hull(Interval(nan, nan, nan), Interval(0, 0, 1)).low)


class TestComparisons:
    def test_holm_by_hand(self):
        assert holm([0.01, 0.04, 0.03, np.nan])[:3] == pytest.approx([0.03, 0.06, 0.06])
        assert np.isnan(holm([0.01, np.nan])[1])
        assert holm([0.01, 0.02], comparisons=10) == pytest.approx([0.1, 0.18])

    def test_of_few_episodes_none_is_beyond_chance(self):
        better = np.ones(3)
        p = swap_p_value(lambda swap: float(np.where(swap, -better, better).mean()), 3)
        assert p == pytest.approx(0.25, abs=0.05), "two of the eight exchanges are as far from 0"

    def test_of_many_it_is(self):
        better = np.random.default_rng(0).normal(1, 0.5, 40)
        assert swap_p_value(lambda swap: float(np.where(swap, -better, better).mean()), 40, draws=500) < 0.01

    def test_alike_models_are_called_different_as_rarely_as_promised(self):
        rng = np.random.default_rng(2)
        found = []
        for trial in range(200):
            noise = rng.normal(0, 1, 12)
            found.append(swap_p_value(lambda s, n=noise: float(np.where(s, -n, n).mean()), 12, draws=200, seed=trial))
        assert np.mean(np.array(found) <= 0.05) <= 0.09

    def test_no_difference_has_no_doubt(self):
        assert swap_p_value(lambda swap: 0.0, 5, draws=20) == 1
        assert np.isnan(swap_p_value(lambda swap: float("nan"), 5, draws=20))
