"""How long the demo will take: by what is left of it, from a measured step."""

from __future__ import annotations

import re

import pytest

from robo_policies import demo
from robo_policies.commands.demo import Config
from robo_policies.demo import estimate
from robo_policies.demo.steps import demo_steps


def minutes(text: str) -> int:
    found = re.search(r"about (\d+) minutes on this machine as busy as it is now", text)
    assert found, text
    return int(found.group(1))


def test_the_time_follows_the_speed_of_the_machine_and_what_is_left(tmp_path, monkeypatch):
    config = Config(out=str(tmp_path))
    parts = demo_steps(config, tmp_path)
    assert set(estimate.part_units(config)) == {part.name for part in parts}
    monkeypatch.setattr(demo, "step_seconds", lambda size: 0.11)
    idle = minutes(estimate.describe_time(config, parts))
    assert 5 <= idle <= 8, "what the README says of an idle machine with two cores"
    monkeypatch.setattr(demo, "step_seconds", lambda size: 0.44)
    assert minutes(estimate.describe_time(config, parts)) == pytest.approx(4 * idle, abs=3)
    assert minutes(estimate.describe_time(config, parts[-1:])) < idle
    assert estimate.describe_time(config, []) == ""


def test_the_default_trains_seven_passes_and_steps_can_be_given(tmp_path):
    assert estimate.part_units(Config(out="o"))["train_reward"] == pytest.approx(1650, rel=0.1)
    command = next(
        part for part in demo_steps(Config(out="o", reward_steps=12), tmp_path) if part.name == "train_reward"
    )
    assert "steps=12" in command.commands[0]
    assert not any("minutes" in word for part in demo_steps(Config(out="o"), tmp_path) for word in part.commands[0])


def test_a_step_is_really_measured():
    assert 0 < demo.step_seconds(32) < 60
