"""One connection of the client: the handshake, the slots for images, and what is on its way."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field

import numpy as np

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import AddressError, AuthenticationError, FrameError
from robo_hw.transport.address import Address
from robo_hw.transport.channel import Channel, Steps, finish
from robo_hw.transport.connection import Connection, ConnectionLost
from robo_hw.transport.credentials import Authenticate
from robo_hw.transport.gate import read_verdict
from robo_hw.transport.images import ImageLayout, SlotWriter
from robo_hw.transport.limits import HELLO, chunk_limit, observation_limit
from robo_hw.transport.messages import FROM_SERVER, PROTOCOL, Message, schema_hash
from robo_hw.transport.offset import ClockOffset
from robo_hw.transport.reports import Timeouts
from robo_hw.transport.served import PLAIN, PolicyInfo, ServerInfo
from robo_hw.transport.tls import meaning

_PINGS = 64
"""Pings that may still be answered."""


class Refused(Exception):
    """The server does not want this client, or is not the one that it should be; the message says why."""


@dataclass(frozen=True)
class Target:
    """Which server, and what proves it: as long-lived as the client. ``client`` names the client, made up by it.

    ``trusted`` and ``shared_folder``: as for ``Address.connect``.
    """

    address: Address
    authenticate: Authenticate
    client: str
    trusted: frozenset[int] = frozenset()
    shared_folder: bool = False

    def dial(self, timeouts: Timeouts) -> Channel:
        """A channel to a server that has proved itself, and that lets this client in.

        Raises:
            ConnectionLost: nobody listens there, or somebody does not finish in time.
            Refused: whoever listens there is not who it has to be, or does not let this client in.
        """
        try:
            made = self.address.connect(timeouts.connect, self.trusted, self.shared_folder)
        except OSError as error:
            raise ConnectionLost(f"no server there ({error.strerror or error})") from None
        except AddressError as error:
            raise Refused(str(error)) from None
        try:
            return self._authenticated(made, timeouts)
        except BaseException:
            made.close()
            raise

    def _authenticated(self, made: socket.socket, timeouts: Timeouts) -> Channel:
        made.setblocking(False)
        try:
            channel: Channel = finish(self._steps(made), made.fileno(), timeouts.authenticate)
        except AuthenticationError as error:
            raise Refused(f"{self.address}: {error}") from None
        except TimeoutError:
            raise ConnectionLost(f"it did not prove who it is within {timeouts.authenticate:g} s") from None
        except OSError as error:
            refused = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError)
            raise (Refused if refused else ConnectionLost)(f"{self.address}: {meaning(error)}") from None
        return channel

    def _steps(self, made: socket.socket) -> Steps:
        channel = yield from self.authenticate(made)
        try:
            yield from read_verdict(channel)
        except BaseException:
            channel.close()
            raise
        return channel


@dataclass
class Pending:
    """An observation that waits to be sent. Its images are copied when it is put: into ``slot``, or into ``pixels``."""

    header: Message
    images: dict[str, np.ndarray]
    slot: int = 0
    generation: int = 0
    pixels: bytes = b""
    cameras: list[str] = field(default_factory=list)


class Link:
    """A connection to the server; the client's thread runs it, ``put`` and ``tell`` come from others and never wait.

    Raises:
        ConnectionLost: nobody listens at the address.
        Refused: somebody else does.
    """

    def __init__(
        self, contract: RobotContract, target: Target, layout: ImageLayout, timeouts: Timeouts, slots: int
    ) -> None:
        self._contract, self._layout, self._timeouts, self._target = contract, layout, timeouts, target
        self._shared = target.address.shared and SlotWriter.possible()
        self._limit = observation_limit(layout, self._shared)
        self._lock = threading.Lock()
        self._free = deque(range(slots))
        self._slots = slots
        self._pending: Pending | None = None
        self._under_way: dict[int, int] = {}
        self._messages: deque[Message] = deque(maxlen=64)
        self._pinged = 0.0
        self._ping = 0
        self._pings: OrderedDict[int, float] = OrderedDict()
        self.offset = ClockOffset()
        """The server's clock against this one; the client's thread writes it."""
        self.busy = 0.0
        """Seconds that the network had been computing on one observation when the server last said so."""
        self._connection = Connection(target.dial(timeouts), FROM_SERVER, HELLO, timeouts)
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._writer: SlotWriter | None = None
        try:
            self._writer = SlotWriter(layout, slots) if self._shared else None
        except OSError as error:
            self.close()
            raise ConnectionLost(f"no memory for images ({error.strerror})") from None

    def shake_hands(self, role: str, task: str) -> ServerInfo:
        """Say who we are, and learn what is served.

        Raises:
            Refused: the two do not fit together.
            ConnectionLost: no answer in time, or nonsense.
        """
        hello = {
            "type": "hello",
            "protocol": PROTOCOL,
            "schema": schema_hash(),
            "role": role,
            "client": self._target.client,
            "contract": json.dumps(self._contract.to_dict(), separators=(",", ":")),
            "contract_hash": self._contract.hash,
            "task": task,
            "shared": self._shared,
            "slots": self._slots,
        }
        self._connection.send(hello, HELLO, self._writer.descriptor if self._writer else None)
        answer = self._connection.receive(self._timeouts.handshake)
        if answer is None:
            raise ConnectionLost(f"no answer to hello within {self._timeouts.handshake:g} s")
        if answer["type"] == "refuse":
            raise Refused(answer["message"])
        if answer["type"] != "welcome":
            raise ConnectionLost(f"it answered hello with {answer['type']}")
        if answer["protocol"] != PROTOCOL:
            raise Refused(f"protocol: the server speaks version {answer['protocol']}, this client {PROTOCOL}")
        self._connection.limit(chunk_limit(self._contract))
        poses = {key: tuple(float(number) for number in at.ravel()[:3]) for key, at in answer["start_poses"].items()}
        plain = {name: answer[name] for name in PLAIN}
        policy = PolicyInfo(answer["policy"], needs=answer["needs"], start_poses=poses, **plain)
        return ServerInfo(
            answer["epoch"],
            policy if answer["chunk_size"] else None,
            answer["action_rate"],
            answer["progress_needs"],
            answer["progress_rate"],
            answer["stages"],
        )

    def put(self, pending: Pending) -> tuple[bool, bool]:
        """Take the newest observation; returns whether it replaced one that was not sent, and whether it was taken."""
        with self._lock:
            replaced = self._pending is not None
            if self._pending is not None:
                pending.slot = self._pending.slot
            elif self._free:
                pending.slot = self._free.popleft()
            else:
                return False, False
            pending.cameras = list(pending.images)
            if self._writer is not None:
                pending.generation = self._writer.write(pending.slot, pending.images)
            else:
                pending.pixels = self._layout.join(pending.images)
            pending.images = {}
            self._pending = pending
        self._wake()
        return replaced, True

    def tell(self, message: Message) -> None:
        """Have a small message sent before the next observation."""
        with self._lock:
            self._messages.append(message)
        self._wake()

    def exchange(self) -> Message | None:
        """Send what waits and receive one message, a heartbeat long at most; returns what is the client's business.

        Raises:
            ConnectionLost: the server is gone, hangs, or speaks nonsense.
        """
        self._send_waiting()
        message = self._connection.receive(0.0)
        if message is None:
            self._sleep()
            self._send_waiting()  # an observation goes out before anything is read
            message = self._connection.receive(0.0)
        if message is None:
            return None
        if message["type"] == "pong":
            self._on_pong(message)
            return None
        if message["type"] == "taken":
            with self._lock:
                slot = self._under_way.pop(message["sequence"], None)
                if slot is not None:
                    self._free.append(slot)
            return None
        if message["type"] in ("welcome", "refuse"):
            raise ConnectionLost(f"it said {message['type']} again")
        return message

    def interrupt(self) -> None:
        """End what the thread is waiting for, from any thread."""
        self._connection.interrupt()
        self._wake()

    def close(self) -> None:
        """Give everything back."""
        self._connection.close()
        with self._lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            self._free.clear()
            self._pending = None
        self._wake_in.close()
        self._wake_out.close()

    def _send_waiting(self) -> None:
        while True:
            with self._lock:
                message = self._messages.popleft() if self._messages else None
            if message is None:
                break
            self._connection.send(message, HELLO)
        with self._lock:
            pending, self._pending = self._pending, None
            if pending is not None:
                self._under_way[pending.header["sequence"]] = pending.slot
        if pending is not None:
            body = {
                **pending.header,
                "cameras": pending.cameras,
                "slot": pending.slot,
                "generation": pending.generation,
                "pixels": pending.pixels,
            }
            try:
                self._connection.send(body, self._limit)
            except FrameError as error:
                raise ConnectionLost(str(error)) from None
        now = time.monotonic()
        if now - self._pinged >= self._timeouts.heartbeat:
            self._pinged = now
            self._ping += 1
            self._pings[self._ping] = now
            while len(self._pings) > _PINGS:
                self._pings.popitem(last=False)
            self._connection.send({"type": "ping", "sequence": self._ping}, HELLO)

    def _on_pong(self, pong: Message) -> None:
        self.busy = pong["busy"]
        sent = self._pings.pop(pong["sequence"], None)
        if sent is not None:
            self.offset.add(sent, pong["received"], pong["answered"], time.monotonic())

    def _sleep(self) -> None:
        poll = select.poll()
        try:
            poll.register(self._connection.channel.socket, select.POLLIN)
            poll.register(self._wake_in, select.POLLIN)
            poll.poll(self._timeouts.heartbeat * 1000)
            with contextlib.suppress(BlockingIOError):
                self._wake_in.recv(4096)
        except (OSError, ValueError):
            raise ConnectionLost("the connection was closed here") from None

    def _wake(self) -> None:
        # A full pipe wakes as well as one byte; a closed one has nobody to wake.
        with contextlib.suppress(OSError):
            self._wake_out.send(b"w")
