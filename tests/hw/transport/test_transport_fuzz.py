"""Random and mutated frames against the transport: refused or understood, and nothing else ever happens."""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 - what looks up a host imports it on first use
import json
import random
import resource
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hostile_frames import BOMBS, DATA, SMALL_ARM, Mutator, hello, observation, samples
from policy_credentials import credentials
from served_policies import Counting, Rising

from robo_hw import RobotContract
from robo_hw.errors import ContractError, FrameError
from robo_hw.transport import Address, ClientState, Credentials, PolicyClient, PolicyServer, Timeouts
from robo_hw.transport.channel import Channel
from robo_hw.transport.gate import verdict
from robo_hw.transport.images import ImageLayout
from robo_hw.transport.limits import HELLO, observation_limit
from robo_hw.transport.link import Target
from robo_hw.transport.messages import FROM_CLIENT, FROM_SERVER, PROTOCOL, check
from robo_hw.transport.wire import FrameReader, pack, unpack

LAYOUT = ImageLayout(SMALL_ARM)
# A handshake takes milliseconds, and seconds where other work has the cores.
QUICK = Timeouts(retry=0.01, retry_refused=0.02, send=0.5, silence=2.0, authenticate=30.0)
EXECUTED = {"exec", "compile", "os.system", "os.exec", "subprocess.Popen", "pickle.find_class", "ctypes.dlopen"}

watched: list[str] | None = None


def _watch(event: str, _arguments: object) -> None:
    if watched is not None and (event in EXECUTED or (event == "import" and _in_transport())):
        watched.append(event)


def _in_transport() -> bool:
    return threading.current_thread().name.startswith(("policy", "progress"))


sys.addaudithook(_watch)  # a hook cannot be taken back; it does nothing unless a test has set ``watched``


@contextlib.contextmanager
def executing_nothing() -> Iterator[None]:
    global watched
    watched = []
    yield
    found, watched = watched, None
    assert found == []


@pytest.fixture
def nothing_executed() -> Iterator[None]:
    with executing_nothing():
        yield


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_any_frame_is_read_or_refused_with_one_kind_of_error(nothing_executed):
    mutator = Mutator(1, samples(77))
    before, read = peak_megabytes(), 0
    for number in range(20_000):
        data = mutator.frame() if number % 50 else BOMBS[number // 50 % len(BOMBS)]
        reader = FrameReader(HELLO)
        reader.feed(data)
        with contextlib.suppress(FrameError):
            while (body := reader.next()) is not None:
                message = unpack(body)
                for table in (FROM_CLIENT, FROM_SERVER):
                    with contextlib.suppress(FrameError):
                        check(message, table)
                        read += 1
    assert read > 100, "some mutations leave a sound message"
    assert peak_megabytes() - before < 60


WRONG_VALUES = [
    None, True, -1, 0, 0.0, 2**70, -1e308, 1e308, float("nan"), float("inf"), "", "x" * 300, [], {}, [1, "a", None],
    {"a": {"b": []}}, [[]], [{}], "rad", [0, 0], [1, 2, 3], [float("nan"), 1], {"name": []}, [{"name": {}}],
]  # fmt: skip


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def test_a_contract_from_the_other_side_is_understood_or_refused_whatever_it_holds():
    pick = random.Random(5)
    known, counts = list(places(DATA)), {"sound": 0, "refused": 0}
    for _ in range(3000):
        data = json.loads(json.dumps(DATA))
        for path in pick.choices(known, k=pick.choice([1, 1, 2, 5])):
            place = data
            with contextlib.suppress(KeyError, IndexError, TypeError):
                for key in path[:-1]:
                    place = place[key]
                if pick.random() < 0.2:
                    del place[path[-1]]
                else:
                    place[path[-1]] = json.loads(json.dumps(pick.choice(WRONG_VALUES)))
        try:
            found = RobotContract.from_dict(data)
            assert SMALL_ARM.difference(found) is not None
            assert len(found.hash) == 64
            counts["sound"] += 1
        except ContractError:
            counts["refused"] += 1
    assert min(counts.values()) > 50


def test_every_sound_message_survives_the_way():
    for message in samples(5):
        reader = FrameReader(HELLO)
        frame = pack(message, HELLO)
        for i in range(0, len(frame), 7):  # in pieces
            reader.feed(frame[i : i + 7])
        body = reader.next()
        assert body is not None
        found = check(unpack(body), FROM_CLIENT if message["type"] in FROM_CLIENT else FROM_SERVER)
        assert found.keys() == message.keys()


PING = pack({"type": "ping", "sequence": 1}, HELLO)
KINDS = ("unix", "tcp", "tls")
BEFORE = 0.15
"""Of all connections, so many send their frames without having proved who they are."""


class Assailant:
    """One connection after another to a server; it has what proves a client, and uses it most of the time."""

    def __init__(self, server: PolicyServer, credentials: Credentials, seed: int) -> None:
        self.address = Address.parse(str(server.address))
        self.mutator = Mutator(seed, samples(server.epoch))
        self.target = Target(self.address, credentials.client(self.address), "fuzz")
        self.sound = pack(hello(), HELLO)
        self.channel: Channel | None = None
        self.connections = self.pongs = self.outside = 0

    def connect(self) -> None:
        self.connections += 1
        if self.mutator.random.random() < BEFORE:
            self.outside += 1
            made = self.address.connect(5.0)
            made.setblocking(False)
            self.channel, self.reader = Channel(made, "nobody"), FrameReader(2**20)
            with contextlib.suppress(OSError):
                self.channel.write(self.mutator.greeting())
            return
        self.channel = self.target.dial(QUICK)
        self.reader = FrameReader(2**20, self.channel.seals[1] if self.channel.seals else None)
        if self.mutator.random.random() < 0.8:
            self.send(self.sound)

    def send(self, frame: bytes) -> None:
        assert self.channel is not None
        if self.channel.seals:
            frame += self.channel.seals[0].tag(frame)
        rest, end = memoryview(frame), time.monotonic() + 5.0
        while rest:
            rest = rest[self.channel.write(rest) :]
            if time.monotonic() > end:
                raise TimeoutError

    def settled(self, seconds: float) -> bool:
        """Whether the server is done with what was sent and answers on: False where it left, or waits for more."""
        assert self.channel is not None
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            poll = select.poll()
            poll.register(self.channel.socket, select.POLLIN)
            poll.poll(left * 1000)
            data = self.channel.read(65536)
            if data is None:
                continue
            if not data:
                return False
            self.reader.feed(data)
            while (body := self.reader.next()) is not None:
                if unpack(body)["type"] == "pong":
                    return True
        return False

    def attack(self, number: int) -> None:
        if self.channel is None:
            self.connect()
        data = self.mutator.frame() if number % 97 else BOMBS[number // 97 % len(BOMBS)]
        alive = False
        with contextlib.suppress(OSError, FrameError):
            # The seal is right even where the frame is not whole: whoever holds the secret can send any bytes.
            self.send(data)
            self.send(PING)
            alive = self.settled(0.03)
        self.pongs += alive
        if not alive:
            self.close()

    def close(self) -> None:
        if self.channel is not None:
            self.channel.close()
            self.channel = None


def survive(tmp_path, frames: int, seed: int, kind: str) -> None:
    place = {"unix": f"{tmp_path}/policy.sock", "tcp": "tcp://127.0.0.1:0", "tls": "tls://127.0.0.1:0"}[kind]
    ours, theirs = credentials(tmp_path, kind)
    policy = Rising(SMALL_ARM)
    before = peak_megabytes()
    with (
        executing_nothing(),
        PolicyServer(SMALL_ARM, place, policy, Counting(SMALL_ARM), timeouts=QUICK, credentials=ours) as server,
    ):
        policy.seen = _Last()
        one = Assailant(server, theirs, seed)
        for number in range(frames):
            one.attack(number)
        one.close()
        print(
            f"{kind}, seed {seed}: {frames} frames over {one.connections} connections, {one.outside} of them strangers"
        )
        print(f"{one.pongs} frames understood")
        assert frames > one.connections > frames / 5
        assert one.pongs > frames / 100
        end = time.monotonic() + 10
        while server.sessions and time.monotonic() < end:
            time.sleep(0.01)
        assert server.sessions == 0
        with PolicyClient(SMALL_ARM, str(server.address), timeouts=QUICK, credentials=theirs) as client:
            while client.status().state is not ClientState.CONNECTED:
                assert time.monotonic() < end + 10
                time.sleep(0.01)
            images = {"front": np.zeros((8, 8, 3), np.uint8)}
            assert client.send_observation(SMALL_ARM.joint_names, np.zeros(7), images, observed_at=2.0)
            while client.poll().chunk is None:
                assert time.monotonic() < end + 20
                time.sleep(0.01)
    assert peak_megabytes() - before < 150
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"policy-session", "policy-server", "policy-worker", "progress-worker"}


class _Last(list):
    """Keeps the newest only, so that the test's own policy does not grow."""

    def append(self, item: object) -> None:
        self[:] = [item]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_survives_thousands_of_wrong_frames_and_serves_on(tmp_path, kind):
    survive(tmp_path, 2000, 2, kind)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_survives_a_hundred_thousand_wrong_frames(tmp_path, kind):
    survive(tmp_path, 100_000, 3, kind)


def test_a_client_survives_a_server_that_sends_nonsense(tmp_path, nothing_executed):
    path = f"{tmp_path}/policy.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(8)
    stop = threading.Event()
    welcome = {
        "type": "welcome", "protocol": PROTOCOL, "epoch": 77, "policy": "p", "kind": "k", "chunk_size": 20,
        "execution_horizon": 5, "history": 1, "action_rate": 20.0, "contract_hash": "",
        "needs": {"observation.state": [7]},
        "progress_needs": {}, "progress_rate": 0.0, "stages": [],
    }  # fmt: skip
    mutator = Mutator(4, [welcome, *samples(77)])
    sent = [0]

    def serve() -> None:
        while not stop.is_set():
            try:
                made, _ = listening.accept()
            except OSError:
                return
            with made, contextlib.suppress(OSError):
                made.settimeout(1.0)
                made.sendall(verdict(""))
                if mutator.random.random() < 0.8:
                    made.sendall(pack(welcome, HELLO))
                for _ in range(30):
                    made.sendall(mutator.frame())
                    sent[0] += 1

    thread = threading.Thread(target=serve, name="nonsense", daemon=True)
    thread.start()
    with PolicyClient(SMALL_ARM, path, timeouts=QUICK) as client:
        end = time.monotonic() + 20
        while sent[0] < 2000 and time.monotonic() < end:
            client.send_observation(SMALL_ARM.joint_names, np.zeros(7), observed_at=1.0)
            update = client.poll()
            if update.chunk is not None:
                assert np.asarray(update.chunk.actions).dtype.kind in "fu"
            client.status()
            time.sleep(0.001)
        assert sent[0] >= 500
        stop.set()
        listening.close()
        assert client._thread is not None
        assert client._thread.is_alive()


def test_a_sender_that_stops_inside_a_frame_is_left(tmp_path):
    path = f"{tmp_path}/policy.sock"
    with PolicyServer(SMALL_ARM, path, Rising(SMALL_ARM), timeouts=QUICK) as server:
        with socket.socket(socket.AF_UNIX) as made:
            made.connect(path)
            assert made.recv(1) == verdict("")
            made.sendall(pack(hello(), HELLO) + pack(observation(server.epoch), observation_limit(LAYOUT, False))[:-3])
            made.settimeout(5.0)
            began = time.monotonic()
            while made.recv(65536):
                pass
        assert time.monotonic() - began < 2.0
