"""What the client tells the bridge: time-outs, its state, and what has come since the last look."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from robo_hw.chunk import ActionChunk
from robo_hw.transport.served import ProgressEstimate, ServerInfo


@dataclass(frozen=True)
class Timeouts:
    """Seconds; both sides use the same defaults."""

    connect: float = 1.0
    """To get a connection."""
    handshake: float = 5.0
    """To shake hands."""
    send: float = 1.0
    """To get one frame out, and to get the rest of a frame once it has begun to come in."""
    heartbeat: float = 0.25
    """Between the client's pings."""
    silence: float = 1.5
    """Nothing heard for so long means that the other side is dead or hangs."""
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

    @property
    def server_epoch(self) -> int | None:
        """Names the server's run, while there is one."""
        return self.server.epoch if self.server else None
