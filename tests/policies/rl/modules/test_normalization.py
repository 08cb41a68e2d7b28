"""Inputs are normalized by everything observed so far, and ignored columns stay hidden."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_core.errors import ModelError
from robo_policies.rl.modules.normalization import MIN_SCALE, RunningMeanStd, mean_and_scale


@given(st.lists(st.integers(0, 7), min_size=1, max_size=8), st.integers(0, 10**6), st.floats(-1e3, 1e3))
@settings(max_examples=60, deadline=None)
def test_pieces_have_the_statistics_of_the_whole(sizes: list[int], seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    pieces = [(shift + rng.normal(size=(n, 3)) * [1.0, 30.0, 1e-4]).astype(np.float32) for n in sizes]
    running, through = RunningMeanStd(3, [1]), RunningMeanStd(3, [1])
    for piece in pieces:
        running.add(piece)
        through.restore(json.loads(json.dumps(through.snapshot())))
        through.add(piece)
    whole = np.concatenate(pieces)
    assert running.count == len(whole)
    assert running.snapshot() == through.snapshot()
    if not len(whole):
        return
    mean, scale = running.mean_and_scale()
    wanted = mean_and_scale(whole, [1])
    np.testing.assert_allclose(mean, wanted[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scale, wanted[1], rtol=1e-4)


def test_no_scale_is_tiny_and_ignored_columns_are_zero() -> None:
    seen = np.array([[1.0, 5.0, 2.0], [3.0, 5.0, 9.0]], np.float32)
    mean, scale = mean_and_scale(seen, [2])
    assert mean.tolist() == [2.0, 5.0, 5.5]
    assert scale[:2].tolist() == pytest.approx([1.0, MIN_SCALE])
    assert ((seen - mean) / scale)[:, 2].tolist() == [0, 0]


def test_before_anything_was_observed_values_are_unmodified() -> None:
    mean, scale = RunningMeanStd(2).mean_and_scale()
    assert (mean.tolist(), scale.tolist()) == ([0, 0], [1, 1])


@pytest.mark.parametrize("snapshot", [{}, {"count": 1, "mean": [0], "squares": [0]}, {"count": 1, "mean": "a"}])
def test_statistics_of_another_environment_are_refused(snapshot: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="the checkpoint"):
        RunningMeanStd(2).restore(snapshot)


@pytest.mark.parametrize("unit", [1.0, 1e-3, 5e-5, 1e-9])
def test_small_units_are_brought_to_the_same_order_as_large_ones(unit: float) -> None:
    seen = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    mean, scale = mean_and_scale(seen * np.float32(unit))
    assert ((seen * np.float32(unit) - mean) / scale).std(axis=0) == pytest.approx([1, 1], rel=1e-3)
    running = RunningMeanStd(2)
    running.add(seen * np.float32(unit))
    np.testing.assert_allclose(running.mean_and_scale()[1], scale, rtol=1e-4)


def test_what_hardly_varied_beside_its_own_magnitude_is_not_blown_up() -> None:
    held = 0.7 + 1e-6 * np.random.default_rng(0).normal(size=(200, 1))
    assert mean_and_scale(held.astype(np.float32))[1] == pytest.approx([0.007], rel=1e-3)
    assert mean_and_scale(np.full((5, 1), 0.7, np.float32))[1] == pytest.approx([MIN_SCALE])
