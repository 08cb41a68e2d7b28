"""The promise: whatever the scores are, no more runs than promised raise an alarm."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robo_rm.monitor.conformal import fewest_runs, level_for, limits, p_value

NUMBERS = st.one_of(st.floats(0, 1e6), st.just(0.0), st.just(1.0), st.just(math.inf))
MATRICES = st.tuples(st.integers(2, 25), st.integers(1, 5)).flatmap(
    lambda shape: arrays(float, shape, elements=NUMBERS)
)


@given(MATRICES, st.sampled_from([0.05, 0.1, 0.2, 0.5]))
def test_of_runs_that_are_alike_no_more_than_the_rate_raise_an_alarm(runs, rate):
    # Each run in turn is the new one: the share of alarms is the probability under exchangeability, exactly.
    alarms = sum(p_value(np.delete(runs, i, axis=0), runs[i])[0] <= rate for i in range(len(runs)))
    assert alarms <= rate * len(runs)


@given(MATRICES, st.data())
def test_a_run_that_gets_worse_never_looks_better(runs, data):
    new = runs[-1]
    worse = new + np.array(data.draw(st.lists(st.floats(0, 1e6), min_size=len(new), max_size=len(new))))
    assert p_value(runs[:-1], worse)[0] <= p_value(runs[:-1], new)[0]


def test_enough_runs_and_a_bad_score_raise_an_alarm_and_one_run_fewer_cannot():
    good = np.random.default_rng(0).uniform(0.5, 1.5, (19, 3))
    bad = np.array([1.0, 100.0, 1.0])
    assert p_value(good, bad) == (pytest.approx(0.05), 1)
    assert p_value(good[:-1], bad)[0] > 0.05
    assert (fewest_runs(0.05), fewest_runs(0.01), fewest_runs(0.2)) == (19, 99, 4)


def test_scores_of_any_unit_are_detected():
    rng = np.random.default_rng(1)
    runs = rng.uniform(0.5, 1.5, (60, 3)) * [1e-4, 1.0, 1e5]
    for j in range(3):
        new = np.array([1e-4, 1.0, 1e5])
        new[j] *= 50
        assert p_value(runs, new) == (pytest.approx(1 / 61), j)


def test_the_limit_of_a_score_is_where_it_begins_to_raise_an_alarm():
    runs = np.random.default_rng(2).uniform(0.5, 1.5, (40, 2))
    for j, limit in enumerate(limits(runs, 0.05)):
        probe = np.zeros(2)
        probe[j] = limit * 1.001
        assert p_value(runs, probe)[0] <= 0.05
        probe[j] = limit * 0.999
        assert p_value(runs, probe)[0] > 0.05
    assert np.isinf(limits(runs[:10], 0.05)).all()


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.5])
def test_a_rate_outside_0_and_1_is_refused(rate):
    with pytest.raises(ValueError, match="between 0 and 1"):
        fewest_runs(rate)


@given(arrays(float, st.integers(1, 40), elements=st.floats(0, 1)), st.sampled_from([0.05, 0.2, 0.5]))
def test_no_more_failed_runs_than_the_rate_lie_above_the_done_level(values, rate):
    above = 0
    for i in range(len(values)):
        level = level_for(np.delete(values, i), rate)
        above += level is not None and values[i] > level
    assert above <= rate * len(values)
