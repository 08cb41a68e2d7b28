"""What counts as constant: nothing but a range that float32 cannot tell from none, at whatever scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_rm.encoders.conv import StateEncoder
from robo_rm.training.constant import constant, describe_constant, mean_and_scale


@given(st.floats(-12, 12), st.integers(0, 1000))
def test_what_moves_about_zero_is_never_constant_whatever_its_unit(power, seed):
    values = np.random.default_rng(seed).normal(size=(20, 1)) * 10.0**power
    assert not constant(values.min(0), values.max(0)).any()
    mean, scale = mean_and_scale(values)
    standard = (values - mean) / scale
    assert standard.std() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.7, 0.7, 0.7], True),
        ([0.0, 0.0], True),
        ([0.7, np.nextafter(np.float32(0.7), np.float32(1))], True),
        ([0.7, 0.70001], False),
        ([1e6, 1e6 + 0.01], True),
        ([1e6, 1e6 + 1.0], False),
        ([-1e6, -1e6 - 1.0], False),
        ([5e-5, -5e-5], False),
        ([0, 0, 0, 1], False),
        ([3], True),
    ],
)
def test_constant_is_relative_to_the_offset(values, expected):
    column = np.array(values, np.float64)[:, None]
    assert constant(column.min(0), column.max(0)).tolist() == [expected]


def test_constant_dimensions_are_named():
    still = {"action": np.array([False, False, True]), "observation.state": np.array([True])}
    assert describe_constant(still, {"action": ["x", "y", "gripper"]}) == "action[2] (gripper), observation.state[0]"
    assert describe_constant({"action": np.zeros(2, bool)}) == ""


@pytest.mark.parametrize("unit", [1.0, 5e-5, 1e-9])
def test_states_are_standardised_alike_in_any_unit(unit):
    states = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    states[:, 2] = 0.25
    plain, other = StateEncoder(3, 8), StateEncoder(3, 8)
    plain.measure(states)
    scaled = states * np.array([unit, unit, 1], np.float32)
    other.measure(scaled)
    import torch

    one, two = plain.standardise(torch.from_numpy(states)), other.standardise(torch.from_numpy(scaled))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
    assert (one[:, 2] == 0).all()
