"""What networks see is brought to one order of magnitude, by everything seen so far, and hidden columns stay hidden."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_core.errors import ModelError
from robo_policies.rl.scaling import SMALLEST_SPREAD, RunningScaling, scaling_of


@given(st.lists(st.integers(0, 7), min_size=1, max_size=8), st.integers(0, 10**6), st.floats(-1e3, 1e3))
@settings(max_examples=60, deadline=None)
def test_pieces_tell_the_same_as_the_whole(sizes: list[int], seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    pieces = [(shift + rng.normal(size=(n, 3)) * [1.0, 30.0, 1e-4]).astype(np.float32) for n in sizes]
    running, through = RunningScaling(3, [1]), RunningScaling(3, [1])
    for piece in pieces:
        running.add(piece)
        through.restore(json.loads(json.dumps(through.snapshot())))
        through.add(piece)
    whole = np.concatenate(pieces)
    assert running.count == len(whole)
    assert running.snapshot() == through.snapshot()
    if not len(whole):
        return
    mean, scale = running.scaling()
    wanted = scaling_of(whole, [1])
    np.testing.assert_allclose(mean, wanted[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scale, wanted[1], rtol=1e-4)


def test_no_spread_is_tiny_and_what_is_hidden_is_nothing() -> None:
    seen = np.array([[1.0, 5.0, 2.0], [3.0, 5.0, 9.0]], np.float32)
    mean, scale = scaling_of(seen, [2])
    assert mean.tolist() == [2.0, 5.0, 5.5]
    assert scale[:2].tolist() == pytest.approx([1.0, SMALLEST_SPREAD])
    assert ((seen - mean) / scale)[:, 2].tolist() == [0, 0]


def test_before_anything_was_seen_values_are_left_as_they_are() -> None:
    mean, scale = RunningScaling(2).scaling()
    assert (mean.tolist(), scale.tolist()) == ([0, 0], [1, 1])


@pytest.mark.parametrize("snapshot", [{}, {"count": 1, "mean": [0], "squares": [0]}, {"count": 1, "mean": "a"}])
def test_what_another_world_has_seen_is_refused(snapshot: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="seen"):
        RunningScaling(2).restore(snapshot)


@pytest.mark.parametrize("unit", [1.0, 1e-3, 5e-5, 1e-9])
def test_small_units_are_brought_to_the_same_order_as_large_ones(unit: float) -> None:
    seen = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    mean, scale = scaling_of(seen * np.float32(unit))
    assert ((seen * np.float32(unit) - mean) / scale).std(axis=0) == pytest.approx([1, 1], rel=1e-3)
    running = RunningScaling(2)
    running.add(seen * np.float32(unit))
    np.testing.assert_allclose(running.scaling()[1], scale, rtol=1e-4)


def test_what_hardly_varied_beside_its_own_magnitude_is_not_blown_up() -> None:
    held = 0.7 + 1e-6 * np.random.default_rng(0).normal(size=(200, 1))
    assert scaling_of(held.astype(np.float32))[1] == pytest.approx([0.007], rel=1e-3)
    assert scaling_of(np.full((5, 1), 0.7, np.float32))[1] == pytest.approx([SMALLEST_SPREAD])
