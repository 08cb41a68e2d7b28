"""Statistics of features in LeRobot's form: min, max, mean, std, count and quantiles, an episode at a time.

Low-dimensional features: one value per element. Images: one value per channel on the scale 0 to 1, shape (C, 1, 1),
from evenly spaced frames, which is what LeRobot's normalisation expects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

# Images are described by about this many frames an episode, each thinned to about this many pixels a side.
_FRAMES = 100
_SIDE = 150

Nested = float | list["Nested"]
"""Numbers in nested lists, as JSON has arrays."""
Statistics = dict[str, Nested]
"""Name of a statistic to its values; "count" is [frames]."""


def row_statistics(rows: np.ndarray) -> Statistics:
    """Statistics of (T, *shape) rows over T, each (*shape,) as nested lists; images in 16 bits give one a channel.

    Raises:
        ValueError: there are no rows.
    """
    axes: tuple[int, ...] = (0,)
    values = rows.astype(np.float64)
    if rows.ndim == 1:
        values = values[:, None]
    if rows.ndim == 4:
        axes = (0, 1, 2)
    found = {
        "min": values.min(axes),
        "max": values.max(axes),
        "mean": values.mean(axes),
        "std": values.std(axes),
    }
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=axes)
    found |= dict(zip(QUANTILES, quantiles, strict=True))
    return {**{name: value.tolist() for name, value in found.items()}, "count": [len(rows)]}


class PixelCounts:
    """Counts how often each level occurs in each channel of uint8 frames; statistics follow exactly from that."""

    def __init__(self, length: int, channels: int) -> None:
        self._every = max(1, length // _FRAMES)
        self._levels = np.zeros((channels, 256), np.int64)
        self._seen = 0
        self._used = 0

    def add(self, frame: np.ndarray) -> None:
        """Take in the next frame (H, W, C) of the episode."""
        if self._seen % self._every == 0:
            step = max(1, max(frame.shape[:2]) // _SIDE)
            thin = frame[::step, ::step]
            for channel, levels in enumerate(self._levels):
                levels += np.bincount(thin[..., channel].ravel(), minlength=256)
            self._used += 1
        self._seen += 1

    def statistics(self) -> Statistics:
        """Statistics of what was taken in, every value of shape (C, 1, 1) on the scale 0 to 1."""
        scale = np.arange(256) / 255.0
        totals = self._levels.sum(1)
        mean = self._levels @ scale / totals
        variance = np.maximum(self._levels @ scale**2 / totals - mean**2, 0)
        found = {
            "min": [float(scale[levels.nonzero()[0][0]]) for levels in self._levels],
            "max": [float(scale[levels.nonzero()[0][-1]]) for levels in self._levels],
            "mean": mean.tolist(),
            "std": np.sqrt(variance).tolist(),
        }
        cumulative = self._levels.cumsum(1)
        for name, level in QUANTILES.items():
            found[name] = [
                float(scale[np.searchsorted(row, level * total)]) for row, total in zip(cumulative, totals, strict=True)
            ]
        return {**{name: [[[value]] for value in values] for name, values in found.items()}, "count": [self._used]}


def joined_statistics(parts: Sequence[Statistics]) -> Statistics:
    """Statistics of the whole from its parts'; quantiles are means weighted by count, which is LeRobot's rule."""
    counts = np.array([part["count"] for part in parts], np.float64)[:, 0]
    arrays = {name: np.stack([np.asarray(part[name], np.float64) for part in parts]) for name in parts[0]}

    def weighted(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.tensordot(counts / counts.sum(), values, 1))

    mean = weighted(arrays["mean"])
    variance = weighted(arrays["std"] ** 2 + (arrays["mean"] - mean) ** 2)
    found = {
        "min": arrays["min"].min(0),
        "max": arrays["max"].max(0),
        "mean": mean,
        "std": np.sqrt(variance),
        **{name: weighted(arrays[name]) for name in QUANTILES},
    }
    return {**{name: value.tolist() for name, value in found.items()}, "count": [int(counts.sum())]}


def joined_by_key(episodes: Iterable[Mapping[str, Statistics]]) -> dict[str, Statistics]:
    """``joined_statistics`` for every feature of a list of episodes."""
    parts: dict[str, list[Statistics]] = {}
    for episode in episodes:
        for key, statistics in episode.items():
            parts.setdefault(key, []).append(statistics)
    return {key: joined_statistics(found) for key, found in parts.items()}
