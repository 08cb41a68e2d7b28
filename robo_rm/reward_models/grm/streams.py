"""Many episodes followed at once by the hop model; see `robo_rm.reward_models.streams`."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from robo_rm.reward_models.frames import ModelInputs
from robo_rm.reward_models.grm.description import HopDescription
from robo_rm.reward_models.grm.fusion import Fused, Perspectives, fuse
from robo_rm.reward_models.prediction import Estimate
from robo_rm.reward_models.streams import Followed, Said, Streams


class Comparing(Followed, Protocol):
    """What of a hop model is needed here."""

    @property
    def description(self) -> HopDescription:
        """What makes the model."""

    def encode_block(self, looks: ModelInputs, start: ModelInputs, block: int) -> torch.Tensor:
        """Embeddings (n, E) of n <= block frames."""

    def compare(self, earlier: torch.Tensor, here: torch.Tensor, references: torch.Tensor) -> list[Perspectives]:
        """What the network says of n moments."""

    def estimate(self, seen: Perspectives, fused: Fused) -> Estimate:
        """The estimate of one moment."""


class HopStreams(Streams[Comparing]):
    """Estimates of N episodes, step by step.

    Args:
        model: the hop model.
        references: (2, R, E) embeddings of the task's start and goal images.
        count: N.
        every: frames at the store's rate between two steps; must divide the model's gap.

    Raises:
        ModelError: ``every`` does not divide the gap, or counts below 1.
    """

    def __init__(self, model: Comparing, references: torch.Tensor, count: int, every: int = 1) -> None:
        gap = model.description.gap
        super().__init__(model, count, gap, every)
        self._references = references
        self._back = gap // every
        self._fused = np.zeros((count, self._back + 1))
        self._recent: torch.Tensor | None = None

    def _say(self, looks: ModelInputs, starts: ModelInputs, rows: npt.NDArray[np.int64]) -> Said:
        model = self._model
        here = model.encode_block(looks, starts, len(rows))
        if self._recent is None:
            self._recent = here.new_zeros(len(self._count), self._back + 1, here.shape[-1])
        now = self._count[rows]
        # One gap back, or the first frame where there is no more.
        then = np.maximum(now - self._back, 0) % (self._back + 1)
        at, place = torch.from_numpy(rows).to(here.device), torch.from_numpy(now % (self._back + 1)).to(here.device)
        self._recent[at, place] = here
        earlier = self._recent[at, torch.from_numpy(then).to(here.device)]
        moments = model.compare(earlier, here, self._references)
        fused = [
            fuse(moment, self._fused[row, before] if count else None, model.description.reward)
            for moment, row, before, count in zip(moments, rows.tolist(), then.tolist(), now.tolist(), strict=True)
        ]
        self._fused[rows, now % (self._back + 1)] = [one.progress for one in fused]
        estimates = [model.estimate(moment, one) for moment, one in zip(moments, fused, strict=True)]
        return (
            np.array([one.progress for one in estimates], dtype=np.float32),
            np.stack([one.stage_probabilities for one in estimates]).astype(np.float32),
            np.array([one.uncertainty for one in estimates], dtype=np.float32),
        )
