"""Which episodes the models without stages learn from, and how they see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robo_core.errors import LabelError


class OneStage:
    """A stored episode seen as one stage from beginning to end: label t / T."""

    def __init__(self, episode: Any) -> None:
        self._episode = episode

    @property
    def stage(self) -> npt.NDArray[np.int16]:
        """(T,) zeros."""
        return np.zeros(self._episode.length, dtype=np.int16)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._episode, name)

    def __getitem__(self, key: str) -> Any:
        """A feature, as in the store."""
        return self._episode[key]

    def __contains__(self, key: object) -> bool:
        """Whether the episode has this feature."""
        return key in self._episode


def every_episode(store: Any) -> list[Any]:
    """Episodes of a store with more than one frame, labelled or not.

    Raises:
        LabelError: there is none.
    """
    episodes = [episode for episode in store if episode.length > 1]
    if not episodes:
        raise LabelError(f"{store.path} has no episode to learn from")
    return episodes


def demonstrations(episodes: Sequence[Any]) -> list[Any]:
    """Those that did not fail: what models learn from that take time for progress.

    Raises:
        LabelError: all have failed.
    """
    kept = [episode for episode in episodes if episode.success is not False]
    if not kept:
        raise LabelError("all training episodes have failed; a model that takes time for progress needs successes")
    return kept


def known_outcomes(episodes: Sequence[Any]) -> list[Any]:
    """Those whose outcome was marked; what models learn from that learn outcomes."""
    return [episode for episode in episodes if episode.success is not None]
