"""Cameras at five frames per second, just above the contract's limit: the policy acts, and the log stays readable."""

from __future__ import annotations

import pytest
from rig import Rig, patient_contract, rig


class SlowRig(Rig):
    """Every image comes at the edge of being late."""

    def contract_text(self) -> str:
        text = patient_contract()
        old = "rate: 20,\n     degraded_after: 0.4, stop_after: 0.8, frozen_after: 1.5"
        assert old in text
        return text.replace(old, "rate: 5,\n     degraded_after: 0.205, stop_after: 0.8, frozen_after: 3.0")


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    with rig(tmp_path_factory.mktemp("slow"), SlowRig) as made:
        yield made


def test_the_arm_moves_with_slow_cameras_and_one_event_tells_of_a_spell(processes):
    processes.run()
    processes.spin(6.0)
    assert processes.state == "running", processes.said()
    assert processes.said().count("degraded: ") <= 4, processes.said()
    processes.keeps_the_limits()
