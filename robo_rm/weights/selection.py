"""Simpler ways to prefer some demonstrations over others, to compare reward-aligned weights with.

Success-only and top-fraction filtering keep or drop whole episodes. Advantage labels sort frames into three classes by
how much better they did than other frames that were as far along.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robo_core.errors import ConfigError
from robo_rm.labels.outcomes import HOW_TO_MARK
from robo_rm.weights.options import Advantage, TopFraction


def success_only(success: Sequence[bool | None]) -> np.ndarray:
    """(E,) 1 for each episode marked as a success, 0 for the others.

    Raises:
        ConfigError: no episode is marked as a success.
    """
    chosen = np.array([outcome is True for outcome in success], np.float64)
    if not chosen.any():
        unknown = sum(outcome is None for outcome in success)
        of = f" ({unknown} have no outcome: {HOW_TO_MARK})" if unknown else ""
        raise ConfigError(f"mode=success_only: no episode is marked as a success, so nothing would be kept{of}")
    return chosen


def top_fraction(episodes: Sequence[np.ndarray], settings: TopFraction) -> np.ndarray:
    """(E,) 1 for the best episodes, at least one, 0 for the others.

    Args:
        episodes: progress of each, (T,).
        settings: how many, and what is best. Of equals, the one with the greater mean progress, then the earlier one.
    """
    final = np.array([progress[-1] for progress in episodes], np.float64)
    mean = np.array([progress.mean() for progress in episodes], np.float64)
    best = np.lexsort((-mean, -final)) if settings.by == "final_progress" else np.lexsort((-final, -mean))
    chosen = np.zeros(len(episodes))
    chosen[best[: max(1, round(settings.fraction * len(episodes)))]] = 1.0
    return chosen


def advantage_labels(deltas: np.ndarray, progress: np.ndarray, settings: Advantage) -> np.ndarray:
    """(N,) int8: 1 for frames with a clear advantage, -1 for a clear disadvantage, 0 between.

    The advantage is A = r - V: what the frame achieved over the horizon, less what frames that were as far along
    achieve on average (as an advantage over a value function, with the mean over a bin of progress for the value).

    Args:
        deltas: (N,) r of each frame.
        progress: (N,) F of each frame.
        settings: fractions of the classes, and bins of progress.
    """
    edges = np.linspace(0.0, 1.0, settings.bins + 1)[1:-1]
    bins = np.searchsorted(edges, progress, side="right")
    count = np.bincount(bins, minlength=settings.bins)
    value = np.bincount(bins, deltas, settings.bins) / np.maximum(count, 1)
    advantage = deltas - value[bins]
    low, high = np.quantile(advantage, [settings.negative, 1.0 - settings.positive])
    # Where many frames are alike, a quantile may fall on their advantage: they are neither better nor worse.
    return (advantage > high).astype(np.int8) - (advantage < low).astype(np.int8)
