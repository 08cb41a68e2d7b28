"""Which hops are trained on: drawn evenly over their values and the time between their moments.

Drawn by time alone, most hops are small and forward, and a model that always says a little more has a low loss. The
plan follows Robo-Dopamine: 25 bins of value times 4 bins of time, drawn evenly, and a share of hops that go nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from robo_rm.reward_models.grm.labels import Truth, hop
from robo_rm.reward_models.grm.settings import HopPlan

# Frames of an episode among which a pair is sought; a pair of any bin is rarely missed among so many.
CANDIDATES = 72
TRIES = 3

Indices = npt.NDArray[np.int64]


class Hops(NamedTuple):
    """B pairs of moments of the same episode, (B,) each."""

    episode: Indices
    here: Indices
    there: Indices


class HopSampler:
    """Draws balanced hops from episodes.

    Args:
        truths: what is known of each episode's progress.
        plan: the shares.
    """

    def __init__(self, truths: Sequence[Truth], plan: HopPlan) -> None:
        self._truths, self._plan = truths, plan
        self._known = [truth.known for truth in truths]
        self.usable = np.array([i for i, known in enumerate(self._known) if len(known) > 1], dtype=np.int64)
        self._fallen = [(int(i), truths[i].plateau) for i in self.usable if len(truths[i].plateau)]
        bins = plan.value_bins * plan.gap_bins
        there = np.zeros((len(truths), bins), dtype=np.bool_)
        for episode in self.usable:
            known = self._known[episode]
            frames = known[np.linspace(0, len(known) - 1, min(len(known), CANDIDATES)).astype(np.int64)]
            there[episode, np.unique(self._bins(int(episode), frames))[1:]] = True
        self._holders = [np.flatnonzero(there[:, number]) for number in range(bins)]
        self.filled = np.array([n for n, holders in enumerate(self._holders) if len(holders)], dtype=np.int64)
        """Numbers of the bins that any episode has a hop for; all are drawn equally often."""

    def draw(self, rng: np.random.Generator, count: int) -> Hops:
        """``count`` hops: zero ones, negatives, and the rest evenly over the bins that there are."""
        kinds = rng.random(count)
        rows = []
        # Strata: places spread evenly over the bins, so that a small batch is balanced too.
        places = (rng.permutation(count) + rng.random(count)) / count
        for kind, place in zip(kinds, places, strict=True):
            if kind < self._plan.zero or not len(self.filled):
                episode = int(rng.choice(self.usable))
                frame = int(rng.choice(self._known[episode]))
                rows.append((episode, frame, frame))
            elif kind < self._plan.zero + self._plan.negatives and self._fallen:
                episode, plateau = self._fallen[int(rng.integers(len(self._fallen)))]
                rows.append((episode, int(rng.choice(self._known[episode])), int(rng.choice(plateau))))
            else:
                rows.append(self._from_bin(rng, int(self.filled[int(place * len(self.filled))])))
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        return Hops(table[:, 0], table[:, 1], table[:, 2])

    def _from_bin(self, rng: np.random.Generator, number: int) -> tuple[int, int, int]:
        holders = self._holders[number]
        for attempt in range(TRIES + 1):
            episode = int(rng.choice(holders))
            known = self._known[episode]
            if attempt < TRIES:
                frames = np.sort(rng.choice(known, min(len(known), CANDIDATES), replace=False))
            else:
                # The frames that showed the bin to be there.
                frames = known[np.linspace(0, len(known) - 1, min(len(known), CANDIDATES)).astype(np.int64)]
            found = np.flatnonzero(self._bins(episode, frames) == number)
            if len(found):
                here, there = divmod(int(rng.choice(found)), len(frames))
                return episode, int(frames[here]), int(frames[there])
        raise AssertionError("a bin was listed that its episode does not have")  # pragma: no cover

    def _bins(self, episode: int, frames: Indices) -> Indices:
        """(n, n) bins of the hops between frames of an episode, -1 on the diagonal."""
        low = self._truths[episode].low[frames]
        value = hop(low[:, None], low[None, :])
        gap = np.abs(frames[:, None] - frames[None, :]) / max(len(self._truths[episode].low) - 1, 1)
        plan = self._plan
        value_bin = np.minimum(((value + 1) / 2 * plan.value_bins).astype(np.int64), plan.value_bins - 1)
        edges = 3.0 ** -np.arange(plan.gap_bins - 1, 0, -1)
        number = value_bin * plan.gap_bins + np.searchsorted(edges, gap, side="left")
        return np.asarray(np.where(gap > 0, number, -1), dtype=np.int64)
