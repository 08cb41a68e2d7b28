"""The bridge's side: hands observations to the policy server and takes chunks from it, and never waits.

    with PolicyClient(contract, "unix:policy", clock) as client:
        ...every control tick...
        client.send_observation(names, positions, images, observed_at=clock.now(), epoch=core.epoch)
        update = client.poll()
        if update.restarted:
            core.new_epoch("the policy server restarted")
        elif update.chunk is not None:
            core.submit(update.chunk)

A thread of its own connects, and connects again whenever the server dies or hangs. Nothing that an earlier run of the
server made is ever handed out after the connection to it is lost.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import ObservationError, TransportError
from robo_hw.safety.chunk import ActionChunk
from robo_hw.safety.clock import Clock, SteadyClock
from robo_hw.safety.watch import JointOrder
from robo_hw.transport.address import Address
from robo_hw.transport.connection import ConnectionLost
from robo_hw.transport.credentials import Credentials
from robo_hw.transport.images import SLOTS, ImageLayout
from robo_hw.transport.limits import MOST_NUMBERS
from robo_hw.transport.link import Link, Pending, Refused, Target
from robo_hw.transport.messages import Message
from robo_hw.transport.reports import ClientState, ClientStatus, Timeouts, Update
from robo_hw.transport.served import IMAGES, STATE, ProgressEstimate, ServerInfo

WANTS = ("chunk", "progress")
_REMEMBERED = 256


class PolicyClient:
    """Talks to one policy server. Its public methods may be called from any thread, and none of them waits.

    Args:
        contract: of the arm; the server must have the same.
        address: ``unix:NAME``, ``unix:/path``, ``tcp://127.0.0.1:port`` or ``tls://host:port``.
        clock: the safety core's; all stamps are by it.
        role: ``control`` (chunks and progress; one at a time) or ``monitor`` (progress only).
        task: the instruction.
        timeouts: seconds.
        credentials: what proves this side, and what the server must prove, again on each connection; by default a
            Unix socket's server must run as this user, and a TCP server know this user's secret.

    Raises:
        AddressError: the address is wrong.
        CredentialsError: the secret or a certificate is missing or wrong.
        TransportError: the role is unknown, or the task is too long.
    """

    def __init__(
        self,
        contract: RobotContract,
        address: str,
        clock: Clock | None = None,
        role: str = "control",
        task: str = "",
        timeouts: Timeouts | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        if role not in ("control", "monitor"):
            raise TransportError(f"role {role!r} is neither control nor monitor")
        self.contract = contract
        self.address = Address.parse(address).for_client()
        given = credentials or Credentials()
        self._target = Target(
            self.address, given.client(self.address), secrets.token_hex(16), given.trusted(), given.shared_folder
        )
        self.role = role
        self._clock = clock or SteadyClock()
        self._timeouts = timeouts or Timeouts()
        self._layout = ImageLayout(contract)
        self._order = JointOrder(contract.joint_names)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._link: Link | None = None
        # What the lock guards:
        self._task = _checked_task(task)
        self._state, self._message = ClientState.CLOSED, "not connected yet"
        self._server: ServerInfo | None = None
        self._sequence = self._episode = 0
        self._handed: OrderedDict[int, float] = OrderedDict()
        self._chunk: ActionChunk | None = None
        self._progress: ProgressEstimate | None = None
        self._restarted = self._lost = False
        self._last_epoch: int | None = None
        self._count = dict.fromkeys(("connections", "sent", "not_sent", "chunks", "estimates", "stale", "errors"), 0)
        self._policy_error = ""
        self._round_trip: float | None = None
        self._inference: float | None = None
        self._last_chunk_at: float | None = None
        self._waiting: dict[str, OrderedDict[int, float]] = {want: OrderedDict() for want in WANTS}
        self._uplink: float | None = None
        self._downlink: float | None = None

    def __enter__(self) -> PolicyClient:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What the bridge calls ------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Start to look for the server, and return at once."""
        with self._lock:
            if self._thread is not None:
                return
            self._closing.clear()
            self._state, self._message = ClientState.CONNECTING, f"looking for a server at {self.address}"
            self._thread = threading.Thread(target=self._run, name="policy-client", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the connection. This is the one call that may wait: for the thread, a moment."""
        with self._lock:
            thread, link = self._thread, self._link
            self._thread = None
            self._closing.set()
        if link is not None:
            link.interrupt()
        if thread is not None:
            thread.join(self._timeouts.handshake + self._timeouts.connect)
        with self._lock:
            self._state, self._message = ClientState.CLOSED, "closed"

    def send_observation(
        self,
        names: Sequence[str],
        positions: npt.ArrayLike,
        images: Mapping[str, npt.ArrayLike] | None = None,
        arrays: Mapping[str, npt.ArrayLike] | None = None,
        *,
        observed_at: float,
        epoch: int = 0,
        consumed: float = 0.0,
        want: Sequence[str] = WANTS,
    ) -> bool:
        """Hand over an observation; the newest wins, one that is not under way yet is replaced.

        Args:
            names: joint names, in any order, others among them.
            positions: (N,) in the contract's units.
            images: camera name -> (H, W, 3) uint8 RGB of the contract's size; copied.
            arrays: further features, key -> (N,) numbers, e.g. ``observation.environment_state``.
            observed_at: the clock's time of the observation, s.
            epoch: the core's ``epoch``, read together with the observation; the chunk will carry it.
            consumed: the core's ``status().consumed`` at that moment.
            want: ``chunk``, ``progress``, or both.

        Returns:
            Whether it will be sent. False: no connection, no room (all slots under way), a joint missing or a number
            that is not finite; ``status().message`` says which.

        Raises:
            ObservationError: a camera or a wish is unknown, an image has the wrong size, or a feature's name is taken.
        """
        for wish in want:
            if wish not in WANTS:
                raise ObservationError(f"want: {wish!r} is neither chunk nor progress")
        checked = self._layout.checked(images or {})
        further = _checked_arrays(arrays or {})
        state, _, problem = self._order.take(names, positions)
        if state is not None and not all(np.isfinite(array).all() for array in further.values()):
            state, problem = None, "a further feature holds a number that is not finite"
        with self._lock:
            link, server = self._link, self._server
            if state is None or link is None or server is None:
                self._count["not_sent"] += 1
                if state is None:
                    self._message = f"an observation was not sent: {problem}"
                return False
            checked = {name: image for name, image in checked.items() if IMAGES + name in server.needs}
            self._sequence += 1
            header = {
                "type": "observation",
                "epoch": server.epoch,
                "sequence": self._sequence,
                "episode": self._episode,
                "observed_at": float(observed_at),
                "core_epoch": int(epoch),
                "consumed": max(float(consumed), 0.0),
                "want_chunk": "chunk" in want and self.role == "control",
                "want_progress": "progress" in want,
                "state": state,
                "arrays": further,
            }
            replaced, taken = link.put(Pending(header, checked))
            self._count["not_sent"] += replaced + (not taken)
            if not taken:
                self._message = f"an observation was not sent: {SLOTS} are on their way and not taken yet"
            self._count["sent"] += taken - replaced
            if taken:
                self._remember(header, server)
            return taken

    def _remember(self, header: Message, server: ServerInfo) -> None:
        now = self._handed[self._sequence] = time.monotonic()
        while len(self._handed) > _REMEMBERED:
            self._handed.popitem(last=False)
        served = {"chunk": server.policy is not None, "progress": server.has_progress}
        for want, waiting in self._waiting.items():
            # The oldest tells how long it takes; where hundreds wait, the newest may be left out.
            if header[f"want_{want}"] and served[want] and len(waiting) < _REMEMBERED:
                waiting[self._sequence] = now

    def _resolve(self, sequence: int, wants: Sequence[str]) -> None:
        """An answer also settles the observations before: the server skips those that a newer one overtakes."""
        for want in wants:
            waiting = self._waiting[want]
            while waiting and next(iter(waiting)) <= sequence:
                waiting.popitem(last=False)

    def poll(self) -> Update:
        """What has come since the last call; cheap, call it every tick."""
        with self._lock:
            update = Update(self._restarted, self._lost, self._chunk, self._progress)
            self._restarted = self._lost = False
            self._chunk = self._progress = None
        return update

    def start_episode(self, task: str | None = None) -> None:
        """A new episode, with another instruction where one is given: the server forgets the past one, and answers to
        its observations are dropped."""
        with self._lock:
            if task is not None:
                self._task = _checked_task(task)
            self._episode += 1
            self._chunk = self._progress = None
            self._forget_waiting()
            if self._link is not None:
                self._link.tell({"type": "episode", "episode": self._episode, "task": self._task})

    def status(self) -> ClientStatus:
        """A snapshot for diagnostics."""
        with self._lock:
            link = self._link
            offset, uncertainty = (link.offset.best if link else None) or (None, None)
            unanswered, busy = self._unanswered(), link.busy if link else 0.0
            return ClientStatus(
                self._state,
                self._message,
                self._server,
                **self._count,
                policy_error=self._policy_error,
                round_trip=self._round_trip,
                inference=self._inference,
                last_chunk_at=self._last_chunk_at,
                unanswered=unanswered,
                busy=busy,
                hung=self._hung(unanswered, busy),
                clock_offset=offset,
                clock_uncertainty=uncertainty,
                uplink=self._uplink,
                downlink=self._downlink,
            )

    def _unanswered(self) -> float | None:
        since = [next(iter(waiting.values())) for waiting in self._waiting.values() if waiting]
        return time.monotonic() - min(since) if since else None

    def _hung(self, unanswered: float | None, busy: float) -> str:
        if self._state is not ClientState.CONNECTED or (unanswered or 0.0) <= self._timeouts.answer:
            return ""
        doing = f"it computes on one observation since {busy:.1f} s" if busy > self._timeouts.answer else "it is silent"
        return f"the policy server answers, its policy has not for {unanswered:.1f} s; {doing}"

    def _forget_waiting(self) -> None:
        for waiting in self._waiting.values():
            waiting.clear()

    # The thread -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            wait = self._timeouts.retry
            link = None
            try:
                link = Link(self.contract, self._target, self._layout, self._timeouts, SLOTS)
                with self._lock:
                    if self._closing.is_set():
                        return
                    task = self._task
                server = link.shake_hands(self.role, task)
                self._connected(link, server)
                while True:
                    self._take(link.exchange())
            except Refused as error:
                self._ended(ClientState.REFUSED, str(error))
                wait = self._timeouts.retry_refused
            except ConnectionLost as error:
                self._ended(ClientState.CONNECTING, f"{self.address}: {error}")
            finally:
                with self._lock:
                    self._link = None
                if link is not None:
                    link.close()
            self._closing.wait(wait)

    def _connected(self, link: Link, server: ServerInfo) -> None:
        with self._lock:
            self._link, self._server = link, server
            self._state, self._message = ClientState.CONNECTED, f"connected to {self.address}"
            self._count["connections"] += 1
            # A connection to the same run that broke and came back is not a restart, but its sessions restart.
            self._restarted = self._restarted or self._last_epoch not in (None, server.epoch)
            self._last_epoch = server.epoch
            self._policy_error = ""
            link.tell({"type": "episode", "episode": self._episode, "task": self._task})

    def _ended(self, state: ClientState, message: str) -> None:
        with self._lock:
            self._lost = self._lost or self._server is not None
            self._server = self._link = None
            self._chunk = self._progress = None  # nothing of a server that is gone reaches the arm
            self._handed.clear()
            self._forget_waiting()
            self._state, self._message = state, message

    def _take(self, message: Message | None) -> None:
        if message is None:
            return
        with self._lock:
            server, kind = self._server, message["type"]
            if server is None or message["epoch"] != server.epoch:
                self._count["stale"] += 1
                return
            if kind == "error":
                self._count["errors"] += 1
                self._resolve(message["sequence"], WANTS)
                self._policy_error = message["message"]
                return
            if message["episode"] != self._episode:
                self._count["stale"] += 1
                return
            self._resolve(message["sequence"], (kind,))
            if kind == "chunk":
                self._take_chunk(message, server)
            elif kind == "progress":
                self._count["estimates"] += 1
                fields = ("progress", "stage", "stage_name", "uncertainty", "observed_at")
                verdict = ("verdict", "false_alarm_rate", "message")
                self._progress = ProgressEstimate(*(message[name] for name in (*fields, *verdict)))

    def _take_chunk(self, message: Message, server: ServerInfo) -> None:
        handed = self._handed.pop(message["sequence"], None)
        if handed is None:  # never asked, or asked too long ago
            self._count["stale"] += 1
            return
        self._count["chunks"] += 1
        now = time.monotonic()
        self._round_trip = now - handed
        known = self._link.offset.best if self._link else None
        if known is not None:
            self._uplink = message["received"] - known[0] - handed
            self._downlink = now - (message["answered"] - known[0])
        self._inference = message["seconds"]
        self._last_chunk_at = self._clock.now()
        self._chunk = ActionChunk(
            message["actions"],
            message["joints"],
            message["core_epoch"],
            message["sequence"],
            message["observed_at"],
            (server.policy.contract_hash if server.policy else "") or None,
        )


def _checked_task(task: str) -> str:
    if not isinstance(task, str) or len(task) > 2000:
        raise TransportError("the task is not a text of at most 2000 characters")
    return task


def _checked_arrays(arrays: Mapping[str, npt.ArrayLike]) -> dict[str, np.ndarray]:
    checked = {}
    for key, values in arrays.items():
        if key == STATE or key.startswith(IMAGES):
            raise ObservationError(f"{key}: give joint positions and images by their own arguments")
        try:
            with np.errstate(over="ignore"):  # infinite then, and not sent
                array = np.asarray(values).astype(np.float32)
        except (TypeError, ValueError) as error:
            raise ObservationError(f"{key}: not numbers ({error})") from None
        if array.ndim != 1:
            raise ObservationError(f"{key}: shape {array.shape}; a vector is needed")
        checked[key] = array.copy()
    if sum(array.size for array in checked.values()) > MOST_NUMBERS:
        raise ObservationError(f"the further features have more than {MOST_NUMBERS} numbers")
    return checked
