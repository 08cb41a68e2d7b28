"""Hops: the signed relative progress between two moments (Robo-Dopamine, arXiv 2512.23703), and what is known of them.

    H(p, q) = (F_q - F_p) / (1 - F_p)  where F_q >= F_p,  else  (F_q - F_p) / F_p        in [-1, 1]

A hop forward is the share of what was still to do, a hop back the share of what had been done. The paper tells the
cases apart by time and has demonstrations that never fall back; here progress itself distinguishes them, which is
the same there and keeps the range where an episode drops what it carried.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from robo_rm.labels.progress import cumulative_priors, episode_segments, label_frames, last_stage

Array = npt.NDArray[np.float64]


class Truth(NamedTuple):
    """What is known of an episode's progress: it lies in [low, high], (T,) float32 each; NaN where nothing is known.

    The two are the same where progress was measured. In a stage that was never finished nobody knows how far it had
    got: there they are where the stage begins, which is the plateau that the episode has surely reached, and where it
    ends.
    """

    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]
    reached: bool
    """Whether the episode reached the goal of the task, so that its last frame shows it."""

    @property
    def known(self) -> npt.NDArray[np.int64]:
        """Frames of which something is known."""
        return np.flatnonzero(np.isfinite(self.low))

    @property
    def plateau(self) -> npt.NDArray[np.int64]:
        """Frames of unfinished stages."""
        return np.flatnonzero(self.high > self.low)


def hop(here: npt.ArrayLike, there: npt.ArrayLike) -> Array:
    """H from progress ``here`` (F_p) to progress ``there`` (F_q), both in [0, 1]; arrays are broadcast."""
    p, q = np.asarray(here, dtype=np.float64), np.asarray(there, dtype=np.float64)
    way = np.where(q >= p, 1 - p, p)
    change = q - p
    return np.divide(change, way, out=np.zeros(np.broadcast(change, way).shape), where=way > 0)


def hop_bounds(low: tuple[Any, Any], high: tuple[Any, Any]) -> tuple[Array, Array]:
    """Bounds of H where F_p and F_q are known to lie in an interval.

    H grows with F_q and falls with F_p, so its ends are those of the intervals crosswise.

    Args:
        low: lower bounds (F_p, F_q).
        high: upper bounds (F_p, F_q).
    """
    return hop(high[0], low[1]), hop(low[0], high[1])


def stage_truth(episode: Any, priors: npt.ArrayLike) -> Truth:
    """The truth of an episode with stage labels, by the shares (K,) of the stages.

    Raises:
        LabelError: a stage label is out of range.
    """
    shares = np.asarray(priors, dtype=np.float64)
    segments = episode_segments(episode, len(shares), last_stage(shares))
    labels = label_frames(segments, shares, episode.length, f"episode {episode.uuid}")
    end = cumulative_priors(shares)[1:].astype(np.float32)
    high = np.where(labels.complete, labels.progress, end[labels.stage])
    high = np.where(labels.stage >= 0, high, np.float32(np.nan)).astype(np.float32)
    reached = bool(segments) and segments[-1].complete and segments[-1].stage == len(shares) - 1
    return Truth(labels.progress, high, reached)


def time_truth(length: int) -> Truth:
    """Progress that is even over an episode of T frames: 0 at its first, 1 at its last."""
    even = (np.arange(length) / max(length - 1, 1)).astype(np.float32)
    return Truth(even, even, True)
