"""Frames of a sound client and server, and what a hostile one makes of them; shared by the tests of the transport."""

from __future__ import annotations

import contextlib
import json
import random
import struct

import msgpack
import numpy as np

from robo_hw import RobotContract
from robo_hw.transport.limits import HELLO
from robo_hw.transport.messages import PROTOCOL, schema_hash
from robo_hw.transport.secret import GREETING
from robo_hw.transport.wire import pack

DATA = RobotContract.load("tidy_drawer").to_dict()
SMALL_ARM = RobotContract.from_dict({**DATA, "cameras": [{**DATA["cameras"][0], "width": 8, "height": 8}]})


def hello(**changes) -> dict:
    return {
        "type": "hello",
        "protocol": PROTOCOL,
        "schema": schema_hash(),
        "role": "control",
        "client": "fuzz",
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
        "received": 5.0,
        "answered": 5.1,
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
        {"type": "pong", "sequence": 1, "received": 5.0, "answered": 5.0, "busy": 0.0},
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

    def greeting(self) -> bytes:
        """What a stranger says first: noise, a frame, the start of a proof, of TLS, of something else."""
        return self.random.choice(
            [
                b"",
                self.noise(),
                GREETING,
                GREETING + self.random.randbytes(self.random.randint(1, 200)),
                GREETING + bytes(32) + self.random.randbytes(32),
                b"\x16\x03\x01" + self.random.randbytes(self.random.randint(2, 400)),
                b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + self.random.randbytes(32),
                b"\x15\x03\x03\x00\x02\x02\x28",
                b"GET / HTTP/1.1\r\n\r\n",
            ]
        )

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
