"""One evaluated episode: what a model says beside what is true."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from robo_rm import metrics
from robo_rm.evaluation.probes import ProbeClips
from robo_rm.reward_models.prediction import Prediction


@dataclass(frozen=True)
class EvaluatedEpisode:
    """One episode of T frames: what the model says and what is true."""

    uuid: str
    kind: str
    """Quality class where the recorder noted one, else the task."""
    success: bool | None
    prediction: Prediction
    stage: npt.NDArray[np.int64]
    """(T,), -1 where unlabelled."""
    label: npt.NDArray[np.float32]
    """(T,) progress label, NaN where none was measured."""
    simulator: npt.NDArray[np.float32] | None = None
    """(T,) the simulator's own progress."""
    clips: ProbeClips = field(default_factory=ProbeClips)
    """What the model says of clips made from the episode."""
    task: str = ""
    reached: tuple[float, float] | None = None
    """Least and most progress that a failure really ended at, by the stage it was in; None where that is not known."""
    grade: float | None = None
    """How much of the task it did in a human's grading, 0 to 1, where the recorder or importer noted a grade."""
    chance: float | None = None
    """Probability of success that a calibrated model gives the episode's end; None: final progress stands for it."""

    @property
    def failed(self) -> bool:
        """Whether it is known to have failed."""
        return self.success is False

    @property
    def final(self) -> float:
        """Predicted progress at the last frame."""
        return float(self.prediction.progress[-1])

    @property
    def highest(self) -> float:
        """Highest predicted progress."""
        return float(self.prediction.progress.max())

    @property
    def error(self) -> float:
        """Error of the model here, for sorting: mean absolute error plus the fraction of frames claimed too far."""
        mean = metrics.mae(self.prediction.progress, self.label)
        claimed = metrics.hallucination(self.prediction.stage, self.stage) if self.failed else 0.0
        wrong_end = self.final if self.failed else 1.0 - self.final
        return float(np.nansum([mean, claimed, 0.5 * wrong_end]))

    @property
    def standing(self) -> frozenset[str]:
        """What it may be called: of success, partial and fail those that what is known of it allows; empty where nobody
        knows its outcome.

        A success is a success, a grade between failure and success is partial. A failure is never a success; between
        the others the simulator's progress decides, or the stage it ended in; where neither is known both are right.
        """
        if self.grade is not None and 0 < self.grade < 1:
            return frozenset({"partial"})
        if self.success is None:
            return frozenset()
        if self.success:
            return frozenset({"success"})
        low, high = (0.0, 1.0) if self.reached is None else self.reached
        if self.simulator is not None:
            low = high = float(self.simulator[-1])
        # A failure is never called a success, however far it got before it fell.
        ends = [metrics.classify_rollout(min(end, BELOW_SUCCESS)) for end in (low, high)]
        return frozenset(ends)


BELOW_SUCCESS = 0.84
"""The most progress that a failure is credited with when it is called something."""
