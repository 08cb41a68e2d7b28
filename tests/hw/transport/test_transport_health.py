"""Whether the policy answers, though its server does, and how far the server's clock is from this one."""

from __future__ import annotations

import random
import threading

import pytest
from bridge_in_use import ARM, QUICK, REST, InUse, connected, pictures, until
from served_policies import Counting, Rising

from robo_hw.safety.clock import SteadyClock
from robo_hw.transport import ClientState, PolicyClient, PolicyServer
from robo_hw.transport.offset import ClockOffset


class Hanging(Rising):
    """Computes for as long as it is told to."""

    def __init__(self) -> None:
        super().__init__(ARM)
        self.free = threading.Event()
        self.free.set()

    def act(self, observation):
        self.free.wait(30.0)
        return super().act(observation)


def test_a_policy_that_hangs_is_told_from_its_server_which_answers(tmp_path):
    policy = Hanging()
    with (
        PolicyServer(ARM, f"{tmp_path}/p.sock", policy, Counting(ARM)) as server,
        PolicyClient(ARM, str(server.address), timeouts=QUICK) as client,
    ):
        try:
            with InUse(client):
                assert client.status().hung == ""
                policy.free.clear()
                until(lambda: client.status().hung)
                status = client.status()
                assert status.state is ClientState.CONNECTED
                assert status.unanswered > 2.0
                until(lambda: client.status().busy > 2.0)
                assert "it computes on one observation since" in client.status().hung
                assert client.status().connections == 1
                policy.free.set()
                until(lambda: not client.status().hung)
                assert until(lambda: client.poll().chunk) is not None
        finally:
            policy.free.set()


def test_what_nobody_serves_is_not_waited_for_and_a_new_episode_waits_anew(tmp_path):
    policy = Hanging()
    with (
        PolicyServer(ARM, f"{tmp_path}/p.sock", policy) as server,
        PolicyClient(ARM, str(server.address), timeouts=QUICK) as client,
    ):
        connected(client)
        client.send_observation(ARM.joint_names, REST, pictures(), observed_at=1.0, want=("progress",))
        assert client.status().unanswered is None, "no reward model is served"
        policy.free.clear()
        client.send_observation(ARM.joint_names, REST, pictures(), observed_at=1.0)
        until(lambda: (client.status().unanswered or 0) > 0.2)
        client.start_episode()
        assert client.status().unanswered is None
        policy.free.set()
    assert client.status().unanswered is None


def test_an_observation_that_cannot_be_used_is_answered(tmp_path):
    with (
        PolicyServer(ARM, f"{tmp_path}/p.sock", Rising(ARM)) as server,
        PolicyClient(ARM, str(server.address), timeouts=QUICK) as client,
    ):
        connected(client)
        client.send_observation(ARM.joint_names, REST, {}, observed_at=1.0)
        until(lambda: client.status().errors)
        assert client.status().unanswered is None


def test_the_offset_is_never_further_off_than_it_says_however_the_ways_differ():
    pick = random.Random(3)
    for _ in range(500):
        offset, true = ClockOffset(), pick.uniform(-1e6, 1e6)
        assert offset.best is None
        now = pick.uniform(0, 1e6)
        for _ in range(pick.randint(1, 80)):
            now += 0.25
            up, thinks, down = pick.expovariate(50), pick.expovariate(1000), pick.expovariate(50)
            offset.add(now, now + up + true, now + up + thinks + true, now + up + thinks + down)
        found, bound = offset.best
        assert abs(found - true) <= bound + 1e-6


def test_pongs_that_cannot_be_are_not_believed():
    offset = ClockOffset()
    offset.add(10.0, 5.0, 4.0, 11.0)  # answered before it was received
    offset.add(10.0, 5.0, 9.0, 11.0)  # took longer there than the whole trip
    assert offset.best is None


def test_the_offset_can_be_read_while_pongs_come_in():
    offset, stop = ClockOffset(), threading.Event()

    def add() -> None:
        now = 0.0
        while not stop.is_set():
            now += 0.25
            offset.add(now, now + 1.01, now + 1.02, now + 0.03)

    thread = threading.Thread(target=add)
    thread.start()
    try:
        for _ in range(100_000):
            assert offset.best is None or offset.best[0] == pytest.approx(1.0)
    finally:
        stop.set()
        thread.join()


class Shifted(SteadyClock):
    def now(self) -> float:
        return super().now() - 12_345.0


@pytest.mark.parametrize("address", ["unix", "tcp"])
def test_the_server_s_clock_may_be_any(tmp_path, monkeypatch, address):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    where = f"{tmp_path}/p.sock" if address == "unix" else "tcp://127.0.0.1:0"
    with (
        PolicyServer(ARM, where, Rising(ARM), clock=Shifted()) as server,
        PolicyClient(ARM, str(server.address), timeouts=QUICK) as client,
        InUse(client),
    ):
        until(lambda: client.status().uplink)
        status = client.status()
        assert status.clock_offset == pytest.approx(-12_345.0, abs=status.clock_uncertainty + 1e-4)
        assert status.uplink + status.downlink + status.inference == pytest.approx(status.round_trip, abs=0.5)
