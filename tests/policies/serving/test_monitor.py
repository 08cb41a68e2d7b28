"""The monitor behind the policy server: fixed limits, or a calibration with its promise."""

from __future__ import annotations

import numpy as np
import pytest
from standing_reward import Reward

from robo_core.errors import ConfigError
from robo_hw import RobotContract
from robo_hw.transport import Observation
from robo_policies.serving.loading import Loaded
from robo_policies.serving.served import ServedRewardModel
from robo_rm.monitor.promise import MonitorCalibration
from robo_rm.monitor.settings import Watch

ARM = RobotContract.load("tidy_drawer")


def monitor(runs: int = 19, rates=(0.05,)) -> MonitorCalibration:
    # Successful runs paused for up to two seconds, and took up to ten.
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.5, 1.0, (runs, 5)) * [2.0, 0.02, 0.2, 1.0, 10.0]
    return MonitorCalibration(scores.tolist(), list(rates), 0.95, None, 20.0)


def test_a_calibrated_monitor_answers_with_its_promise():
    follower = ServedRewardModel(Reward(), ARM, monitor=monitor()).start("")
    frame = {"observation.images.front": np.full((128, 128, 3), 7, np.uint8)}
    found = [follower.step(Observation(i, i * 0.05, frame)) for i in range(160)]
    first = next(i for i, estimate in enumerate(found) if estimate.alarm)
    assert (found[first].verdict, found[first].false_alarm_rate) == ("stalled", 0.05)
    assert "at most 5% of successful runs come to this" in found[first].message
    assert 1.0 + 1.0 < first * 0.05 < 6.0


def test_a_rate_that_is_not_promised_is_refused():
    loaded = Loaded(None, Reward(), monitor=monitor())
    with pytest.raises(ConfigError, match=r"false_alarm_rate=0\.01: the monitor promises 0\.05"):
        loaded.served(ARM, Watch(false_alarm_rate=0.01))
