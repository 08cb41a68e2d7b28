"""Signs of reward hacking: a shaped return that grows while the task does not get done.

Potential-based shaping pays nothing for hovering in the long run, but a learner in training can still fall for a
potential that is wrong off the demonstrations, and the other shaping modes invite it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError
from robo_policies.rl.types import TransitionColumns

NEAR_SUCCESS = 0.8
"""Potential from which an episode looks nearly done."""
STILL = 0.005
"""Change of the potential in a macro-action below which it stands still."""
WINDOW = 50
"""Episodes in each of the two halves that are compared."""
MAX_DWELL = 0.3
"""Fraction of failed episodes' macro-actions near success from which something is wrong."""
MAX_STALLED, MIN_HOVER_DWELL = 0.6, 0.1
"""Fractions of failed episodes' macro-actions that stand still, and are near success as well, from which they hover."""
MIN_LOSS = 0.1
"""Drop of the success rate that counts while the learning reward grows."""
MAX_DRIFT = 3.0
"""Uncertainty of the potential, relative to the demonstrations' mean, from which the policy has left what it knows."""


@dataclass(frozen=True)
class Check:
    """One sign of reward hacking.

    Attributes:
        name: ``dwell``, ``hover``, ``return`` or ``drift``.
        wrong: whether it shows.
        text: what was measured, in plain words.
    """

    name: str
    wrong: bool
    text: str


@dataclass(frozen=True)
class EpisodeTrace:
    """One finished episode, as far as reward hacking shows in it.

    Attributes:
        success: it received task reward.
        shaped: sum of the learning rewards.
        best: highest potential.
        dwell: fraction of macro-actions spent at a potential near success.
        stalled: fraction of macro-actions in which the potential stood still.
        drift: mean uncertainty of the potential, which for an ensemble is its members' disagreement; 0 without one.
    """

    success: bool
    shaped: float
    best: float
    dwell: float
    stalled: float
    drift: float


class MonitorState(TypedDict):
    """What `RewardHackingMonitor` remembers, in plain values."""

    episodes: list[dict[str, float]]
    running: list[list[list[float]]]


class RewardHackingMonitor:
    """Collects the transitions of N environments into episodes and reports what looks wrong.

    Args:
        num_envs: N.
        reference_drift: mean uncertainty of the potential on demonstrations; 0 where it is not known.

    Raises:
        ConfigError: no environment.
    """

    def __init__(self, num_envs: int, reference_drift: float = 0.0) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs={num_envs}: a monitor needs 1 environment or more")
        self.episodes: list[EpisodeTrace] = []
        self.reference_drift = reference_drift
        self._running: list[list[list[float]]] = [[] for _ in range(num_envs)]

    def add(self, transitions: TransitionColumns, rewards: npt.ArrayLike, drift: npt.ArrayLike = 0.0) -> None:
        """Add one transition of every environment: the buffer's fields, the rewards (N,) and the uncertainty (N,)."""
        count = len(self._running)
        terminated, phi = transitions["terminated"], transitions["potential"]
        done = terminated | transitions["truncated"]
        columns = (
            transitions["task_reward"],
            phi,
            # What a model says of a terminal state does not count.
            np.where(terminated, phi, transitions["next_potential"]),
            np.broadcast_to(np.asarray(rewards, dtype=np.float64), count),
            np.broadcast_to(np.asarray(drift, dtype=np.float64), count),
        )
        for index, row in enumerate(np.stack(columns, axis=1).tolist()):
            self._running[index].append(row)
            if done[index]:
                self.episodes.append(_trace(np.array(self._running[index])))
                self._running[index] = []

    def snapshot(self) -> MonitorState:
        """What is remembered, in plain values, as far as it still counts."""
        return {"episodes": [asdict(episode) for episode in self.episodes[-2 * WINDOW :]], "running": self._running}

    def restore(self, snapshot: MonitorState) -> None:
        """Restore a `snapshot`."""
        self.episodes = [
            EpisodeTrace(bool(e["success"]), e["shaped"], e["best"], e["dwell"], e["stalled"], e["drift"])
            for e in snapshot["episodes"]
        ]
        self._running = [[list(row) for row in rows] for rows in snapshot["running"]]

    def metrics(self) -> dict[str, float]:
        """Means over the last episodes; empty before the first has ended."""
        last = self.episodes[-WINDOW:]
        if not last:
            return {}
        names = ("success", "shaped", "best", "dwell", "stalled", "drift")
        return {name: float(np.mean([getattr(episode, name) for episode in last])) for name in names}

    def warnings(self) -> list[str]:
        """What looks like reward hacking over the last episodes, in plain words; empty when nothing does."""
        return [check.text for check in self.checks() if check.wrong]

    def checks(self) -> list[Check]:
        """Every sign, over the last episodes; empty while there are too few."""
        recent = self.episodes[-WINDOW:]
        if len(recent) < WINDOW // 2:
            return []
        failures = [episode for episode in recent if not episode.success]
        if not failures:
            solved = [Check(name, False, "none of the episodes failed") for name in ("dwell", "hover")]
            return [*solved, *self._trend(recent), *self._drift(recent)]
        dwell = float(np.mean([episode.dwell for episode in failures]))
        stalled = float(np.mean([episode.stalled for episode in failures]))
        checks = [
            Check(
                "dwell",
                dwell > MAX_DWELL,
                f"failed episodes spend {dwell:.0%} of their macro-actions at a potential above {NEAR_SUCCESS:g}"
                + (": the reward model takes them for nearly done" if dwell > MAX_DWELL else ""),
            ),
            Check(
                "hover",
                stalled > MAX_STALLED and dwell > MIN_HOVER_DWELL,
                f"failed episodes {'hover' if dwell > MIN_HOVER_DWELL else 'wait'}: "
                f"the potential stands still in {stalled:.0%} of their macro-actions",
            ),
        ]
        return [*checks, *self._trend(recent), *self._drift(recent)]

    def _trend(self, recent: list[EpisodeTrace]) -> list[Check]:
        earlier = self.episodes[-2 * WINDOW : -WINDOW]
        if len(earlier) < WINDOW // 2:
            return []
        gain = float(np.mean([e.shaped for e in recent]) - np.mean([e.shaped for e in earlier]))
        standard_error = float(np.std([e.shaped for e in earlier]) / np.sqrt(len(earlier))) + 1e-9
        lost = float(np.mean([e.success for e in earlier]) - np.mean([e.success for e in recent]))
        change = f"fell by {lost:.0%}" if lost > 0 else f"rose by {-lost:.0%}"
        grew = f"grew by {gain:.2f}" if gain > 0 else f"fell by {-gain:.2f}"
        return [
            Check(
                "return",
                gain > 3 * standard_error and lost > MIN_LOSS,
                f"the learning reward {grew} an episode while success {change}",
            )
        ]

    def _drift(self, recent: list[EpisodeTrace]) -> list[Check]:
        if self.reference_drift <= 0:
            return []
        times = float(np.mean([episode.drift for episode in recent])) / self.reference_drift
        wrong = times > MAX_DRIFT
        return [
            Check(
                "drift",
                wrong,
                f"the reward model is {times:.1f} times as uncertain as on demonstrations"
                + (": the policy has left what it knows" if wrong else ""),
            )
        ]


def _trace(rows: npt.NDArray[np.float64]) -> EpisodeTrace:
    task_reward, phi, next_phi, shaped, drift = rows.T
    return EpisodeTrace(
        success=bool(task_reward.sum() > 0),
        shaped=float(shaped.sum()),
        best=float(max(phi.max(), next_phi.max())),
        dwell=float((phi >= NEAR_SUCCESS).mean()),
        stalled=float((np.abs(next_phi - phi) < STILL).mean()),
        drift=float(drift.mean()),
    )
