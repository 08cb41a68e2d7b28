"""The server's side of one connection: the handshake, then observations in and answers out."""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import ContractError, FrameError, HandshakeError
from robo_hw.safety.clock import Clock
from robo_hw.transport.connection import Connection, ConnectionLost
from robo_hw.transport.images import ImageLayout, SlotReader
from robo_hw.transport.limits import HELLO, MOST_NUMBERS, chunk_limit, observation_limit
from robo_hw.transport.messages import PROTOCOL, Message, schema_hash, shortened
from robo_hw.transport.reports import Timeouts
from robo_hw.transport.served import IMAGES, NO_POLICY, PLAIN, STATE, Observation, ServerInfo
from robo_hw.transport.workers import Job, Worker


class Server(Protocol):
    """What a session needs of the server that it belongs to."""

    contract: RobotContract
    layout: ImageLayout
    timeouts: Timeouts
    epoch: int
    info: ServerInfo
    clock: Clock
    report: Callable[[str], None]
    workers: dict[str, Worker]

    def claim(self, session: Session, role: str) -> str:
        """Give ``session`` its role; returns why it cannot have it, or ""."""


class Session:
    """One client. The reading thread runs ``run``; the workers answer through ``answer``."""

    def __init__(self, server: Server, connection: Connection) -> None:
        self._server = server
        self._connection = connection
        self.since = time.monotonic()
        self.greeted = False
        """Whether it has said hello; until then it loses its place to others."""
        self.client = ""
        """Names the client: the same one that comes again replaces itself."""
        self.monitors = False
        self._limit = chunk_limit(server.contract)
        self._slots: SlotReader | None = None
        self.controls = False
        """Whether this client gets chunks; at most one does."""
        self.closed = False
        self.leaving = False
        """Whether it has been asked to end."""
        contract, policy = server.contract, server.info.policy
        self._history = policy.history if policy else 1
        self._period = 1.0 / contract.rates.actions
        # Observations may come at the control rate, faster than the policy looks back.
        reach = math.ceil((self._history - 1) * max(contract.rates.control / contract.rates.actions, 1.0)) + 2
        self._past: deque[tuple[float, dict[str, np.ndarray]]] = deque(maxlen=reach)
        self.name = "a client"
        self.task = ""
        self.episode = 0

    def run(self) -> None:
        """Shake hands and read until the connection ends.

        Raises:
            ConnectionLost: it ended; the message says how.
        """
        hello = self._connection.receive(self._server.timeouts.handshake, take_descriptors=True)
        if hello is None or hello["type"] != "hello":
            raise ConnectionLost("it did not say hello")
        try:
            self._shake_hands(hello)
        except HandshakeError as error:
            self._connection.send({"type": "refuse", "field": error.field, "message": shortened(error, 100_000)}, HELLO)
            raise ConnectionLost(f"refused: {error}") from None
        self._server.report(f"{self.name} is connected")
        while True:
            message = self._connection.receive(self._server.timeouts.silence)
            if message is None:
                continue
            kind = message["type"]
            if kind == "ping":
                self._pong(message)
            elif kind == "observation":
                self._observe(message)
            elif kind == "episode":
                self.episode, self.task = message["episode"], message["task"]
                self._past.clear()
            else:
                raise ConnectionLost("it said hello twice")

    def answer(self, message: Message) -> None:
        """Send from a worker; a client that is gone is the reading thread's business."""
        if message["type"] == "chunk":
            message["answered"] = self._server.clock.now()
        try:
            self._connection.send(message, self._limit)
        except ConnectionLost:
            self._connection.interrupt()
        except FrameError as error:
            self._server.report(f"an answer could not be sent: {error}")

    def _pong(self, ping: Message) -> None:
        received = self._server.clock.now()
        worker = self._server.workers.get("chunk" if self.controls else "progress")
        self._connection.send(
            {
                "type": "pong",
                "sequence": ping["sequence"],
                "received": received,
                "answered": self._server.clock.now(),
                "busy": worker.busy if worker else 0.0,
            },
            self._limit,
        )

    def interrupt(self) -> None:
        """Make ``run`` end, from any thread."""
        self.leaving = True
        self._connection.interrupt()

    def close(self) -> None:
        """End the connection and let go of the images."""
        self.closed = True
        self._connection.close()
        if self._slots is not None:
            self._slots.close()
            self._slots = None

    def _shake_hands(self, hello: Message) -> None:
        server = self._server
        if hello["protocol"] != PROTOCOL:
            raise HandshakeError(
                "protocol",
                f"protocol: the client speaks version {hello['protocol']}, the server {PROTOCOL}; install the same"
                " version of robo-rm on both sides",
            )
        if hello["schema"] != schema_hash():
            raise HandshakeError(
                "schema", "schema: the messages of the two sides differ; install the same version of robo-rm on both"
            )
        if hello["role"] not in ("control", "monitor"):
            raise HandshakeError("role", f"role: {hello['role'][:40]!r} is neither control nor monitor")
        self._compare_contracts(hello)
        kind = "the bridge" if hello["role"] == "control" else "a monitor"
        self.name = f"{kind} ({self._connection.channel.peer})"
        self.client = hello["client"]
        problem = server.claim(self, hello["role"])
        if problem:
            raise HandshakeError("role", f"role: {problem}")
        self.greeted = True
        shared, descriptors = hello["shared"], self._connection.descriptors
        if shared and not descriptors:
            raise HandshakeError("shared", "shared: shared memory was announced and did not come")
        if shared:
            self._slots = SlotReader(server.layout, hello["slots"], descriptors[0])
        for descriptor in descriptors:
            os.close(descriptor)
        self._connection.descriptors = []
        self.task = hello["task"]
        self._connection.limit(observation_limit(server.layout, shared))
        info, policy = server.info, server.info.policy or NO_POLICY
        self._connection.send(
            {
                "type": "welcome",
                "protocol": PROTOCOL,
                "epoch": server.epoch,
                "policy": policy.name,
                **{name: getattr(policy, name) for name in PLAIN},
                "action_rate": info.action_rate,
                "needs": {key: list(shape) for key, shape in policy.needs.items()},
                "start_poses": {key: np.array(at, np.float64) for key, at in policy.start_poses.items()},
                "progress_needs": {key: list(shape) for key, shape in info.progress_needs.items()},
                "progress_rate": info.progress_rate,
                "stages": list(info.stages),
            },
            HELLO,
        )

    def _compare_contracts(self, hello: Message) -> None:
        """Refuse what was learned differently, and a bridge with wider limits; tell what else differs."""
        mine = self._server.contract
        try:
            theirs = RobotContract.from_dict(json.loads(hello["contract"]), source="of the client")
        except (ContractError, ValueError, RecursionError) as error:
            text = shortened(error, 400)
            raise HandshakeError("contract", f"contract: the client's cannot be read: {text}") from None
        if theirs.hash != mine.hash:
            lines = mine.difference(theirs) or ["its hash"]
            hashes = f"server {mine.hash[:12]}, client {theirs.hash[:12]}"
            raise HandshakeError(lines[0].split(":")[0], f"the contracts differ ({hashes}): {_first(lines)}")
        wider = theirs.wider_limits(mine)
        if wider and hello["role"] == "control":
            raise HandshakeError(
                wider[0].split(":")[0],
                f"the bridge's limits (here) are wider than the server's (there): {_first(wider)}; give serve-policy "
                "the bridge's contract, which asks to confirm what is wider than in training",
            )
        lines = mine.deployment_difference(theirs)
        if lines:
            self._server.report(f"the contract of {hello['role']} differs in deployment, as it may: {_first(lines)}")

    def _observe(self, message: Message) -> None:
        sequence = message["sequence"]
        try:
            if message["epoch"] != self._server.epoch:
                raise FrameError(f"observation.epoch: {message['epoch']} is not this run of the server")
            values = self._values(message)
        except FrameError as error:
            self._taken(message)
            self._refuse(sequence, str(error))
            return
        observation = Observation(sequence, message["observed_at"], values, past=self._look_back(message, values))
        job = Job(self, observation, self.task, message)
        job.received = self._server.clock.now()
        for want, name in (("want_chunk", "chunk"), ("want_progress", "progress")):
            worker = self._server.workers.get(name)
            if message[want] and worker is not None and (name != "chunk" or self.controls):
                worker.put(job)
        self._taken(message)

    def _look_back(self, message: Message, values: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], ...]:
        """What was seen at the ``history - 1`` action periods before, oldest first, from what was really received."""
        if self._history == 1:
            return ()
        at = message["observed_at"]
        self._past.append((at, values))
        moments = [at - k * self._period for k in range(self._history - 1, 0, -1)]
        return tuple(min(self._past, key=lambda kept: abs(kept[0] - moment))[1] for moment in moments)

    def _taken(self, message: Message) -> None:
        self._connection.send({"type": "taken", "sequence": message["sequence"], "slot": message["slot"]}, self._limit)

    def _refuse(self, sequence: int, text: str) -> None:
        field, _, _ = text.partition(":")
        self._connection.send(
            {
                "type": "error",
                "epoch": self._server.epoch,
                "sequence": sequence,
                "field": shortened(field, 200),
                "message": shortened(text),
            },
            self._limit,
        )

    def _values(self, message: Message) -> dict[str, np.ndarray]:
        state = message["state"]
        if state.shape != (len(self._server.contract.joints),):
            raise FrameError(f"observation.state: shape {state.shape} for {len(self._server.contract.joints)} joints")
        values: dict[str, np.ndarray] = {STATE: _single(state)}
        numbers = 0
        for key, array in message["arrays"].items():
            numbers += array.size
            if array.ndim != 1 or numbers > MOST_NUMBERS or key == STATE or key.startswith(IMAGES):
                raise FrameError(f"observation.arrays.{key[:80]}: not a vector, too long, or a name that is taken")
            values[key] = _single(array)
        for key, array in values.items():
            if not np.isfinite(array).all():
                raise FrameError(f"{key}: a number is not finite")
        cameras = message["cameras"]
        if self._slots is not None:
            images = self._slots.read(message["slot"], message["generation"], cameras)
        else:
            images = self._server.layout.split(cameras, message["pixels"])
        values.update({IMAGES + name: image for name, image in images.items()})
        return values


def _first(lines: list[str]) -> str:
    more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    return "; ".join(lines[:3]) + more


def _single(array: np.ndarray) -> np.ndarray:
    """As float32; numbers too large for it become infinite, which is then refused."""
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(np.float32)
