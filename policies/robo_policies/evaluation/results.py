"""What an evaluation found: success with its interval, time, and where failures stopped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robo_policies.evaluation.rollouts import Rollout
from robo_policies.evaluation.videos import Video
from robo_rm.metrics.intervals import wilson_interval


@dataclass(frozen=True)
class Evaluation:
    """The episodes of one policy in one environment.

    Attributes:
        rollouts: one per episode, in order.
        stages: names of the environment's stages; empty where it has none.
        videos: of the best and the worst episodes, where they were asked for.
    """

    rollouts: tuple[Rollout, ...]
    stages: tuple[str, ...]
    videos: tuple[Video, ...] = ()

    @property
    def successes(self) -> int:
        """Number of episodes that succeeded."""
        return sum(rollout.success for rollout in self.rollouts)

    @property
    def success_rate(self) -> float:
        """Fraction of the episodes that succeeded."""
        return self.successes / len(self.rollouts)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the success rate."""
        found = wilson_interval(self.successes, len(self.rollouts))
        return found.low, found.high

    def stopped_at(self) -> dict[str, int]:
        """Failures by the furthest stage that they reached, in the order of the stages."""
        counts = [0] * len(self.stages)
        for rollout in self.rollouts:
            if not rollout.success and 0 <= rollout.stage < len(counts):
                counts[rollout.stage] += 1
        return dict(zip(self.stages, counts, strict=True))

    def rows(self) -> list[tuple[str, str]]:
        """Rows of a table: success with its interval, time, and where failures stopped."""
        low, high = self.interval
        times = [rollout.seconds for rollout in self.rollouts if rollout.success]
        rows = [
            ("success", f"{100 * self.success_rate:.1f} % ({self.successes} of {len(self.rollouts)})"),
            ("95 % interval (Wilson)", f"{100 * low:.1f} to {100 * high:.1f} %"),
            ("time to success", f"{np.mean(times):.1f} s" if times else "-"),
            ("progress at the end", f"{np.mean([rollout.progress for rollout in self.rollouts]):.3f}"),
        ]
        stopped = self.stopped_at().items()
        return rows + [(f"failures that reached: {stage}", str(count)) for stage, count in stopped]

    def metrics(self) -> dict[str, float | None]:
        """Flat metrics for ``metrics.json``."""
        low, high = self.interval
        times = [rollout.seconds for rollout in self.rollouts if rollout.success]
        return {
            "episodes": len(self.rollouts),
            "successes": self.successes,
            "success_rate": self.success_rate,
            "success_low": low,
            "success_high": high,
            "seconds_to_success": float(np.mean(times)) if times else None,
            "return": float(np.mean([rollout.total_reward for rollout in self.rollouts])),
            "progress": float(np.mean([rollout.progress for rollout in self.rollouts])),
            "best_progress": float(np.mean([rollout.best_progress for rollout in self.rollouts])),
            "stage_reached": float(np.mean([rollout.stage for rollout in self.rollouts])),
        }
