"""The policy server and its client: what travels, what is refused, and what happens when one of them dies."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from served_policies import STATE, Counting, Rising

from robo_hw import ActionChunk, ArmRefusedError, RobotContract, SafetyCore, State, SteadyClock
from robo_hw.errors import AddressError, ObservationError, TransportError
from robo_hw.transport import Address, ClientState, PolicyClient, PolicyServer, Timeouts

ARM = RobotContract.load("tidy_drawer")
NAMES = ARM.joint_names
REST = np.array([0.0, 0.0, 0.0, 0.0, 1.57, 0.0, 0.5])
QUICK = Timeouts(retry=0.02, retry_refused=0.05, heartbeat=0.1, silence=2.5, handshake=5.0)
HELPER = Path(__file__).resolve().parents[2] / "helpers" / "served_policies.py"


def until(condition, seconds: float = 40.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)
    return found


def pictures(value: int = 7) -> dict[str, np.ndarray]:
    return {c.name: np.full((c.height, c.width, 3), value, np.uint8) for c in ARM.cameras}


@pytest.fixture
def socket_path(tmp_path):
    return f"unix:{tmp_path}/policy.sock"


def connected(client: PolicyClient) -> None:
    until(lambda: client.status().state is ClientState.CONNECTED)


def ask(client: PolicyClient, images=None, **more):
    at = time.monotonic()
    given = {"observed_at": at, "epoch": 5, "want": ("chunk",)} | more
    assert client.send_observation(NAMES, REST, pictures() if images is None else images, **given), client.status()
    return until(lambda: client.poll().chunk)


@pytest.mark.parametrize("where", ["unix", "tcp"])
def test_a_chunk_answers_the_observation_with_its_stamps_and_pictures(where, socket_path):
    policy = Rising(ARM)
    address = socket_path if where == "unix" else "tcp://127.0.0.1:0"
    with PolicyServer(ARM, address, policy) as server, PolicyClient(ARM, str(server.address), timeouts=QUICK) as client:
        connected(client)
        images = {name: np.random.default_rng(0).integers(0, 255, p.shape, np.uint8) for name, p in pictures().items()}
        chunk = ask(client, images, observed_at=12.5, consumed=100.0)
        assert isinstance(chunk, ActionChunk)
        assert (chunk.joints, chunk.epoch, chunk.observed_at, chunk.contract_hash) == (NAMES, 5, 12.5, ARM.hash)
        assert chunk.actions.shape == (20, 7)
        assert np.allclose(chunk.actions[-1], REST + 0.02)
        seen = policy.seen[0]
        assert seen.executed is None
        assert seen.values[STATE].dtype == np.float32
        for name, image in images.items():
            assert np.array_equal(seen.values[f"observation.images.{name}"], image)
        later = ask(client, consumed=107.25)
        assert later.sequence > chunk.sequence
        assert policy.seen[1].executed == pytest.approx(7.25)
        status = client.status()
        assert (status.chunks, status.errors, status.stale) == (2, 0, 0)
        assert 0 < status.round_trip < 5.0


def test_joints_may_come_in_any_order_and_further_features_come_along(socket_path):
    policy = Rising(ARM, images=False)
    policy.info = dataclasses.replace(policy.info, needs={**policy.info.needs, "observation.environment_state": (15,)})
    with PolicyServer(ARM, socket_path, policy) as server, PolicyClient(ARM, str(server.address)) as client:
        connected(client)
        names, positions = ("wheel", *reversed(NAMES)), np.concatenate([[9.0], REST[::-1]])
        arrays = {"observation.environment_state": np.arange(15.0)}
        assert client.send_observation(names, positions, arrays=arrays, observed_at=1.0, want=("chunk",))
        until(lambda: client.poll().chunk)
        assert policy.seen[0].values[STATE] == pytest.approx(REST.astype(np.float32))
        assert policy.seen[0].values["observation.environment_state"].tolist() == list(range(15))


def test_progress_is_streamed_and_a_new_episode_begins_anew(socket_path):
    with (
        PolicyServer(ARM, socket_path, Rising(ARM), Counting(ARM)) as server,
        PolicyClient(ARM, str(server.address), task="tidy") as client,
    ):
        connected(client)
        assert client.status().server.has_progress
        for frame in range(1, 4):
            client.send_observation(NAMES, REST, pictures(), observed_at=frame, want=("progress",))
            estimate = until(lambda: client.poll().progress)
            assert (estimate.progress, estimate.stage_name) == (frame / 100, "grasp")
            assert estimate.observed_at == frame
        client.start_episode("again")
        client.send_observation(NAMES, REST, pictures(), observed_at=9.0, want=("progress",))
        assert until(lambda: client.poll().progress).progress == 0.01


def test_answers_to_an_earlier_episode_are_dropped(socket_path):
    policy = Rising(ARM, think=0.2)
    with PolicyServer(ARM, socket_path, policy) as server, PolicyClient(ARM, str(server.address)) as client:
        connected(client)
        client.send_observation(NAMES, REST, pictures(), observed_at=1.0, want=("chunk",))
        until(lambda: policy.seen)
        client.start_episode("other")
        until(lambda: client.status().stale)
        assert client.poll().chunk is None
        assert client.status().chunks == 0


def test_the_newest_observation_wins_while_the_policy_thinks(socket_path):
    policy = Rising(ARM, think=0.15)
    with PolicyServer(ARM, socket_path, policy) as server, PolicyClient(ARM, str(server.address)) as client:
        connected(client)
        for i in range(40):
            client.send_observation(NAMES, REST, pictures(i), observed_at=float(i), want=("chunk",))
            time.sleep(0.005)
        until(lambda: policy.seen and policy.seen[-1].observed_at == 39.0)
        assert len(policy.seen) < 6
        assert (policy.seen[-1].values["observation.images.front"] == 39).all()


def test_nothing_the_bridge_calls_waits_whether_the_server_is_there_or_hangs(socket_path):
    policy = Rising(ARM, think=1.0)
    spent = []

    def calls(client):
        for call in (
            lambda: client.send_observation(NAMES, REST, pictures(), observed_at=1.0, want=("chunk",)),
            client.poll,
            client.status,
        ):
            began = time.perf_counter()
            call()
            spent.append(time.perf_counter() - began)

    with PolicyClient(ARM, socket_path, timeouts=QUICK) as client:
        for _ in range(100):
            calls(client)
        with PolicyServer(ARM, socket_path, policy):
            connected(client)
            for _ in range(100):
                calls(client)
                time.sleep(0.002)
    # A call that waited would take a second; a machine that does other things may hold one up for a moment.
    assert np.percentile(spent, 90) < 0.05


def test_where_the_demonstrations_began_comes_with_the_welcome(socket_path):
    policy = Rising(ARM)
    policy.info = dataclasses.replace(policy.info, start_poses={"base_yaw": [-0.1, 0.25]})
    with PolicyServer(ARM, socket_path, policy) as server, PolicyClient(ARM, str(server.address)) as client:
        connected(client)
        assert client.status().server.policy.start_poses == {"base_yaw": (-0.1, 0.25)}


def test_a_contract_that_differs_in_deployment_is_taken_and_told(socket_path):
    data = ARM.to_dict()
    data["robot"], data["joints"][2]["velocity"] = "left_arm", 5.0  # the bridge keeps the tighter limit
    data["topics"]["command"]["name"], data["deadlines"]["chunk"] = "/left/command", 0.7
    data["cameras"].reverse()
    told = []
    with (
        PolicyServer(RobotContract.from_dict(data), socket_path, Rising(ARM), report=told.append) as server,
        PolicyClient(ARM, str(server.address), timeouts=QUICK) as client,
    ):
        connected(client)
    assert any("differs in deployment" in text and "robot" in text for text in told)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda data: data["joints"][2].update(name="elbow"), "joints"),
        (lambda data: data["cameras"][0].update(width=64), "cameras[front].width"),
        (lambda data: data["joints"].reverse(), "joints"),
        (lambda data: data["rates"].update(actions=10), "rates.actions"),
    ],
)
def test_another_contract_is_refused_and_the_field_is_named(socket_path, change, field):
    data = ARM.to_dict()
    change(data)
    with (
        PolicyServer(RobotContract.from_dict(data), socket_path, Rising(ARM)) as server,
        PolicyClient(ARM, str(server.address), timeouts=QUICK) as client,
    ):
        until(lambda: client.status().state is ClientState.REFUSED)
        assert field in client.status().message
        assert not client.send_observation(NAMES, REST, observed_at=1.0)


@pytest.mark.parametrize(("constant", "value"), [("PROTOCOL", 3), ("schema_hash", lambda: "0" * 64)])
def test_another_version_of_the_messages_is_refused(socket_path, monkeypatch, constant, value):
    monkeypatch.setattr(f"robo_hw.transport.link.{constant}", value)
    with (
        PolicyServer(ARM, socket_path, Rising(ARM)) as server,
        PolicyClient(ARM, str(server.address), timeouts=QUICK) as client,
    ):
        until(lambda: client.status().state is ClientState.REFUSED)
        assert "same version of robo-rm" in client.status().message


def test_one_arm_has_one_bridge_but_monitors_may_join(socket_path):
    with (
        PolicyServer(ARM, socket_path, Rising(ARM), Counting(ARM)),
        PolicyClient(ARM, socket_path, timeouts=QUICK) as first,
    ):
        connected(first)
        with (
            PolicyClient(ARM, socket_path, timeouts=QUICK) as second,
            PolicyClient(ARM, socket_path, role="monitor", timeouts=QUICK) as monitor,
        ):
            until(lambda: second.status().state is ClientState.REFUSED)
            assert "another bridge" in second.status().message
            connected(monitor)
            monitor.send_observation(NAMES, REST, pictures(), observed_at=1.0)
            assert until(lambda: monitor.poll().progress).progress == 0.01
            assert monitor.status().chunks == 0
            first.close()
            until(lambda: second.status().state is ClientState.CONNECTED)


def test_what_the_policy_cannot_use_is_told_and_the_connection_stays(socket_path):
    policy = Rising(ARM)
    with PolicyServer(ARM, socket_path, policy) as server, PolicyClient(ARM, str(server.address)) as client:
        connected(client)

        def refusal(images) -> str:
            before = client.status().errors
            assert client.send_observation(NAMES, REST, images, observed_at=1.0, want=("chunk",))
            until(lambda: client.status().errors > before)
            return client.status().policy_error

        assert "observation.images.wrist" in refusal({"front": pictures()["front"]})
        policy.wrong = np.zeros((10_000, 7))
        assert "(10000, 7)" in refusal(pictures())
        policy.wrong = "left"
        assert "actions" in refusal(pictures())
        policy.wrong = RuntimeError("out of memory")
        assert "out of memory" in refusal(pictures())
        policy.wrong = None
        assert ask(client).actions.shape == (20, 7)


def test_a_wrong_picture_is_a_mistake_of_the_caller_and_a_bad_number_is_not_sent(socket_path):
    with PolicyServer(ARM, socket_path, Rising(ARM)) as server, PolicyClient(ARM, str(server.address)) as client:
        connected(client)
        with pytest.raises(ObservationError, match="front"):
            client.send_observation(NAMES, REST, {"front": np.zeros((4, 4, 3), np.uint8)}, observed_at=1.0)
        with pytest.raises(ObservationError, match="'left'"):
            client.send_observation(NAMES, REST, {"left": pictures()["front"]}, observed_at=1.0)
        with pytest.raises(ObservationError, match="neither"):
            client.send_observation(NAMES, REST, observed_at=1.0, want=("action",))
        assert not client.send_observation(NAMES, REST * np.nan, observed_at=1.0)
        assert "base_yaw" in client.status().message
        assert not client.send_observation(NAMES[1:], REST[1:], observed_at=1.0)
        assert "base_yaw is missing" in client.status().message


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("tcp://192.168.0.7:5555", "loopback"),
        ("tcp://0.0.0.0:5555", "loopback"),
        ("tcp://127.0.0.1:99999", "port"),
        ("tcp://robot:1", "not on this computer"),
        ("http://x", "not understood"),
        ("tcp://:1", "not understood"),
        ("tls://robot", "no port"),
        ("tls://a b:1", "not understood"),
        ("tls://-x:1", "not understood"),
        ("", "not understood"),
        ("unix:/" + "a" * 200, "longer"),
    ],
)
def test_only_this_machine_is_served(address, match):
    with pytest.raises(AddressError, match=match):
        Address.parse(address)


def test_an_address_that_is_taken_is_refused_and_what_a_killed_server_left_is_replaced(tmp_path):
    path = tmp_path / "policy.sock"
    with PolicyServer(ARM, str(path), Rising(ARM)):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(AddressError, match="listens there already"):
            PolicyServer(ARM, str(path), Rising(ARM))
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(AddressError, match="not a socket"):
        PolicyServer(ARM, str(path), Rising(ARM))
    with pytest.raises(AddressError, match="no folder"):
        PolicyServer(ARM, str(tmp_path / "no" / "x.sock"), Rising(ARM))
    with pytest.raises(TransportError, match="nothing to serve"):
        PolicyServer(ARM, str(tmp_path / "y.sock"))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (np.where(np.arange(7) == 2, np.nan, np.zeros((20, 7))), "elbow_pitch: action 0 is nan"),
        (np.zeros((20, 6)), "shape (20, 6)"),
        (np.zeros(7), "shape (7,)"),
    ],
)
def test_a_broken_chunk_reaches_the_core_as_it_is_and_is_rejected_there(socket_path, tmp_path, wrong, match):
    arm, _ = patient_arm(tmp_path)
    policy, clock = Rising(arm), SteadyClock()
    core = SafetyCore(arm, clock)
    with PolicyServer(arm, socket_path, policy) as server, PolicyClient(arm, str(server.address), clock) as client:
        connected(client)
        policy.wrong = wrong
        for picture in range(8):
            core.observe(NAMES, REST, stamp=clock.now())
            for camera in arm.cameras:
                core.observe_camera(camera.name, picture, stamp=clock.now())
            time.sleep(0.02)
        core.arm()
        result = core.submit(ask(client, observed_at=clock.now(), epoch=core.epoch))
        assert result.malformed
        assert match in result.message


class Spawned:
    """A policy server in a process of its own, which prints before it serves and dies when it is told to."""

    def __init__(self, address: str, think: float = 0.0, contract: str = "tidy_drawer") -> None:
        arguments = [sys.executable, "-X", "dev", str(HELPER), contract, address, str(think)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(arguments, **pipes)
        assert self.process.stdout.readline() == "serving\n", self.process.communicate()[1]

    def __enter__(self) -> Spawned:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.kill()

    def kill(self) -> str:
        self.process.send_signal(signal.SIGKILL)
        return self.process.communicate(timeout=20)[1]


def shared_memory() -> set[str]:
    # Other programs have theirs there too.
    names = os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []
    return {name for name in names if name.startswith(("psm_", "robo"))}


def patient_arm(folder: Path) -> tuple[RobotContract, str]:
    """The arm with deadlines that a busy machine can keep: what is tested here is the policy's death."""
    data = ARM.to_dict()
    data["deadlines"].update(joint_states=2.0, tick=1.0, actions=1.0, chunk=5.0)
    data["safety"].update(max_stop_time=2.0)
    for camera in data["cameras"]:
        camera.update(degraded_after=2.0, stop_after=4.0, frozen_after=30.0)
    path = folder / "patient.yaml"
    path.write_text(yaml.safe_dump(data))
    return RobotContract.load(path), str(path)


def test_a_server_killed_in_mid_chunk_and_restarted_serves_on_without_touching_the_bridge(socket_path, tmp_path):
    arm, path = patient_arm(tmp_path)
    clock, before, descriptors = SteadyClock(), shared_memory(), len(os.listdir("/proc/self/fd"))
    core = SafetyCore(arm, clock)
    robot = REST.copy()
    epochs, states, submitted, refused = [], [], [], []

    with (
        Spawned(socket_path, think=0.05, contract=path) as first,
        contextlib.ExitStack() as later,
        PolicyClient(arm, socket_path, clock, timeouts=QUICK) as client,
    ):

        def tick(picture: int) -> None:
            nonlocal robot
            now = clock.now()
            core.observe(NAMES, robot, stamp=now)
            for camera in arm.cameras:
                core.observe_camera(camera.name, picture, stamp=now)
            if core.state is State.DISARMED:
                with contextlib.suppress(ArmRefusedError):  # until several joint states agree
                    core.arm()
            client.send_observation(NAMES, robot, pictures(), observed_at=now, epoch=core.epoch, want=("chunk",))
            update = client.poll()
            if update.restarted:
                core.new_epoch("the policy server restarted")
            elif update.chunk is not None:
                (submitted if core.submit(update.chunk).accepted else refused).append(update.chunk)
            command = core.tick()
            robot = robot if command is None else command.positions
            states.append(core.state)
            epochs.append(client.status().server_epoch)
            time.sleep(0.01)

        for picture in range(2000):
            tick(picture)
            if len(submitted) >= 3 and core.state is State.RUNNING:
                break
        assert core.state is State.RUNNING
        old = submitted[-1]
        assert first.kill() == "", "no warning about leaked shared memory"
        count = len(submitted)
        for picture in range(2000):
            tick(picture)
            if core.state is State.HOLDING and client.status().state is ClientState.CONNECTING:
                break
        assert client.status().state is ClientState.CONNECTING
        assert core.state is State.HOLDING, "without a policy the arm comes to rest and holds"
        assert core.fault is None

        second = later.enter_context(Spawned(socket_path, think=0.05, contract=path))
        for picture in range(2000):
            tick(picture)
            if len(submitted) >= count + 3 and core.state is State.RUNNING:
                break
        assert core.state is State.RUNNING
        assert len({epoch for epoch in epochs if epoch is not None}) == 2
        assert client.status().connections == 2
        late = core.submit(dataclasses.replace(old, sequence=old.sequence + 10_000))
        assert not late.accepted
        assert "epoch" in late.message
        second.kill()
    gc.collect()
    assert shared_memory() <= before
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("policy-client")]


def test_chunks_made_before_the_connection_was_lost_are_never_handed_out(socket_path):
    policy = Rising(ARM)
    with PolicyClient(ARM, socket_path, timeouts=QUICK) as client:
        with PolicyServer(ARM, socket_path, policy):
            connected(client)
            client.send_observation(NAMES, REST, pictures(), observed_at=1.0, want=("chunk",))
            until(lambda: client.status().chunks)  # it lies ready, nobody has fetched it
        until(lambda: client.status().state is ClientState.CONNECTING)
        update = client.poll()
        assert update.lost
        assert update.chunk is None


def test_a_server_that_hangs_is_left(socket_path):
    with Spawned(socket_path) as hanging, PolicyClient(ARM, socket_path, timeouts=QUICK) as client:
        connected(client)
        hanging.process.send_signal(signal.SIGSTOP)
        until(lambda: client.status().state is ClientState.CONNECTING)
        assert "nothing received" in client.status().message
        hanging.process.send_signal(signal.SIGCONT)
        connected(client)
        # It is the same run: nothing has to be forgotten.
        assert not client.poll().restarted


def test_a_client_that_dies_leaves_the_server_free_for_the_next(socket_path):
    code = (
        "import sys, time, os, signal; from robo_hw import RobotContract; from robo_hw.transport import *\n"
        "c = PolicyClient(RobotContract.load('tidy_drawer'), sys.argv[1]); c.connect()\n"
        "while c.status().state is not ClientState.CONNECTED: time.sleep(0.01)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    with PolicyServer(ARM, socket_path, Rising(ARM)) as server:
        done = subprocess.run([sys.executable, "-c", code, socket_path], timeout=60, check=False)
        assert done.returncode == -signal.SIGKILL
        until(lambda: server.sessions == 0)
        with PolicyClient(ARM, socket_path, timeouts=QUICK) as client:
            connected(client)
            assert ask(client).actions.shape == (20, 7)
