"""Hops: range, directions, and that progress is recovered from them exactly."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_rm.reward_models.grm.labels import hop, hop_bounds, stage_truth, time_truth

SHARE = st.floats(0, 1, width=32)
CURVE = st.lists(SHARE, min_size=2, max_size=30)


@given(SHARE, SHARE)
def test_a_hop_lies_in_its_range_and_has_the_sign_of_the_change(here, there):
    value = float(hop(here, there))
    assert -1 <= value <= 1
    assert np.sign(value) == np.sign(there - here)


@given(SHARE, SHARE)
def test_a_hop_turned_round_has_the_other_sign(here, there):
    assert np.sign(hop(here, there)) == -np.sign(hop(there, here))


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_what_is_left_and_what_is_done_change_places_when_the_task_is_undone(here, there):
    assert hop(1 - here / 1000, 1 - there / 1000) == pytest.approx(-hop(here / 1000, there / 1000), abs=1e-9)


def test_a_hop_is_the_share_of_what_was_to_do_or_had_been_done():
    assert hop(0.2, 0.6) == pytest.approx(0.5)
    assert hop(0.6, 0.2) == pytest.approx(-2 / 3)
    assert hop(0.0, 0.7) == pytest.approx(0.7)  # the forward perspective
    assert hop(1.0, 0.7) == pytest.approx(-0.3)  # the backward one
    assert hop(0.0, 1.0) == 1
    assert hop(1.0, 0.0) == -1
    assert hop(1.0, 1.0) == 0
    assert hop(0.0, 0.0) == 0


@given(st.tuples(SHARE, SHARE, SHARE).map(sorted))
def test_hops_forward_compose(moments):
    low, middle, high = moments
    left = (1 - hop(low, middle)) * (1 - hop(middle, high))
    assert 1 - hop(low, high) == pytest.approx(left, abs=1e-9)


@given(CURVE)
def test_true_hops_lead_back_to_the_very_progress(curve):
    progress = np.array(curve, dtype=np.float64)
    reached = progress[0]
    for here, there in itertools.pairwise(progress):
        # A hop of -1 or 1 forgets where it came from, so the chain is not even sensitive to errors there.
        by = float(hop(here, there))
        reached += (1 - reached if by >= 0 else reached) * by
        assert reached == pytest.approx(there, abs=1e-9)


@given(st.tuples(SHARE, SHARE).map(sorted), st.tuples(SHARE, SHARE).map(sorted), SHARE, SHARE)
def test_bounds_hold_every_hop_between_the_intervals(here, there, a, b):
    low, high = hop_bounds((here[0], there[0]), (here[1], there[1]))
    inside = hop(here[0] + a * (here[1] - here[0]), there[0] + b * (there[1] - there[0]))
    assert low - 1e-6 <= inside <= high + 1e-6


def episode(stage, success):
    return SimpleNamespace(uuid="e", stage=np.array(stage), success=success, length=len(stage))


def test_a_finished_episode_is_known_everywhere():
    truth = stage_truth(episode([0, 0, 1, 1], True), [0.4, 0.6])
    np.testing.assert_allclose(truth.low, [0, 0.2, 0.4, 0.7], atol=1e-6)
    np.testing.assert_array_equal(truth.low, truth.high)
    assert truth.reached
    assert not len(truth.plateau)


def test_a_failure_is_on_a_plateau_whose_height_is_known_to_the_stage():
    truth = stage_truth(episode([-1, 0, 0, 1, 1], False), [0.4, 0.6])
    assert np.isnan(truth.low[0])
    assert np.isnan(truth.high[0])
    np.testing.assert_allclose(truth.low[3:], 0.4, atol=1e-6)
    np.testing.assert_allclose(truth.high[3:], 1.0, atol=1e-6)
    assert not truth.reached
    assert truth.plateau.tolist() == [3, 4]
    assert truth.known.tolist() == [1, 2, 3, 4]


def test_an_episode_that_stops_before_the_last_stage_shows_no_goal():
    assert not stage_truth(episode([0, 0, 0], True), [0.4, 0.6]).reached
    assert stage_truth(episode([0, 1], None), [0.4, 0.6]).reached


def test_progress_of_time_is_even():
    truth = time_truth(5)
    np.testing.assert_allclose(truth.low, [0, 0.25, 0.5, 0.75, 1])
    assert truth.reached
