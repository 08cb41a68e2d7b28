"""When a policy server gets an observation."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from robo_hw import RobotContract, State
from robo_hw.observation.observation_buffer import STATE, ObservationBuffer
from robo_hw.transport import ClientState, PolicyInfo, ServerInfo
from robo_hw.transport.sender import ObservationSender

CONTRACT = RobotContract.load("tidy_drawer")
JOINTS = len(CONTRACT.joints)
PERIOD = 1.0 / CONTRACT.rates.actions


class Client:
    """Connected to a server that is scripted; notes what is asked for."""

    address = "unix:policy"

    def __init__(self, history: int = 1, horizon: int = 8, served: bool = True, progress_rate: float = 0.0) -> None:
        needs = {STATE: (JOINTS,)}
        policy = PolicyInfo("p", "act", 16, horizon, needs, history=history) if served else None
        self.server = ServerInfo(1, policy, CONTRACT.rates.actions, needs, progress_rate)
        self.asked: list[tuple[str, ...]] = []

    def status(self) -> SimpleNamespace:
        return SimpleNamespace(state=ClientState.CONNECTED, server=self.server, message="")

    def send_observation(self, names, positions, *, want, **others) -> bool:
        self.asked.append(tuple(want))
        return True


def asked(client: Client, steps: int, core: SimpleNamespace | None = None, **options) -> list[tuple[str, ...]]:
    """What is asked for in so many action periods, from a core that runs."""
    core = core or SimpleNamespace(contract=CONTRACT, state=State.RUNNING, epoch=3, status=status)
    buffer = ObservationBuffer(CONTRACT, (), 0.2)
    sender = ObservationSender(core, client, buffer, (), **options)
    for step in range(steps):
        now = 10.0 + step * PERIOD * (1 + 1e-6)  # whatever the rounding
        buffer.joints(CONTRACT.joint_names, np.zeros(JOINTS), now)
        sender.send(now)
    return client.asked


def status() -> SimpleNamespace:
    return SimpleNamespace(consumed=0.0)


def test_a_policy_gets_one_observation_for_each_horizon():
    assert asked(Client(), 17) == [("chunk",)] * 3
    assert asked(Client(), 17, horizon=4) == [("chunk",)] * 5, "the robot's own horizon wins"


def test_a_policy_that_looks_back_gets_every_step():
    found = asked(Client(history=3), 9)
    assert found == [("chunk",), *[()] * 7, ("chunk",)]


@pytest.mark.parametrize(("progress", "count"), [(True, 5), (False, 0)])
def test_a_reward_model_gets_observations_at_its_rate_where_that_is_asked_for(progress, count):
    client = Client(served=False, progress_rate=CONTRACT.rates.actions / 2)
    assert asked(client, 9, progress=progress) == [("progress",)] * count


@pytest.mark.parametrize("state", [State.DISARMED, State.STOPPING, State.FAULT])
def test_nothing_is_sent_while_no_chunk_is_taken(state):
    core = SimpleNamespace(contract=CONTRACT, state=state, epoch=3, status=status)
    assert asked(Client(), 9, core) == []


def test_a_policy_that_reads_what_the_robot_has_not_gets_nothing():
    client = Client()
    client.server.policy.needs["observation.touch"] = (3,)
    assert asked(client, 9) == []
