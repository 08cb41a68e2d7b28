"""The advisory watch over estimates of progress."""

from __future__ import annotations

import numpy as np
import pytest

from robo_core.errors import ConfigError
from robo_rm.monitor.limits import LimitedRun
from robo_rm.monitor.settings import Watch
from robo_rm.monitor.watch import Verdict


def verdicts(progress, limits=None, dt=0.1):
    watch = LimitedRun(limits)
    return [watch.update(i * dt, float(value)) for i, value in enumerate(progress)]


def test_a_task_that_gets_on_slowly_and_noisily_is_left_alone():
    random = np.random.default_rng(0)
    progress = np.clip(np.linspace(0, 1, 400) + random.normal(0, 0.02, 400), 0, 1)
    assert not [v for v in verdicts(progress) if v.message]


def test_standing_still_is_a_stall_after_its_time_and_ends_with_a_rise():
    progress = [*np.linspace(0, 0.5, 50), *np.full(100, 0.5), *np.linspace(0.5, 0.6, 10)]
    found = verdicts(progress)
    first = next(i for i, v in enumerate(found) if v.state == "stalled")
    assert 4.9 + 7.0 <= first * 0.1 <= 4.9 + 8.5
    assert "0.50" in found[first].message
    assert found[-1] == Verdict()


def test_standing_still_at_the_end_is_success():
    assert not [v for v in verdicts([*np.linspace(0, 1, 50), *np.full(300, 0.98)]) if v.message]


def test_a_drop_counts_when_it_lasts_and_one_odd_estimate_does_not():
    rise = [*np.linspace(0, 0.8, 60), *np.full(5, 0.8)]
    assert not [v for v in verdicts([*rise, 0.1, *np.linspace(0.8, 0.9, 20)]) if v.message]
    found = verdicts([*rise, *np.full(30, 0.4)])
    assert found[-1].state == "failing"
    assert "from 0.80 to 0.40" in found[-1].message


@pytest.mark.parametrize("change", [{"stall_after": 0.0}, {"drop": 1.5}, {"rise": float("nan")}])
def test_limits_out_of_range_are_refused_by_name(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        LimitedRun(Watch(**change))
