"""What a policy server serves, and what it says about it: the interface that policies and reward models meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy.typing as npt

from robo_core.arrays import Array

STATE = "observation.state"
IMAGES = "observation.images."


@dataclass(frozen=True)
class Observation:
    """One observation as a policy gets it.

    ``values``: key -> array: ``observation.state`` (D,) float32 in the contract's joint order and units,
    ``observation.images.<camera>`` (H, W, 3) uint8 RGB, and what else was sent, (N,) float32. ``observed_at``: seconds
    by the bridge's steady clock. ``past``: the values of the ``history - 1`` moments before, one action period apart,
    oldest first, the oldest known repeated at the start of an episode. ``executed``: actions really carried out since
    the observation of the last chunk, None for the first chunk of an episode; a policy that continues its own last
    chunk needs it (real-time chunking).
    """

    sequence: int
    observed_at: float
    values: Mapping[str, Array]
    executed: float | None = None
    past: tuple[Mapping[str, Array], ...] = ()


@dataclass(frozen=True)
class ProgressEstimate:
    """Where in the task the arm is, by the reward model. Advisory: nothing in the safety core looks at it."""

    progress: float
    stage: int
    stage_name: str
    uncertainty: float
    observed_at: float = 0.0
    verdict: str = "on_track"
    """``on_track``, ``done``, ``stalled``, ``failing``, or ``unknown``: the model does not know this situation."""
    false_alarm_rate: float = 0.0
    """Bound on the probability that a successful run gets this alarm; 0 where nothing is promised."""
    message: str = ""
    """What a person should know; empty while all is well."""

    @property
    def alarm(self) -> bool:
        """Whether help may be needed."""
        return self.verdict in ("stalled", "failing", "unknown")


@dataclass(frozen=True)
class PolicyInfo:
    """What a served policy is. ``needs``: key -> shape of each observation it reads."""

    name: str
    kind: str
    chunk_size: int
    execution_horizon: int
    """Actions of a chunk to carry out before the next observation is sent; at most ``chunk_size``."""
    needs: Mapping[str, tuple[int, ...]]
    contract_hash: str = ""
    """Of the contract it was trained under; empty where that was not recorded."""
    history: int = 1
    """Observations it looks at, the newest included; with more than one, send one every action period, wanted or
    not."""
    start_poses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Joint -> [low, high] of its demonstrations' first states, for ``SafetyCore.arm``; empty where unknown."""


PLAIN = ("kind", "chunk_size", "execution_horizon", "history", "contract_hash")
"""Fields of a policy that travel as they are."""
NO_POLICY = PolicyInfo("", "", 0, 0, {})
"""What a server says where it only watches progress."""


class PolicyRun(Protocol):
    """A policy during one episode."""

    def act(self, observation: Observation) -> npt.ArrayLike:
        """Actions (H, D) in the contract's joint order and units."""


class ServedPolicy(Protocol):
    """A policy that can be served."""

    info: PolicyInfo

    def start(self, task: str) -> PolicyRun:
        """Begin an episode."""


class ProgressRun(Protocol):
    """A reward model during one episode."""

    def step(self, observation: Observation) -> ProgressEstimate:
        """The estimate for the newest observation."""


class ServedProgress(Protocol):
    """A reward model that can be served."""

    needs: Mapping[str, tuple[int, ...]]
    stages: tuple[str, ...]
    rate: float
    """Frames a second that it was trained at."""

    def start(self, task: str) -> ProgressRun:
        """Begin an episode."""


@dataclass(frozen=True)
class ServerInfo:
    """What the server said at the handshake.

    ``epoch``: names this run of the server. ``policy`` is None where it only watches progress; ``progress_needs`` is
    empty where it has no reward model.
    """

    epoch: int
    policy: PolicyInfo | None
    action_rate: float
    progress_needs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    progress_rate: float = 0.0
    stages: tuple[str, ...] = ()

    @property
    def has_progress(self) -> bool:
        """Whether a reward model is served."""
        return self.progress_rate > 0

    @property
    def needs(self) -> dict[str, tuple[int, ...]]:
        """Every observation that policy and reward model read, key -> shape."""
        return {**(self.policy.needs if self.policy else {}), **self.progress_needs}
