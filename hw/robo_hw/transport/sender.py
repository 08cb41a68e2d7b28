"""When a policy server gets an observation: for the next chunk, for progress, and at every step it looks back on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robo_hw.observation.observation_buffer import NamedVector, ObservationBuffer, unmet_needs
from robo_hw.observation.states import State
from robo_hw.safety.safety_core import SafetyCore
from robo_hw.transport.client import PolicyClient
from robo_hw.transport.reports import ClientState

_EARLY = 0.95
"""Of a period: a control tick that comes a little early still counts as the next step."""


class ObservationSender:
    """Sends the newest observation when one is due; one thread uses it, once in every control period.

    Args:
        core: says what the arm does, and which epoch it is.
        client: of the policy server.
        buffer: the newest of every input.
        vectors: further inputs that this robot gives.
        horizon: actions between two observations for chunks; 0: as the policy says.
        progress: whether the reward model gets observations, too.
    """

    def __init__(
        self,
        core: SafetyCore,
        client: PolicyClient,
        buffer: ObservationBuffer,
        vectors: Sequence[NamedVector],
        horizon: int = 0,
        progress: bool = False,
    ) -> None:
        self._core, self._client, self._buffer, self._vectors = core, client, buffer, vectors
        self._horizon, self._progress = horizon, progress
        self._period = 1.0 / core.contract.rates.actions
        self._epoch, self._epoch_at = -1, -np.inf
        self._asked_epoch, self._asked_at = -1, -np.inf
        self._sent_at = self._progress_at = -np.inf

    def needs(self) -> dict[str, tuple[int, ...]]:
        """What the served policy reads, key -> shape."""
        server = self._client.status().server
        return dict(server.policy.needs) if server is not None and server.policy is not None else {}

    def start_poses(self) -> dict[str, Sequence[float]] | None:
        """Joint -> (low, high) of the demonstrations' first states, as the served policy says."""
        server = self._client.status().server
        return dict(server.policy.start_poses) if server is not None and server.policy is not None else None

    def problems(self) -> list[str]:
        """Why the served policy cannot move this arm, one line each; empty where it can."""
        status = self._client.status()
        if status.state is not ClientState.CONNECTED or status.server is None:
            return [f"no policy server at {self._client.address}: {status.message or status.state.value}"]
        if status.server.policy is None:
            return ["the server serves no policy, only a reward model; start robo-rm serve-policy with policy=FOLDER"]
        return unmet_needs(status.server.policy.needs, self._core.contract, self._vectors)

    def send(self, now: float) -> tuple[str, ...]:
        """Send an observation if one is due at ``now`` (s, steady clock); returns what was asked for with it."""
        server, core = self._client.status().server, self._core
        if server is None or core.state not in (State.HOLDING, State.RUNNING):
            return ()
        policy = server.policy
        needs = server.needs if self._progress else self.needs()
        if core.epoch != self._epoch:
            self._epoch, self._epoch_at = core.epoch, now
        want = []
        if policy is not None:
            # After a stop at once: an answer to an earlier epoch's observation would only be dropped.
            wait = (self._horizon or policy.execution_horizon) * self._period
            if core.epoch != self._asked_epoch or now - self._asked_at >= wait:
                want.append("chunk")
        if self._progress and server.has_progress and now - self._progress_at >= _EARLY / server.progress_rate:
            want.append("progress")
        # A policy that looks back sees every action period, wanted or not.
        looks_back = policy is not None and policy.history > 1 and now - self._sent_at >= _EARLY * self._period
        if not (want or looks_back) or (policy is not None and self.problems()):
            return ()
        # What was seen before the epoch began must not be acted on in it.
        observation = self._buffer.snapshot(needs, now, self._epoch_at)
        if observation is None or not self._client.send_observation(
            observation.names,
            observation.positions,
            images=observation.images,
            arrays=observation.arrays,
            observed_at=observation.observed_at,
            epoch=core.epoch,
            consumed=core.status().consumed,
            want=want,
        ):
            return ()
        self._sent_at = now
        if "chunk" in want:
            self._asked_at, self._asked_epoch = now, core.epoch
        if "progress" in want:
            self._progress_at = now
        return tuple(want)
