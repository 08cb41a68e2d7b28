"""Carrying out action chunks: which action of which chunk an environment gets at each step."""

from __future__ import annotations

import numpy as np

from robo_core.errors import ConfigError


class ChunkPlayer:
    """Plays the action chunks of one environment.

    Without ensembling, the first ``horizon`` actions of a chunk are carried out and then a new chunk is asked for.
    With it, a chunk is asked for at every step, and an action is the mean of all that were ever predicted for it, the
    older the heavier: w_i = exp(-coefficient * i), i = 0 the oldest (ACT, algorithm 2).

    Args:
        horizon: actions carried out of each chunk.
        ensemble: the coefficient, or None for no ensembling.

    Raises:
        ConfigError: the horizon is below 1.
    """

    def __init__(self, horizon: int, ensemble: float | None = None) -> None:
        if horizon < 1:
            raise ConfigError(f"horizon={horizon} must be at least 1")
        self._horizon, self._ensemble = horizon, ensemble
        self._chunks: list[np.ndarray] = []  # what is left of each chunk, oldest first; row 0 is for the next step
        self._played = 0

    @property
    def wants_chunk(self) -> bool:
        """Whether the policy must be asked before the next action."""
        return self._ensemble is not None or not self._chunks or self._played >= self._horizon

    def add(self, chunk: np.ndarray) -> None:
        """Take a new chunk (H, A) that starts with the next action."""
        if self._ensemble is None:
            self._chunks = []
        self._chunks.append(np.asarray(chunk))
        self._played = 0

    def next(self) -> np.ndarray:
        """The next action, (A,)."""
        if self._ensemble is None:
            action = self._chunks[0][0]
        else:
            weights = np.exp(-self._ensemble * np.arange(len(self._chunks)))
            predictions = np.stack([chunk[0] for chunk in self._chunks])
            action = (weights[:, None] * predictions).sum(0) / weights.sum()
        self._chunks = [chunk[1:] for chunk in self._chunks if len(chunk) > 1]
        self._played += 1
        return action
