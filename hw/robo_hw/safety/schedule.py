"""How the actions of a new chunk are put together with the motion that is under way.

Chunks are merged on the path, by the number of actions really consumed since their observation, never by an estimate of
latency: while the arm runs slower than nominal, fewer actions are consumed and the chunk is taken up further back.
"""

from __future__ import annotations

import math

import numpy as np

MODES = ("latest", "temporal_ensemble", "real_time")
LEAD = 2
"""Action i of a chunk observed at path parameter x becomes control point x + LEAD + i, which the path passes one action
period later (control point c is passed at x = c - 1): the end of the period in which a step-by-step run would aim at
it."""


def actions_at(actions: np.ndarray, observed: float, indices: np.ndarray) -> np.ndarray:
    """The chunk's actions at control point ``indices`` (M,), between two actions where the observation fell between
    two.

    ``actions`` (H, D); ``observed``: absolute path parameter at the observation. Returns (M, D). Between two actions,
    a Catmull-Rom cubic through the four around is taken, held within the range of these four: straight lines would cut
    the corners of a smooth motion by another amount in every chunk, and chunks of one motion would not agree.
    """
    last = len(actions) - 1
    place = np.clip(indices - observed - LEAD, 0.0, float(last))
    index = np.minimum(place.astype(np.int64), last)
    t = (place - index)[:, None]
    around = [actions[np.clip(index + offset, 0, last)] for offset in (-1, 0, 1, 2)]
    a, b, c, d = around
    # Beyond the ends the motion is continued in a straight line.
    a = np.where((index < 1)[:, None], 2 * b - c, a)
    d = np.where((index > last - 2)[:, None], 2 * c - b, d)
    # Catmull-Rom: b + t/2 (c - a) + t^2/2 (2a - 5b + 4c - d) + t^3/2 (3 (b - c) + d - a)
    cubic = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return np.minimum(np.maximum(cubic, np.minimum.reduce(around)), np.maximum.reduce(around))


def index_range(actions: np.ndarray, observed: float, first_free: int) -> tuple[int, int]:
    """The absolute control points [start, stop) that a chunk can set; empty where all its actions are consumed."""
    start = max(first_free, math.ceil(observed + LEAD - 1e-9))
    stop = math.floor(observed + LEAD + len(actions) - 1 + 1e-9) + 1
    return start, stop


class TemporalEnsemble:
    """Weighted mean of all predictions of one moment (ACT, arXiv 2304.13705): w_i = exp(-m i), i = 0 the oldest.

    The core multiplies w_i by ``nearness``: as published, the mean jumps where a chunk ends.
    """

    def __init__(self, decay: float = 0.01) -> None:
        self.decay = decay
        self._sums: dict[int, tuple[np.ndarray, float, int]] = {}

    def clear(self) -> None:
        """Forget every prediction, as after a stop."""
        self._sums.clear()

    def merge(self, new: np.ndarray, indices: np.ndarray, fractions: np.ndarray | None = None) -> np.ndarray:
        """Add the predictions ``new`` (M, D) of control points ``indices`` and return the means (M, D).

        ``fractions`` (M,) in (0, 1]: multiplies this chunk's weights; 1 if not given.
        """
        if len(indices):
            for old in [index for index in self._sums if index < indices[0]]:
                del self._sums[old]
        out = np.empty_like(new)
        for row, index in enumerate(indices.tolist()):
            total, weight, count = self._sums.get(index, (0.0, 0.0, 0))
            fraction = math.exp(-self.decay * count) * (1.0 if fractions is None else float(fractions[row]))
            total, weight = total + fraction * new[row], weight + fraction
            self._sums[index] = (total, weight, count + 1)
            out[row] = total / weight
        return out


def nearness(places: np.ndarray, length: int) -> np.ndarray:
    """Shares (M,) in (0, 1] of a chunk's actions ``places`` in an ensemble: less, the further ahead they lie; to none
    behind the last.

    With exp(-m i) alone the mean jumps where an old chunk ends and one prediction less counts. ``length``: H.
    """
    return np.clip((length - places) / length, 1e-3, 1.0)


def overlap_weights(places: np.ndarray, frozen: float, overlap: float) -> np.ndarray:
    """How much of the running motion to keep at each action of a new chunk, (M,) in [0, 1].

    Real-time chunking's soft mask (arXiv 2506.07339, eq. 5): with d actions frozen by the delay and the old motion
    known up to e,

        W_i = 1 for i < d;   c_i (exp(c_i) - 1) / (exp(1) - 1), c_i = (e - i) / (e - d + 1), for d <= i < e;   0 beyond.
    """
    c = np.clip((overlap - places) / max(overlap - frozen + 1.0, 1.0), 0.0, 1.0)
    weights = c * np.expm1(c) / math.expm1(1.0)
    return np.where(places < frozen, 1.0, np.where(places < overlap, weights, 0.0))
