"""Watching for reward hacking: a shaped return that grows while the task does not get done.

Potential-based shaping pays nothing for hovering in the long run, but a learner in training can still fall for a
potential that is wrong off the demonstrations, and the other shaping modes invite it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError

NEAR_GOLD = 0.8
"""Potential from which an episode looks nearly done."""
STILL = 0.005
"""Change of the potential in a decision below which nothing happens."""
WINDOW = 50
"""Episodes in the two halves that are compared."""
MOST_DWELL = 0.3
"""Share of failed episodes' decisions near gold from which something is wrong."""
MOST_STALLED, LEAST_HOVER_DWELL = 0.6, 0.1
"""Shares of failed episodes' decisions that stand still, and are near gold as well, from which they hover."""
LEAST_LOSS = 0.1
"""Fall of the success that counts while the learning reward grows."""
MOST_DRIFT = 3.0
"""Uncertainty of the potential, in means of the demonstrations, from which the policy has left what it knows."""


@dataclass(frozen=True)
class Check:
    """One sign of hacking that is watched for.

    Attributes:
        name: ``dwell``, ``hover``, ``return`` or ``drift``.
        wrong: it shows.
        text: what was seen, in plain words.
    """

    name: str
    wrong: bool
    text: str


@dataclass(frozen=True)
class EpisodeTrace:
    """One finished episode, as far as hacking shows in it.

    Attributes:
        success: it gained gold.
        shaped: sum of the learning rewards.
        best: highest potential.
        dwell: share of decisions spent at a potential near gold.
        stalled: share of decisions in which the potential stood still.
        drift: mean uncertainty of the potential, which for an ensemble is its members' disagreement; 0 without one.
    """

    success: bool
    shaped: float
    best: float
    dwell: float
    stalled: float
    drift: float


class HackingMonitor:
    """Collects the decisions of N worlds into episodes and says what looks wrong.

    Args:
        worlds: N.
        reference_drift: mean uncertainty of the potential on demonstrations; 0 where it is not known.
    """

    def __init__(self, worlds: int, reference_drift: float = 0.0) -> None:
        if worlds < 1:
            raise ConfigError(f"a monitor of {worlds} worlds watches nothing")
        self.episodes: list[EpisodeTrace] = []
        self.reference_drift = reference_drift
        self._open: list[list[tuple[float, ...]]] = [[] for _ in range(worlds)]

    def add(self, rows: Mapping[str, npt.NDArray[Any]], rewards: npt.ArrayLike, drift: npt.ArrayLike = 0.0) -> None:
        """Take in one decision of every world: the replay's rows, the composed rewards (N,) and uncertainty (N,)."""
        count = len(self._open)
        shaped = np.broadcast_to(np.asarray(rewards, dtype=np.float64), count)
        apart = np.broadcast_to(np.asarray(drift, dtype=np.float64), count)
        for world in range(count):
            values = [float(rows[name][world]) for name in ("gold", "potential", "next_potential")]
            ended = bool(rows["terminated"][world] or rows["truncated"][world])
            # What a model says of a terminal state counts for nothing.
            after = values[1] if rows["terminated"][world] else values[2]
            self._open[world].append((values[0], values[1], after, float(shaped[world]), float(apart[world])))
            if ended:
                self.episodes.append(_trace(np.array(self._open[world])))
                self._open[world] = []

    def snapshot(self) -> dict[str, Any]:
        """What is remembered, in plain values, as far as it still counts."""
        return {"episodes": [asdict(episode) for episode in self.episodes[-2 * WINDOW :]], "open": self._open}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take up a `snapshot`."""
        self.episodes = [EpisodeTrace(**episode) for episode in snapshot["episodes"]]
        self._open = [[tuple(decision) for decision in world] for world in snapshot["open"]]

    def figures(self) -> dict[str, float]:
        """Means over the last episodes; empty before the first has ended."""
        last = self.episodes[-WINDOW:]
        if not last:
            return {}
        names = ("success", "shaped", "best", "dwell", "stalled", "drift")
        return {name: float(np.mean([getattr(episode, name) for episode in last])) for name in names}

    def warnings(self) -> list[str]:
        """What looks like hacking over the last episodes, in plain words; empty when nothing does."""
        return [check.text for check in self.checks() if check.wrong]

    def checks(self) -> list[Check]:
        """Every sign that is watched for, over the last episodes; empty while there are too few to tell."""
        recent = self.episodes[-WINDOW:]
        if len(recent) < WINDOW // 2:
            return []
        failures = [episode for episode in recent if not episode.success]
        dwell = float(np.mean([episode.dwell for episode in failures or recent]))
        stalled = float(np.mean([episode.stalled for episode in failures or recent]))
        if not failures:
            solved = [Check(name, False, "none of the episodes failed") for name in ("dwell", "hover")]
            return [*solved, *self._trend(recent), *self._drift(recent)]
        checks = [
            Check(
                "dwell",
                dwell > MOST_DWELL,
                f"failed episodes spend {dwell:.0%} of their decisions at a potential above {NEAR_GOLD:g}"
                + (": the reward model takes them for nearly done" if dwell > MOST_DWELL else ""),
            ),
            Check(
                "hover",
                stalled > MOST_STALLED and dwell > LEAST_HOVER_DWELL,
                f"failed episodes {'hover' if dwell > LEAST_HOVER_DWELL else 'wait'}: "
                f"the potential stands still in {stalled:.0%} of their decisions",
            ),
        ]
        return [*checks, *self._trend(recent), *self._drift(recent)]

    def _trend(self, recent: list[EpisodeTrace]) -> list[Check]:
        earlier = self.episodes[-2 * WINDOW : -WINDOW]
        if len(earlier) < WINDOW // 2:
            return []
        gain = float(np.mean([e.shaped for e in recent]) - np.mean([e.shaped for e in earlier]))
        spread = float(np.std([e.shaped for e in earlier]) / np.sqrt(len(earlier))) + 1e-9
        lost = float(np.mean([e.success for e in earlier]) - np.mean([e.success for e in recent]))
        change = f"fell by {lost:.0%}" if lost > 0 else f"rose by {-lost:.0%}"
        grew = f"grew by {gain:.2f}" if gain > 0 else f"fell by {-gain:.2f}"
        return [
            Check(
                "return",
                gain > 3 * spread and lost > LEAST_LOSS,
                f"the learning reward {grew} an episode while success {change}",
            )
        ]

    def _drift(self, recent: list[EpisodeTrace]) -> list[Check]:
        if self.reference_drift <= 0:
            return []
        times = float(np.mean([episode.drift for episode in recent])) / self.reference_drift
        wrong = times > MOST_DRIFT
        return [
            Check(
                "drift",
                wrong,
                f"the reward model is {times:.1f} times as unsure as on demonstrations"
                + (": the policy has left what it knows" if wrong else ""),
            )
        ]


def _trace(decisions: npt.NDArray[np.float64]) -> EpisodeTrace:
    gold, before, after, shaped, drift = decisions.T
    return EpisodeTrace(
        success=bool(gold.sum() > 0),
        shaped=float(shaped.sum()),
        best=float(max(before.max(), after.max())),
        dwell=float((before >= NEAR_GOLD).mean()),
        stalled=float((np.abs(after - before) < STILL).mean()),
        drift=float(drift.mean()),
    )
