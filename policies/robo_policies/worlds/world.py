"""What a world of robo-rm has beside a Gymnasium environment: what recording, evaluation and training rely on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from robo_core.errors import ConfigError

Actions = Iterator[np.ndarray]

QUALITIES = ("clean", "slow", "wandering", "drop_and_regrasp", "stops_partway", "wrong_order")
"""How well a demonstration goes, in every world that has a scripted operator; the last two are failures."""
MIXED = "mixed"


def check_quality(quality: str) -> None:
    """Raise ``ConfigError`` where ``quality`` is none of ``QUALITIES``."""
    if quality not in QUALITIES:
        raise ConfigError(f"quality={quality!r} is unknown; choose one of: {', '.join((*QUALITIES, MIXED))}")


class World(Protocol):
    """A Gymnasium environment whose observations are keyed like a store's.

    ``info`` of ``reset`` and ``step`` holds ``success`` (bool), ``stage`` (index into ``stages``), ``stage_name`` and
    ``progress`` (in [0, 1], the true one). The reward is 1 on success, which ends the episode, and 0 before.
    """

    @property
    def name(self) -> str:
        """What ``make_env`` calls it."""

    @property
    def task(self) -> str:
        """The instruction, one sentence."""

    @property
    def stages(self) -> Sequence[str]:
        """Names of the stages, in order."""

    @property
    def fps(self) -> float:
        """Decisions per second."""

    @property
    def state_names(self) -> Sequence[str]:
        """Names of the values of ``observation.state``."""

    @property
    def environment_state_names(self) -> Sequence[str]:
        """Names of the values of ``observation.environment_state``."""

    @property
    def action_names(self) -> Sequence[str]:
        """Names of the values of an action."""

    def reset(self, *, seed: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode, fixed by ``seed``."""

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Carry out one decision."""

    def render_cameras(self, cameras: Sequence[str]) -> dict[str, np.ndarray]:
        """Images of the present state, keyed ``observation.images.<camera>``, each (H, W, 3) uint8 RGB."""

    def demonstrate(self, quality: str, random: np.random.Generator) -> Actions:
        """Actions of a scripted operator from the present state; step the world between them."""

    def close(self) -> None:
        """Free what rendering holds."""
