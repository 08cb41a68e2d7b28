"""What the client tells the bridge: time-outs, its state, and what has come since the last look."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from robo_hw.safety.chunk import ActionChunk
from robo_hw.transport.served import ProgressEstimate, ServerInfo


@dataclass(frozen=True)
class Timeouts:
    """Seconds; both sides use the same defaults."""

    connect: float = 1.0
    """To get a connection."""
    authenticate: float = 3.0
    """To prove who one is, all steps together; a connection that has not done so by then is closed."""
    handshake: float = 5.0
    """To shake hands."""
    send: float = 1.0
    """To get one frame out, and to get the rest of a frame once it has begun to come in; longer for a long one."""
    slowest: float = 1e6
    """Bytes a second that a long frame has to make at least, behind ``send``."""
    answer: float = 2.0
    """An observation that has waited so long for its answer, while pings are answered, means that the policy hangs."""
    heartbeat: float = 0.25
    """Between the client's pings."""
    silence: float = 1.5
    """Nothing received for so long means that the other side is dead or hangs."""
    retry: float = 0.25
    """Between two attempts to connect."""
    retry_refused: float = 2.0
    """After a handshake that was refused: only a person can change that."""


class ClientState(Enum):
    """What the client is doing."""

    CLOSED = "closed"
    """Not started, or ended."""
    CONNECTING = "connecting"
    """No server; it tries again and again."""
    CONNECTED = "connected"
    """The handshake is done."""
    REFUSED = "refused"
    """The server does not fit; the message names the field."""


@dataclass(frozen=True)
class Update:
    """What has come since the last ``poll``.

    ``restarted``: another run of the server has taken over; call ``SafetyCore.new_epoch`` before anything else.
    ``lost``: the connection ended. ``chunk``: for ``SafetyCore.submit``; ``progress``: advisory.
    """

    restarted: bool = False
    lost: bool = False
    chunk: ActionChunk | None = None
    progress: ProgressEstimate | None = None


@dataclass(frozen=True)
class ClientStatus:
    """For diagnostics."""

    state: ClientState
    message: str
    server: ServerInfo | None
    connections: int
    """Handshakes so far."""
    sent: int
    not_sent: int
    """Observations that were replaced by a newer one, or found no connection or no room."""
    chunks: int
    estimates: int
    stale: int
    """Answers of an earlier run of the server, or of an earlier episode: dropped."""
    errors: int
    """Observations that the server could not use."""
    policy_error: str
    """Why the last of them could not be used."""
    round_trip: float | None
    """Seconds between handing over the observation and receiving its chunk, the last one."""
    inference: float | None
    """Of these, seconds spent by the policy."""
    last_chunk_at: float | None
    """When the last chunk came, by the client's clock, s."""
    unanswered: float | None = None
    """Seconds that the oldest observation without an answer has waited; None where none waits."""
    busy: float = 0.0
    """Seconds that the network had been computing on one observation when the server last said so."""
    hung: str = ""
    """What to tell a person where the server answers and its policy does not; empty otherwise."""
    clock_offset: float | None = None
    """The server's steady clock minus this computer's, s, by the pings that travelled shortest."""
    clock_uncertainty: float | None = None
    """Half of the shortest round trip: the true offset lies within so much of ``clock_offset``."""
    uplink: float | None = None
    """Of the last round trip, seconds from handing the observation over to its arrival at the server."""
    downlink: float | None = None
    """Of the last round trip, seconds from the server's answer to its arrival here."""

    @property
    def server_epoch(self) -> int | None:
        """Names the server's run, while there is one."""
        return self.server.epoch if self.server else None
