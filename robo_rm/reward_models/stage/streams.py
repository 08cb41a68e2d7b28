"""Many episodes followed at once by the stage-aware model; see `robo_rm.reward_models.streams`."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from robo_rm.labels.plan import WindowShape, regular_window
from robo_rm.reward_models.frames import ModelInputs
from robo_rm.reward_models.stage.description import StageDescription
from robo_rm.reward_models.streams import Followed, Said, Streams


class Reader(Followed, Protocol):
    """What of a stage-aware model is needed here."""

    @property
    def description(self) -> StageDescription:
        """What makes the model."""

    def encode_block(self, looks: ModelInputs, start: ModelInputs, block: int) -> torch.Tensor:
        """Tokens (n, C + 1, D) of n <= block frames."""

    def read_block(self, windows: torch.Tensor, slot: npt.NDArray[np.int64], task: str | None) -> Said:
        """Progress (B,), probabilities (B, K), spread (B,) at the given slot of windows (B, S, C + 1, D)."""


class StageStreams(Streams[Reader]):
    """Estimates of N episodes, step by step.

    Args:
        model: the stage-aware model.
        count: N.
        task: the instruction; the model's own if None.
        every: frames at the store's rate between two steps; must divide the model's gap.

    Raises:
        ModelError: ``every`` does not divide the gap, or counts below 1.
    """

    def __init__(self, model: Reader, count: int, task: str | None = None, every: int = 1) -> None:
        shape = model.description.shape
        super().__init__(model, count, shape.gap, every)
        self._task = task
        self._shape = WindowShape(shape.history, shape.gap // every)
        self._kept = self._shape.history * self._shape.gap + 1
        self._first: torch.Tensor | None = None
        self._recent: torch.Tensor | None = None

    def _say(self, looks: ModelInputs, starts: ModelInputs, rows: npt.NDArray[np.int64]) -> Said:
        tokens = self._model.encode_block(looks, starts, len(rows))
        if self._first is None or self._recent is None:
            shape = tokens.shape[1:]
            self._first = tokens.new_zeros(len(self._count), *shape)
            self._recent = tokens.new_zeros(len(self._count), self._kept, *shape)
        at = torch.from_numpy(rows).to(tokens.device)
        now = self._count[rows]
        fresh = torch.from_numpy(now == 0).to(tokens.device)
        self._first[at[fresh]] = tokens[fresh]
        self._recent[at, torch.from_numpy(now % self._kept).to(tokens.device)] = tokens
        indices, slot = regular_window(now, self._shape)
        place = torch.from_numpy(indices % self._kept).to(tokens.device)
        windows = self._recent[at[:, None], place]
        # Index 0 is the first frame, which the ring may have lost, and what fills up a window that is still short.
        first = torch.from_numpy(indices == 0).to(tokens.device)
        windows = torch.where(first[..., None, None], self._first[at][:, None], windows)
        return self._model.read_block(windows, slot, self._task)
