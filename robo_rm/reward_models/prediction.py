"""What a reward model says about an episode, and about one frame of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Prediction:
    """Estimates for an episode of T frames and a task of K stages.

    Attributes:
        progress: (T,) float32 in [0, 1].
        stage_probabilities: (T, K) float32, rows sum to 1.
        uncertainty: (T,) float32, in units of progress; what it measures is the model's to document.
    """

    progress: npt.NDArray[np.float32]
    stage_probabilities: npt.NDArray[np.float32]
    uncertainty: npt.NDArray[np.float32]

    @property
    def stage(self) -> npt.NDArray[np.int64]:
        """(T,) the most probable stage of each frame."""
        return np.asarray(self.stage_probabilities.argmax(axis=-1), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.progress)


@dataclass(frozen=True)
class Estimate:
    """The same for one frame: floats, and the stage probabilities (K,)."""

    progress: float
    stage_probabilities: npt.NDArray[np.float32]
    uncertainty: float

    @property
    def stage(self) -> int:
        """The most probable stage."""
        return int(self.stage_probabilities.argmax())
