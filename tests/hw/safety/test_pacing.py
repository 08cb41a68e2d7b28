"""The path and the pace: exact bounds, C2 splices, and a stop that is always at hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_hw.safety.pacing import Pace, plan_stop
from robo_hw.safety.spline import ControlPath, PathLimits

LIMITS = PathLimits(np.array([1.0, 2.0]), np.array([4.0, 9.0]), np.array([50.0, 80.0]), rate=20.0, reserve=0.5)
points = st.lists(st.tuples(*[st.floats(-3, 3, width=32)] * 2), min_size=4, max_size=14).map(
    lambda rows: np.array(rows, dtype=np.float64)
)


def sampled(path: ControlPath, x: float) -> np.ndarray:
    return path.evaluate(x, 0.0, 0.0)[0]


@given(points, st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_the_bounds_of_a_piece_hold_everywhere_on_it(control, seed):
    path = ControlPath(control, 0, LIMITS)
    random = np.random.default_rng(seed)
    for k in range(path.pieces):
        slope, bend, twist = (part[k] for part in path._parts)
        x = k + random.uniform(0, 1)
        top, most, hardest = path.rate[k], path.acceleration[k], path.jerk[k]
        rate, acceleration, jerk = (
            top * random.uniform(0, 1),
            random.uniform(-most, most),
            random.uniform(-hardest, hardest),
        )
        position, velocity, curve = path.evaluate(x, rate, acceleration)
        assert (position >= control.min(axis=0) - 1e-12).all()
        assert (position <= control.max(axis=0) + 1e-12).all()
        assert (np.abs(velocity) <= slope * rate + 1e-12).all()
        assert (np.abs(velocity) <= LIMITS.velocity * (1 + 1e-9)).all()
        assert (np.abs(curve) <= LIMITS.acceleration * (1 + 1e-9)).all()
        jerks = twist * rate**3 + 3 * bend * rate * abs(acceleration) + slope * abs(jerk)
        assert (jerks <= LIMITS.jerk * (1 + 1e-9)).all()


@given(points)
@settings(max_examples=40, deadline=None)
def test_the_path_is_twice_continuously_differentiable_and_ends_at_rest(control):
    path = ControlPath(control, 0, LIMITS)
    for k in range(1, path.pieces + 1):
        before, after = path.evaluate(k - 1e-9, 1.0, 0.0), path.evaluate(float(k), 1.0, 0.0)
        for left, right in zip(before, after, strict=True):
            assert np.allclose(left, right, atol=1e-6)
    assert np.allclose(sampled(path, path.pieces + 5.0), control[-1])
    assert not path.evaluate(float(path.pieces), 20.0, 0.0)[1].any()


@given(points, st.lists(st.tuples(st.floats(1e-4, 0.05), st.booleans()), min_size=5, max_size=80), st.floats(0.2, 2))
@settings(max_examples=60, deadline=None)
def test_a_pace_can_always_stop_within_its_bound_whatever_it_was_asked(control, ticks, longest):
    pace = Pace(ControlPath(np.concatenate([control[:1]] * 2 + [control]), 0, LIMITS), longest)
    for time, slow in ticks:
        pace.run(time, 5.0 if slow else 20.0)
        assert pace.rate >= 0
        assert pace.stop_time <= longest + 1e-12
        top, most, _ = pace.path.window(int(pace.x), int(pace.x))
        assert pace.rate <= top * (1 + 1e-9)
        assert abs(pace.acceleration) <= most * (1 + 1e-9)
    bound, x = pace.stop_time, pace.x
    steps = 50
    rates = [pace.rate]
    for _ in range(steps):
        pace.brake(bound / steps * (1 + 1e-9))
        rates.append(pace.rate)
        assert pace.x >= x - 1e-12
        x = pace.x
    assert pace.resting
    assert int(x) <= max(pace.last_piece, int(x))


def test_a_stop_plan_ends_where_and_when_it_says():
    control = np.cumsum(np.full((40, 2), 0.02), axis=0)
    path = ControlPath(control, 0, LIMITS)
    plan = plan_stop(path, 3.2, 15.0, 20.0)
    assert plan is not None
    pace = Pace(path, 5.0)
    pace.x, pace.rate, pace.acceleration, pace.plan = 3.2, 15.0, 20.0, plan
    pace.brake(plan.duration - 1e-6)
    assert 0 < pace.rate < 1e-3
    assert abs(pace.acceleration) < 1e-1
    pace.brake(2e-6)
    assert pace.resting
    assert int(pace.x) <= plan.last_piece


def test_a_gentle_path_is_run_at_the_nominal_rate():
    control = np.cumsum(np.full((200, 2), 0.01), axis=0)
    pace = Pace(ControlPath(control, 0, LIMITS), 2.0)
    for _ in range(100):
        pace.run(0.01, 20.0)
    assert pace.rate == pytest.approx(20.0, rel=1e-3)
    assert not pace.held_back


def test_a_wide_step_is_crossed_slowly_but_crossed():
    control = np.concatenate([np.zeros((3, 2)), np.full((20, 2), 2.5)])
    pace = Pace(ControlPath(control, 0, LIMITS), 2.0)
    for _ in range(1200):  # 2.5 rad at a tenth of the speed limit takes 12 s at most
        pace.run(0.01, 20.0)
        if pace.x >= pace.path.pieces:
            break
    assert np.allclose(sampled(pace.path, pace.x), 2.5)


@given(points, st.floats(0.005, 0.05), st.floats(0.5, 2.0))
@settings(max_examples=30, deadline=None)
def test_every_path_is_run_to_its_end_never_stuck(control, tick, longest):
    pace = Pace(ControlPath(np.concatenate([control[:1]] * 3 + [control]), 0, LIMITS), longest)
    for _ in range(int(120 / tick)):
        pace.run(tick, 20.0)
        if pace.x >= pace.path.pieces:
            break
    assert pace.x >= pace.path.pieces


def test_a_new_path_is_refused_where_the_arm_could_not_stop_on_it():
    control = np.cumsum(np.full((60, 2), 0.04), axis=0)
    pace = Pace(ControlPath(control, 0, LIMITS), 2.0)
    for _ in range(60):
        pace.run(0.01, 20.0)
    here = int(pace.x)
    bent = np.concatenate([control[here : here + 4], np.array([[9.0, -9.0], [-9.0, 9.0]])])
    before = (pace.x, pace.rate, pace.plan)
    assert not pace.swap(ControlPath(bent, here, LIMITS), dropped=here, replaced_from=4)
    assert (pace.x, pace.rate, pace.plan) == before
    keep = pace.last_piece + 4 - here
    far = np.concatenate([control[here : here + keep], np.array([[9.0, -9.0], [-9.0, 9.0]])])
    assert pace.swap(ControlPath(far, here, LIMITS), dropped=here, replaced_from=keep), (
        "behind the stop plan all is lawful"
    )
