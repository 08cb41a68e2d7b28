"""The fusions: formulas of the paper, drift, the gate, clamping."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_rm.reward_models.grm.fusion import Perspectives, fuse
from robo_rm.reward_models.grm.labels import hop
from robo_rm.reward_models.grm.settings import FUSIONS, HopSettings

SETTINGS = HopSettings()


def perfect(progress: float, before: float | None) -> Perspectives:
    return Perspectives(0.0 if before is None else float(hop(before, progress)), progress, progress)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_true_hops_give_the_true_progress(fusion):
    rng = np.random.default_rng(0)
    curve = np.clip(np.cumsum(rng.normal(0.02, 0.05, 80)), 0, 1)
    settings, value = replace(SETTINGS, fusion=fusion), None
    for t, progress in enumerate(curve.tolist()):
        value = fuse(perfect(progress, curve[t - 1] if t else None), value, settings).progress
        assert value == pytest.approx(progress, abs=1e-9)


def test_the_mean_is_that_of_the_three():
    fused = fuse(Perspectives(0.5, 0.3, 0.5), 0.4, replace(SETTINGS, fusion="mean"))
    assert fused.incremental == pytest.approx(0.4 + 0.6 * 0.5)
    assert fused.progress == pytest.approx((0.7 + 0.3 + 0.5) / 3)
    back = fuse(Perspectives(-0.5, 0.3, 0.5), 0.4, replace(SETTINGS, fusion="mean"))
    assert back.incremental == pytest.approx(0.4 - 0.4 * 0.5)


def test_the_gate_follows_the_formula():
    settings = replace(SETTINGS, fusion="gated", alpha=2.0, epsilon=0.1)
    fused = fuse(Perspectives(0.1, 0.5, 0.7), 0.45, settings)
    weight = math.exp(-2 * (0.2 / (0.6 + 0.1)) ** 2)
    assert fused.weight == pytest.approx(weight)
    assert fused.progress == pytest.approx(0.45 + weight / 2 * (0.6 - 0.45 + 0.55 * 0.1))


def test_perspectives_that_contradict_each_other_are_not_followed():
    settings = replace(SETTINGS, fusion="gated", alpha=20.0)
    fused = fuse(Perspectives(0.9, 0.0, 1.0), 0.3, settings)
    assert fused.progress == pytest.approx(0.3, abs=0.01)
    followed = fuse(Perspectives(0.9, 0.0, 1.0), 0.3, replace(settings, fusion="mean")).progress
    assert followed > 0.5


def test_a_bias_adds_up_in_increments_alone_and_is_held_by_the_others():
    """A paused video, and hops that always see a little too much."""
    ends = {}
    for fusion in ("incremental", "mean", "gated"):
        value = None
        for _ in range(200):
            seen = Perspectives(0.02, 0.3, 0.3)
            value = fuse(seen, value, replace(SETTINGS, fusion=fusion)).progress
        ends[fusion] = value
    assert ends["incremental"] > 0.95
    assert ends["mean"] < 0.33
    assert ends["gated"] < 0.33


@given(
    st.floats(-1, 1), st.floats(-0.5, 1.5), st.floats(-0.5, 1.5), st.one_of(st.none(), st.floats(0, 1)),
    st.sampled_from(FUSIONS), st.floats(0, 50),
)  # fmt: skip
def test_progress_stays_in_its_range_and_uncertainty_is_a_number(step, forward, backward, before, fusion, alpha):
    seen = Perspectives(step, forward, backward, 0.1, 0.2, 0.05)
    fused = fuse(seen, before, replace(SETTINGS, fusion=fusion, alpha=alpha))
    assert 0 <= fused.progress <= 1
    assert math.isfinite(fused.uncertainty)
    assert fused.uncertainty >= 0
    assert 0 <= fused.weight <= 1


def test_perspectives_apart_are_uncertain():
    near = fuse(Perspectives(0.0, 0.5, 0.5), 0.5, SETTINGS).uncertainty
    apart = fuse(Perspectives(0.0, 0.2, 0.8), 0.5, SETTINGS).uncertainty
    assert near == 0
    assert apart > 0.2
