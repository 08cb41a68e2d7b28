"""Bringing what networks see to one order of magnitude: metres and radians differ by several.

Demonstrations alone do not tell how far values spread: a learner moves what no operator has moved, and a joint that
they held still would outshout all others. So mean and spread are those of everything seen so far, in demonstrations
and in the learner's own decisions (as in the running normalisation of SimBa, arXiv 2410.09754).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robo_core.errors import ModelError
from robo_rm.training.constant import RESOLUTION

SMALLEST_SPREAD = 0.01
"""Least scale of an observed value, in units of its own greatest magnitude and never above this number: what hardly
varied so far may well vary later, and a value in small units is not one that hardly varies."""
MOST = 10.0
"""Bound of a network's inputs, in spreads."""

Floats = npt.NDArray[np.float32]
Scaling = tuple[Floats, Floats]


def scaling_of(seen: Floats, unseen: Sequence[int] = ()) -> Scaling:
    """Mean and spread (D,) of what was observed, (n, D); no spread is less than `SMALLEST_SPREAD`.

    Args:
        seen: observations.
        unseen: columns that a network shall not see.
    """
    mean, spread = seen.mean(axis=0, dtype=np.float64), seen.std(axis=0, dtype=np.float64)
    return _finished(mean, spread, _reach(seen), unseen)


def _reach(seen: Floats) -> npt.NDArray[np.float64]:
    """Greatest magnitude (D,) of values (n, D)."""
    reach: npt.NDArray[np.float64] = np.abs(seen).max(axis=0).astype(np.float64)
    return reach


def _finished(
    mean: npt.NDArray[np.float64],
    spread: npt.NDArray[np.float64],
    reach: npt.NDArray[np.float64],
    unseen: Sequence[int],
) -> Scaling:
    least = SMALLEST_SPREAD * np.minimum(1.0, reach)
    # A value that never was anything else tells of no scale.
    least = np.where(spread <= RESOLUTION * reach, SMALLEST_SPREAD, least)
    scale = np.maximum(spread, least).astype(np.float32)
    # Anything over infinity is 0, wherever the scale is used and kept.
    scale[list(unseen)] = np.inf
    return mean.astype(np.float32), scale


class RunningScaling:
    """Mean and spread of everything added, without keeping it.

    Args:
        size: D.
        unseen: columns that a network shall not see.

    Attributes:
        count: rows added.
    """

    def __init__(self, size: int, unseen: Sequence[int] = ()) -> None:
        self.count = 0
        self._mean: npt.NDArray[np.float64] = np.zeros(size)
        self._squares: npt.NDArray[np.float64] = np.zeros(size)
        self._reach: npt.NDArray[np.float64] = np.zeros(size)
        self._unseen = tuple(unseen)

    def add(self, seen: Floats) -> None:
        """Take in rows (n, D); sums of squares are joined as by Chan, Golub and LeVeque (1983)."""
        many = len(seen)
        if not many:
            return
        mean = seen.mean(axis=0, dtype=np.float64)
        off = mean - self._mean
        total = self.count + many
        self._squares += np.square(seen - mean).sum(axis=0) + off**2 * self.count * many / total
        self._mean += off * many / total
        self._reach = np.maximum(self._reach, _reach(seen))
        self.count = total

    def scaling(self) -> Scaling:
        """Mean and scale (D,); 0 and 1 while nothing was added."""
        spread = np.sqrt(self._squares / self.count) if self.count else np.ones_like(self._mean)
        return _finished(self._mean, spread, self._reach, self._unseen)

    def snapshot(self) -> dict[str, Any]:
        """What it has taken in, in plain values."""
        sums = {"mean": self._mean, "squares": self._squares, "reach": self._reach}
        return {"count": self.count, **{name: values.tolist() for name, values in sums.items()}}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take up a `snapshot`.

        Raises:
            ModelError: it is of another size, or none.
        """
        try:
            names = ("mean", "squares", "reach")
            mean, squares, reach = (np.array(snapshot[name], dtype=np.float64) for name in names)
            count = int(snapshot["count"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the checkpoint does not say what has been seen ({error})") from error
        if mean.shape != self._mean.shape or squares.shape != mean.shape or reach.shape != mean.shape:
            raise ModelError(f"the checkpoint has seen {mean.size} values, this world gives {self._mean.size}")
        self.count, self._mean, self._squares, self._reach = count, mean, squares, reach
