"""Serves a policy, a reward model, or both, to the bridge of one arm.

    with PolicyServer(contract, "unix:policy", policy=policy, progress=reward_model):
        ...wait...

Threads: one that takes connections and has them prove who they are, one reading for each client that did, one that runs
the policy and one that runs the reward model. Readers never wait for a network, so heartbeats are answered while it
computes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import TransportError
from robo_hw.safety.clock import Clock, SteadyClock
from robo_hw.transport.address import Address
from robo_hw.transport.channel import Channel
from robo_hw.transport.connection import Connection, ConnectionLost
from robo_hw.transport.credentials import Credentials
from robo_hw.transport.gate import Gate
from robo_hw.transport.images import ImageLayout
from robo_hw.transport.limits import HELLO
from robo_hw.transport.messages import FROM_CLIENT
from robo_hw.transport.reports import Timeouts
from robo_hw.transport.served import ServedPolicy, ServedProgress, ServerInfo
from robo_hw.transport.session import Session
from robo_hw.transport.workers import Worker, policy_worker, progress_worker

_MOST_CLIENTS = 8
_MOST_MONITORS = _MOST_CLIENTS - 1
"""One place is always the bridge's."""


class PolicyServer:
    """Serves until ``close``. ``epoch`` names this run: no answer of an earlier run passes as its own.

    Args:
        contract: of the arm; a client with another contract is refused, naming the fields.
        address: ``unix:NAME``, ``unix:/path``, ``tcp://127.0.0.1:port`` or ``tls://host:port`` (port 0: the system
            chooses, see ``address``).
        policy: what answers with chunks, or None.
        progress: what answers with progress, or None.
        timeouts: seconds.
        report: called with one line when something happens.
        credentials: what proves this side, and what each client must prove; by default a Unix socket's clients must run
            as this user, and those of a TCP port know this user's secret.
        clock: a steady clock for the stamps that clients work out the clocks' offset from.

    Raises:
        AddressError: the address is wrong, taken, or open to other users.
        CredentialsError: the secret or a certificate is missing or wrong.
        TransportError: there is nothing to serve, or the policy does not fit the contract.
    """

    def __init__(
        self,
        contract: RobotContract,
        address: str,
        policy: ServedPolicy | None = None,
        progress: ServedProgress | None = None,
        timeouts: Timeouts | None = None,
        report: Callable[[str], None] | None = None,
        credentials: Credentials | None = None,
        clock: Clock | None = None,
    ) -> None:
        if policy is None and progress is None:
            raise TransportError("nothing to serve: give a policy, a reward model, or both")
        self.contract = contract
        self.layout = ImageLayout(contract)
        self.timeouts = timeouts or Timeouts()
        self.epoch = int.from_bytes(os.urandom(6), "big") + 1
        self.info = ServerInfo(
            self.epoch,
            policy.info if policy else None,
            contract.rates.actions,
            dict(progress.needs) if progress else {},
            progress.rate if progress else 0.0,
            tuple(progress.stages) if progress else (),
        )
        self.report = report or (lambda text: None)
        # First of all that has to be given back: an address that is taken leaves nothing behind.
        parsed, given = Address.parse(address), credentials or Credentials()
        authenticate = given.server(parsed)
        self.clock = clock or SteadyClock()
        self._listening = parsed.listen(given.trusted(), given.shared_folder)
        self.address = parsed.bound(self._listening)
        self._identity = _identity(self.address)
        self.workers: dict[str, Worker] = {}
        if policy is not None:
            self.workers["chunk"] = policy_worker(policy, contract, self.report)
        if progress is not None:
            self.workers["progress"] = progress_worker(progress, self.report)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._sessions: set[Session] = set()
        self._threads: list[threading.Thread] = []
        self._gate = Gate(
            self._listening, authenticate, self._admit, self._full, self.report, self.timeouts.authenticate
        )

    def __enter__(self) -> PolicyServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def sessions(self) -> int:
        """Connections now."""
        with self._lock:
            return len(self._sessions)

    @property
    def refused(self) -> int:
        """Connections so far that did not prove who they are, or found no place."""
        return self._gate.refused

    def claim(self, session: Session, role: str) -> str:
        """Give ``session`` its role; returns why it cannot have it, or "".

        A client that comes again while the server still believes in its old connection takes its own place.
        """
        with self._lock:
            others = [other for other in self._sessions if other is not session]
            for old in [other for other in others if other.client == session.client]:
                old.controls = old.monitors = False
                old.interrupt()
            if role == "control":
                if any(other.controls for other in others):
                    return "another bridge is connected; one arm has one bridge"
                session.controls = True
                return ""
            if sum(other.monitors for other in others) >= _MOST_MONITORS:
                return f"{_MOST_MONITORS} monitors are connected, no more have room"
            session.monitors = True
            return ""

    def counts(self) -> dict[str, float]:
        """How much was answered so far, and how long it took: for a log or metrics."""
        return {
            f"{name}_{key}": value for name, worker in self.workers.items() for key, value in worker.counts().items()
        }

    def close(self) -> None:
        """Stop serving, free the address, end all threads. A network that is computing is waited for, at most 5 s."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._gate.close()
        if self.address.path and _identity(self.address) == self._identity:
            Path(self.address.path).unlink(missing_ok=True)  # only our own: another server may have taken the name
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.interrupt()  # its own thread lets go of what it holds
        for worker in self.workers.values():
            worker.close()
        for thread in self._threads:
            thread.join(5.0)

    def _full(self) -> str:
        """Why a client that proved itself finds no place, or ""; the longest silent one makes room."""
        with self._lock:
            # Those that are closing have let go of their place.
            present = [session for session in self._sessions if not session.leaving]
            if len(present) < _MOST_CLIENTS:
                return ""
            silent = min((one for one in present if not one.greeted), key=lambda one: one.since, default=None)
            if silent is None:
                return f"{_MOST_CLIENTS} clients are connected, no more have room"
            silent.interrupt()
            return ""

    def _admit(self, channel: Channel) -> None:
        session = Session(self, Connection(channel, FROM_CLIENT, HELLO, self.timeouts))
        with self._lock:
            self._sessions.add(session)
        thread = threading.Thread(target=self._serve, args=(session,), name="policy-session", daemon=True)
        self._threads = [old for old in self._threads if old.is_alive()] + [thread]
        thread.start()

    def _serve(self, session: Session) -> None:
        try:
            session.run()
        except ConnectionLost as lost:
            if not self._closing.is_set():
                self.report(f"{session.name} has gone: {lost}")
        finally:
            session.close()
            with self._lock:
                self._sessions.discard(session)
            for worker in self.workers.values():
                worker.forget(session)


def _identity(address: Address) -> tuple[int, int] | None:
    """Which file the socket's name stands for."""
    if not address.path:
        return None
    try:
        found = os.stat(address.path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
