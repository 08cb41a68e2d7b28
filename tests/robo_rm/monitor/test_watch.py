"""The monitor's scores and verdicts on runs of every kind."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_rm.monitor.images import ImageModel
from robo_rm.monitor.promise import MonitorCalibration
from robo_rm.monitor.scores import SCORES, RunScores
from robo_rm.monitor.watch import MonitoredRun, Verdict

RATE = 10.0


def good_run(seed: int) -> np.ndarray:
    """Progress at 10 Hz of a run of about 10 s with a pause of up to 1 s."""
    rng = np.random.default_rng(seed)
    first, second = int(rng.integers(40, 60)), int(rng.integers(40, 60))
    pause = np.full(int(rng.integers(0, 10)), 0.5)
    clean = np.concatenate([np.linspace(0, 0.5, first), pause, np.linspace(0.5, 1, second), np.ones(30)])
    return np.clip(clean + rng.normal(0, 0.005, len(clean)), 0, 1)


def scores(progress: np.ndarray, uncertainty: float = 0.05) -> RunScores:
    run = RunScores(RATE)
    for t, value in enumerate(progress):
        run.update(t / RATE, float(value), uncertainty)
    return run


@pytest.fixture(scope="module")
def calibration() -> MonitorCalibration:
    runs = [scores(good_run(seed)).values.tolist() for seed in range(120)]
    return MonitorCalibration(runs, [0.01, 0.05], 0.95, 0.05, RATE)


def follow(calibration, progress, uncertainty=0.05, rate=0.05) -> list[Verdict]:
    run = MonitoredRun(calibration, rate)
    return [run.update(t / RATE, float(value), uncertainty) for t, value in enumerate(progress)]


def test_new_successful_runs_end_as_done_and_raise_few_alarms(calibration):
    runs = [follow(calibration, good_run(1000 + seed)) for seed in range(200)]
    assert all(verdicts[-1].state == "done" for verdicts in runs)
    alarms = sum(any(v.state not in ("on_track", "done") for v in verdicts) for verdicts in runs)
    assert alarms <= 20  # 5 % are allowed, in the mean over calibrations


def test_a_run_that_stands_still_is_stalled_and_says_for_how_long(calibration):
    found = follow(calibration, [*np.linspace(0, 0.4, 40), *np.full(200, 0.4)])
    first = next(i for i, verdict in enumerate(found) if verdict.state != "on_track")
    assert found[first].state == "stalled"
    assert found[first].message.startswith("no progress for ")
    assert first / RATE < 4 + 3
    assert found[first].false_alarm_rate == 0.05
    assert found[-1].state == "stalled"


def test_a_run_that_goes_back_is_failing(calibration):
    found = follow(calibration, [*np.linspace(0, 0.6, 55), *np.linspace(0.6, 0.1, 20)])
    assert found[-1].state == "failing"
    assert "fell by" in next(v.message for v in found if v.message)


def test_a_model_that_is_unsure_does_not_know_this(calibration):
    assert follow(calibration, good_run(5)[:60], uncertainty=0.6)[-1].state == "unknown"


def test_a_number_that_is_not_finite_is_an_unknown_state_and_not_an_error(calibration):
    assert follow(calibration, [0.1, 0.2, math.nan])[-1].state == "unknown"


def test_an_alarm_stays_when_the_run_goes_on_and_ends_when_the_task_is_done(calibration):
    found = follow(calibration, [*np.linspace(0, 0.4, 40), *np.full(60, 0.4), *np.linspace(0.4, 1, 50), *np.ones(10)])
    states = [verdict.state for verdict in found]
    assert states[99] == "stalled"
    assert states[120] == "stalled"
    assert states[-1] == "done"


def test_the_stricter_rate_comes_later_and_is_told(calibration):
    found = follow(calibration, [*np.linspace(0, 0.4, 40), *np.full(300, 0.4)])
    rates = [verdict.false_alarm_rate for verdict in found]
    assert rates.index(0.05) <= rates.index(0.01)
    strict = follow(calibration, [*np.linspace(0, 0.4, 40), *np.full(300, 0.4)], rate=0.01)
    assert {verdict.false_alarm_rate for verdict in strict} == {0.0, 0.01}


def test_too_few_runs_promise_nothing(calibration):
    few = MonitorCalibration(calibration.runs[:18], [0.01, 0.05], 0.95, None, RATE)
    assert few.promised() == []
    with pytest.raises(ValueError, match=r"no promise at a rate of 0\.05; offered: none"):
        MonitoredRun(few, 0.05)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.sampled_from([1.0, 3.0, 10.0, 30.0]))
def test_scores_never_fall(progress, rate):
    run = RunScores(rate)
    before = run.values.copy()
    for t, value in enumerate(progress):
        now = run.update(t / rate, value, value)
        assert (now >= before).all()
        before = now


def test_standing_still_at_the_goal_is_no_stall():
    values = dict(zip(SCORES, scores(np.concatenate([np.linspace(0, 1, 50), np.ones(500)])).values, strict=True))
    assert values["stall"] < 1
    assert values["overtime"] < 6


def pictures(count: int, seed: int, shift: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        image = np.full((48, 64, 3), 90, np.uint8)
        left = int(rng.integers(0, 50))
        image[20:30, left : left + 10] = (200, 40, 40)
        found.append(np.roll(image, shift, axis=0))
    return found


def test_images_of_training_are_familiar_and_a_covered_or_moved_camera_is_not():
    model = ImageModel.fit({"front": pictures(300, 0)})
    assert model is not None
    usual = [model.distance({"front": picture}) for picture in pictures(50, 1)]
    assert np.median(usual) < 2
    assert model.distance({"front": np.zeros((48, 64, 3), np.uint8)}) > 2 * max(usual)
    assert model.distance({"front": pictures(1, 2, shift=14)[0]}) > 2 * max(usual)


def test_few_images_make_no_image_model():
    assert ImageModel.fit({"front": pictures(10, 0)}) is None
    assert ImageModel.fit({}) is None


def test_a_calibration_is_plain_json(calibration):
    assert json.loads(json.dumps(calibration.runs)) == calibration.runs


def test_what_is_regained_after_a_fall_is_no_stall():
    fetched_again = np.concatenate([np.linspace(0, 0.6, 50), np.linspace(0.6, 0.3, 10), np.linspace(0.3, 1, 60)])
    values = dict(zip(SCORES, scores(fetched_again).values, strict=True))
    assert values["stall"] < 2
    assert values["regression"] > 0.25
