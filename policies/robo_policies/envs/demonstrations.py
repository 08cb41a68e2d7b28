"""What scripted demonstrations have in common: their qualities, and what an operator gives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError

Actions = Iterator[npt.NDArray[np.float32]]
"""One demonstration from an environment's present state; step the environment between the actions."""

QUALITIES = ("clean", "slow", "wandering", "drop_and_regrasp", "stops_partway", "wrong_order")
"""How well a demonstration goes, in every environment that has a scripted operator; the last two are failures."""
MIXED = "mixed"


def check_quality(quality: str) -> None:
    """Raise ``ConfigError`` where ``quality`` is not one of ``QUALITIES``."""
    if quality not in QUALITIES:
        raise ConfigError(f"quality={quality!r} is unknown; choose one of: {', '.join((*QUALITIES, MIXED))}")
