"""Random and mutated frames against the transport: refused or understood, and nothing else ever happens."""

from __future__ import annotations

import contextlib
import json
import random
import resource
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator

import msgpack
import numpy as np
import pytest
from served_policies import Counting, Rising

from robo_hw import RobotContract
from robo_hw.errors import ContractError, FrameError
from robo_hw.transport import ClientState, PolicyClient, PolicyServer, Timeouts
from robo_hw.transport.images import ImageLayout
from robo_hw.transport.limits import HELLO, observation_limit
from robo_hw.transport.messages import FROM_CLIENT, FROM_SERVER, PROTOCOL, check, schema_hash
from robo_hw.transport.wire import FrameReader, pack, unpack

_DATA = RobotContract.load("tidy_drawer").to_dict()
SMALL_ARM = RobotContract.from_dict({**_DATA, "cameras": [{**_DATA["cameras"][0], "width": 8, "height": 8}]})
LAYOUT = ImageLayout(SMALL_ARM)
QUICK = Timeouts(retry=0.01, retry_refused=0.02, send=0.5, silence=2.0)
EXECUTED = {"exec", "compile", "os.system", "os.exec", "subprocess.Popen", "pickle.find_class", "ctypes.dlopen"}

watched: list[str] | None = None


def _watch(event: str, _arguments: object) -> None:
    if watched is not None and (event in EXECUTED or (event == "import" and _in_transport())):
        watched.append(event)


def _in_transport() -> bool:
    return threading.current_thread().name.startswith(("policy", "progress"))


sys.addaudithook(_watch)  # a hook cannot be taken back; it does nothing unless a test has set ``watched``


@pytest.fixture
def nothing_executed() -> Iterator[None]:
    global watched
    watched = []
    yield
    found, watched = watched, None
    assert found == []


def hello(**changes) -> dict:
    return {
        "type": "hello",
        "protocol": PROTOCOL,
        "schema": schema_hash(),
        "role": "control",
        "contract": json.dumps(SMALL_ARM.to_dict()),
        "contract_hash": SMALL_ARM.hash,
        "task": "tidy",
        "shared": False,
        "slots": 4,
        **changes,
    }


def observation(epoch: int, sequence: int = 1) -> dict:
    return {
        "type": "observation",
        "epoch": epoch,
        "sequence": sequence,
        "episode": 0,
        "observed_at": 1.5,
        "core_epoch": 3,
        "consumed": 4.0,
        "want_chunk": True,
        "want_progress": True,
        "state": np.zeros(7),
        "arrays": {"observation.environment_state": np.zeros(15, np.float32)},
        "cameras": ["front"],
        "slot": 0,
        "generation": 0,
        "pixels": bytes(8 * 8 * 3),
    }


def chunk(epoch: int) -> dict:
    return {
        "type": "chunk",
        "epoch": epoch,
        "sequence": 1,
        "episode": 0,
        "observed_at": 1.5,
        "core_epoch": 3,
        "consumed": 0.0,
        "joints": list(SMALL_ARM.joint_names),
        "actions": np.zeros((20, 7)),
        "seconds": 0.01,
    }


def samples(epoch: int) -> list[dict]:
    """One sound message of every kind that a client sends, and some that a server sends."""
    return [
        hello(),
        observation(epoch),
        observation(epoch),
        {"type": "episode", "episode": 1, "task": "t"},
        {"type": "ping", "sequence": 3},
        chunk(epoch),
        {"type": "error", "epoch": epoch, "sequence": 1, "field": "x", "message": "y"},
        {"type": "taken", "sequence": 1, "slot": 0},
        {"type": "pong", "sequence": 1},
        {"type": "refuse", "field": "x", "message": "y"},
    ]


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


class Mutator:
    """Makes wrong frames out of sound ones; every frame follows from the seed and its number."""

    def __init__(self, seed: int, messages: list[dict]) -> None:
        self.random = random.Random(seed)
        self.frames = [pack(message, HELLO) for message in messages]
        self.plain = [msgpack.unpackb(frame[4:]) for frame in self.frames]

    def value(self) -> object:
        pick = self.random.choice
        return pick(
            [
                None, True, -1, 0, 1, 2**63, -(2**63), 1.5, float("nan"), float("inf"), "", "x" * 3000, b"",
                b"\0" * 500, [], {}, [1, "a", None], {"a": {"b": []}}, nested(60), list(range(600)),
                msgpack.ExtType(5, b"evil"),
                msgpack.Timestamp(1, 2), "cos\nsystem\n(S'true'\ntR.", b"\x80\x04cos\nsystem\n", "../../etc/passwd",
                {"dtype": "<f8", "shape": [2**40, 2**40], "data": b""},
                {"dtype": "O", "shape": [1], "data": b"12345678"},
                {"dtype": "<f8", "shape": [-1], "data": b"12345678"}, {"dtype": "|u1", "shape": [0] * 9, "data": b""},
            ]
        )  # fmt: skip

    def structural(self) -> bytes:
        message = dict(self.random.choice(self.plain))
        for _ in range(self.random.randint(1, 3)):
            key = self.random.choice([*message, "extra", "__class__"])
            if self.random.random() < 0.2:
                message.pop(key, None)
            else:
                message[key] = self.value()
        with contextlib.suppress(ValueError, OverflowError):
            body = msgpack.packb(message)
            return struct.pack(">I", len(body)) + body
        return b""

    def plausible(self) -> bytes:
        """Right types, wrong values: gets past the schema."""
        message = dict(self.random.choice([m for m in self.plain if m["type"] in ("observation", "episode", "ping")]))
        shapes = [(7,), (6,), (0,), (7, 7), (4000,), (1, 1, 1, 1)]
        for key in self.random.sample(sorted(message), min(3, len(message))):
            value = message[key]
            if key != "type" and type(value) is int:
                message[key] = self.random.choice([0, 1, 15, self.random.getrandbits(40)])
            elif type(value) is float:
                message[key] = self.random.choice([0.0, 1e-300, 1e9, self.random.random()])
            elif key == "cameras":
                message[key] = self.random.choice([[], ["front", "front"], ["left"], ["front"] * 500])
            elif key == "pixels":
                message[key] = bytes(self.random.choice([0, 1, 191, 193, 60_000]))
            elif key == "state":
                message[key] = np.full(self.random.choice(shapes), self.random.choice([0.0, np.nan, 1e300]))
            elif key == "arrays":
                message[key] = {self.random.choice(["a", "observation.state"]): np.ones(self.random.choice(shapes))}
        return pack(message, HELLO)

    def bytewise(self) -> bytes:
        frame = bytearray(self.random.choice(self.frames))
        for _ in range(self.random.choice([1, 1, 2, 8])):
            what, place = self.random.randrange(5), self.random.randrange(len(frame) or 1)
            if what == 0 and frame:
                frame[place] ^= 1 << self.random.randrange(8)
            elif what == 1 and frame:
                frame[place] = self.random.choice([0, 0x7F, 0xC1, 0xC6, 0xC9, 0xDB, 0xDD, 0xDF, 0xFF])
            elif what == 2:
                del frame[place:]
            elif what == 3:
                frame[place:place] = self.random.randbytes(self.random.randint(1, 40))
            else:
                other = self.random.choice(self.frames)
                frame[place:] = other[self.random.randrange(len(other)) :]
        return bytes(frame)

    def noise(self) -> bytes:
        body = self.random.randbytes(self.random.randint(0, 300))
        if self.random.random() < 0.3:
            return body
        length = len(body) if self.random.random() < 0.9 else self.random.getrandbits(32)
        return struct.pack(">I", length) + body

    def frame(self) -> bytes:
        return self.random.choice([self.structural, self.bytewise, self.plausible, self.noise])()


BOMBS = [
    struct.pack(">I", 2**32 - 1) + b"x" * 100,
    *(
        struct.pack(">I", len(body)) + body
        for body in (
            b"\xdd\xff\xff\xff\xff",  # a list of 4 billion
            b"\xdf\xff\xff\xff\xff",  # a map of 4 billion
            b"\xdb\xff\xff\xff\xff",  # a text of 4 GB
            b"\xc6\xff\xff\xff\xff",  # bytes of 4 GB
            b"\xc9\xff\xff\xff\xff\x05",  # an extension of 4 GB
            b"\xdc\x02\x00" * 20000,  # lists of 512 inside each other
            b"\xdd\x00\x00\x02\x00" * 1000,
            b"\x81\xa1a" * 20000,  # maps inside each other
            b"\x91" * 60000,
        )
    ),
]


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
    known, counts = list(places(_DATA)), {"sound": 0, "refused": 0}
    for _ in range(3000):
        data = json.loads(json.dumps(_DATA))
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


def settled(made: socket.socket, seconds: float) -> bool:
    """Whether the server is done with what was sent and answers on: False where it left, or waits for more."""
    end = time.monotonic() + seconds
    reader = FrameReader(2**20)
    while (left := end - time.monotonic()) > 0:
        made.settimeout(left)
        data = made.recv(65536)
        if not data:
            return False
        reader.feed(data)
        while (body := reader.next()) is not None:
            if unpack(body)["type"] == "pong":
                return True
    return False


def assault(path: str, epoch: int, frames: int, seed: int) -> tuple[int, int]:
    """Send so many frames, each looked at by the server before the next; the connections it took, and pongs."""
    mutator = Mutator(seed, samples(epoch))
    sound = pack(hello(), HELLO)
    made, connections, pongs = None, 0, 0
    for number in range(frames):
        if made is None:
            made = socket.socket(socket.AF_UNIX)
            made.settimeout(5.0)
            made.connect(path)
            connections += 1
            if mutator.random.random() < 0.8:
                made.sendall(sound)
        data = mutator.frame() if number % 97 else BOMBS[number // 97 % len(BOMBS)]
        alive = False
        with contextlib.suppress(OSError):
            made.settimeout(5.0)
            made.sendall(data + PING)
            alive = settled(made, 0.03)
        pongs += alive
        if not alive:
            made.close()
            made = None
    if made is not None:
        made.close()
    return connections, pongs


def survive(tmp_path, frames: int, seed: int) -> None:
    path = f"{tmp_path}/policy.sock"
    policy = Rising(SMALL_ARM)
    before = peak_megabytes()
    with PolicyServer(SMALL_ARM, path, policy, Counting(SMALL_ARM), timeouts=QUICK) as server:
        policy.seen = _Last()
        connections, pongs = assault(path, server.epoch, frames, seed)
        print(f"seed {seed}: {frames} frames over {connections} connections, {pongs} of them understood")
        assert frames > connections > frames / 3
        assert pongs > frames / 100
        end = time.monotonic() + 10
        while server.sessions and time.monotonic() < end:
            time.sleep(0.01)
        assert server.sessions == 0
        with PolicyClient(SMALL_ARM, path, timeouts=QUICK) as client:
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


def test_a_server_survives_thousands_of_wrong_frames_and_serves_on(tmp_path, nothing_executed):
    survive(tmp_path, 2000, seed=2)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_server_survives_a_hundred_thousand_wrong_frames(tmp_path, nothing_executed):
    survive(tmp_path, 100_000, seed=3)


def test_a_client_survives_a_server_that_sends_nonsense(tmp_path, nothing_executed):
    path = f"{tmp_path}/policy.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(8)
    stop = threading.Event()
    welcome = {
        "type": "welcome", "protocol": PROTOCOL, "epoch": 77, "policy": "p", "kind": "k", "chunk_size": 20,
        "execution_horizon": 5, "action_rate": 20.0, "contract_hash": "", "needs": {"observation.state": [7]},
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
            made.sendall(pack(hello(), HELLO) + pack(observation(server.epoch), observation_limit(LAYOUT, False))[:-3])
            made.settimeout(5.0)
            began = time.monotonic()
            while made.recv(65536):
                pass
        assert time.monotonic() - began < 2.0
