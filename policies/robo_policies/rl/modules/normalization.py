"""Normalization of network inputs by running statistics.

The statistics of demonstrations alone are not enough: a learner moves what no operator has moved, and a joint that the
operators held still would dominate all others. So mean and standard deviation are those of everything observed so far,
in demonstrations and in the learner's own transitions (as in SimBa, arXiv 2410.09754).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt
import torch

from robo_core.errors import ModelError
from robo_policies.rl.types import Floats
from robo_rm.training.constant import RESOLUTION

MIN_SCALE = 0.01
"""Minimum scale of an observed value, in units of its own maximum magnitude and never above this number: what hardly
varied so far may well vary later, and a value in small units is not one that hardly varies."""
MAX_INPUT = 10.0
"""Bound of a network's inputs, in standard deviations."""

MeanScale: TypeAlias = tuple[Floats, Floats]
"""Mean and scale (D,); the scale of an ignored column is infinite, which makes its input 0."""


class Statistics(TypedDict):
    """What `RunningMeanStd` has accumulated, in plain values."""

    count: int
    mean: list[float]
    squares: list[float]
    max_abs: list[float]


def mean_and_scale(observations: Floats, ignored: Sequence[int] = ()) -> MeanScale:
    """Mean and scale (D,) of observations (n, D); a scale is the standard deviation, but at least `MIN_SCALE`.

    Args:
        observations: (n, D).
        ignored: columns hidden from the network.
    """
    mean, std = observations.mean(axis=0, dtype=np.float64), observations.std(axis=0, dtype=np.float64)
    return _bounded(mean, std, _max_abs(observations), ignored)


def _max_abs(values: Floats) -> npt.NDArray[np.float64]:
    """Maximum magnitude (D,) of values (n, D)."""
    return np.asarray(np.abs(values).max(axis=0), dtype=np.float64)


def _bounded(
    mean: npt.NDArray[np.float64],
    std: npt.NDArray[np.float64],
    max_abs: npt.NDArray[np.float64],
    ignored: Sequence[int],
) -> MeanScale:
    minimum = MIN_SCALE * np.minimum(1.0, max_abs)
    # The magnitude of a constant value says nothing about its scale.
    minimum = np.where(std <= RESOLUTION * max_abs, MIN_SCALE, minimum)
    scale = np.maximum(std, minimum).astype(np.float32)
    # Anything over infinity is 0, wherever the scale is used or stored.
    scale[list(ignored)] = np.inf
    return mean.astype(np.float32), scale


class Normalizer:
    """(x - mean) / scale, clipped to `MAX_INPUT`: values far outside what was observed must not dominate all others.

    Args:
        size: D.
        device: cpu or cuda.
        scaling: mean and scale (D,); None for 0 and 1.
    """

    def __init__(self, size: int, device: str = "cpu", scaling: MeanScale | None = None) -> None:
        self.mean, self.scale = torch.zeros(size, device=device), torch.ones(size, device=device)
        if scaling is not None:
            self.set(*(torch.from_numpy(values) for values in scaling))

    def set(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        """Normalize by another mean and scale (D,) from now on."""
        self.mean, self.scale = mean.to(self.mean.device), scale.to(self.mean.device)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """(n, D) of (n, D)."""
        return ((values - self.mean) / self.scale).clamp(-MAX_INPUT, MAX_INPUT)


class RunningMeanStd:
    """Mean and standard deviation of everything added, without storing it.

    Args:
        size: D.
        ignored: columns hidden from the network.

    Attributes:
        count: rows added.
    """

    def __init__(self, size: int, ignored: Sequence[int] = ()) -> None:
        self.count = 0
        self._mean: npt.NDArray[np.float64] = np.zeros(size)
        self._squares: npt.NDArray[np.float64] = np.zeros(size)
        self._max_abs: npt.NDArray[np.float64] = np.zeros(size)
        self._ignored = tuple(ignored)

    def add(self, observations: Floats) -> None:
        """Add rows (n, D), by the update of Chan, Golub and LeVeque (1983).

        With n_a rows so far, n_b new ones and d = mean_b - mean_a, the sums of squared deviations M join as

            M = M_a + M_b + d^2 n_a n_b / (n_a + n_b)        mean = mean_a + d n_b / (n_a + n_b)

        which loses no digits where the mean is large against the deviation, as a sum of squares would.
        """
        added = len(observations)
        if not added:
            return
        mean = observations.mean(axis=0, dtype=np.float64)
        delta = mean - self._mean
        total = self.count + added
        self._squares += np.square(observations - mean).sum(axis=0) + delta**2 * self.count * added / total
        self._mean += delta * added / total
        self._max_abs = np.maximum(self._max_abs, _max_abs(observations))
        self.count = total

    def mean_and_scale(self) -> MeanScale:
        """Mean and scale (D,); 0 and 1 while nothing was added."""
        std = np.sqrt(self._squares / self.count) if self.count else np.ones_like(self._mean)
        return _bounded(self._mean, std, self._max_abs, self._ignored)

    def snapshot(self) -> Statistics:
        """The statistics in plain values."""
        return {
            "count": self.count,
            "mean": self._mean.tolist(),
            "squares": self._squares.tolist(),
            "max_abs": self._max_abs.tolist(),
        }

    def restore(self, snapshot: Statistics) -> None:
        """Restore a `snapshot`.

        Raises:
            ModelError: it is of another size, or not a snapshot.
        """
        try:
            mean, squares = np.array(snapshot["mean"], np.float64), np.array(snapshot["squares"], np.float64)
            max_abs, count = np.array(snapshot["max_abs"], np.float64), int(snapshot["count"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the checkpoint lacks the statistics of the observations ({error})") from error
        if mean.shape != self._mean.shape or squares.shape != mean.shape or max_abs.shape != mean.shape:
            raise ModelError(f"the checkpoint observed {mean.size} values, this environment has {self._mean.size}")
        self.count, self._mean, self._squares, self._max_abs = count, mean, squares, max_abs
