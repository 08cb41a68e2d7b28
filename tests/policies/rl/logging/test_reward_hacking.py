"""The monitor names what looks like reward hacking, and says nothing of honest learning."""

from __future__ import annotations

import numpy as np
import pytest

from robo_core.errors import ConfigError
from robo_policies.rl.logging.reward_hacking import WINDOW, RewardHackingMonitor


def play(
    monitor: RewardHackingMonitor, potentials: list[float], success: bool, reward: float, drift: float = 0.0
) -> None:
    """One episode of one environment through these potentials."""
    for t in range(len(potentials) - 1):
        last = t == len(potentials) - 2
        rows = {
            "task_reward": np.array([float(success and last)]),
            "potential": np.array([potentials[t]]),
            "next_potential": np.array([potentials[t + 1]]),
            "terminated": np.array([success and last]),
            "truncated": np.array([last and not success]),
        }
        monitor.add(rows, np.array([reward]), np.array([drift]))


RISING = list(np.linspace(0, 0.95, 12))


def test_honest_learning_raises_no_warning() -> None:
    monitor = RewardHackingMonitor(1)
    for episode in range(2 * WINDOW):
        play(monitor, RISING if episode % 4 else RISING[:6], bool(episode % 4), 0.1)
    assert monitor.warnings() == []
    assert monitor.metrics()["success"] == pytest.approx(0.75, abs=0.03)


def test_hovering_near_success_is_named() -> None:
    monitor = RewardHackingMonitor(1)
    for _ in range(WINDOW):
        play(monitor, [0.2, 0.5, *[0.85] * 20], False, 0.8)
    text = " ".join(monitor.warnings())
    assert "takes them for nearly done" in text
    assert "hover" in text


def test_a_reward_that_grows_while_success_falls_is_named() -> None:
    monitor = RewardHackingMonitor(1)
    for episode in range(2 * WINDOW):
        later = episode >= WINDOW
        play(monitor, RISING, not later, 0.5 if later else 0.1 + 0.01 * (episode % 3))
    assert any("while success fell by 100%" in text for text in monitor.warnings())


def test_leaving_what_the_model_knows_is_named() -> None:
    monitor = RewardHackingMonitor(1, reference_drift=0.01)
    for _ in range(WINDOW):
        play(monitor, RISING, True, 0.1, drift=0.05)
    assert any("5.0 times as uncertain" in text for text in monitor.warnings())


def test_every_sign_is_reported_whether_it_shows_or_not() -> None:
    monitor = RewardHackingMonitor(1, reference_drift=0.04)
    assert monitor.checks() == []
    for episode in range(2 * WINDOW):
        play(monitor, RISING, bool(episode % 2), 0.1, drift=0.05)
    assert [check.name for check in monitor.checks()] == ["dwell", "hover", "return", "drift"]
    assert not any(check.wrong for check in monitor.checks())
    assert "1.2 times as uncertain" in monitor.checks()[-1].text


def test_environments_are_kept_apart() -> None:
    monitor = RewardHackingMonitor(2)
    rows = {
        "task_reward": np.array([0.0, 1.0]),
        "potential": np.array([0.1, 0.9]),
        "next_potential": np.array([0.2, 0.0]),
        "terminated": np.array([False, True]),
        "truncated": np.array([False, False]),
    }
    monitor.add(rows, np.array([0.1, 0.2]))
    assert [episode.success for episode in monitor.episodes] == [True]
    # The potential of a terminal state does not count.
    assert monitor.episodes[0].best == pytest.approx(0.9)
    with pytest.raises(ConfigError):
        RewardHackingMonitor(0)
