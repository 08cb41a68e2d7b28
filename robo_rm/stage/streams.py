"""Many episodes followed at once, such as those of a vector environment, looked at every so many frames.

The model's window holds frames that lie ``gap`` apart. Where only every k-th frame is looked at and k divides the gap,
the windows at those frames hold no other frames, so the estimates are those of `StageStream.step` for every frame, at
a k-th of the rendering and encoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from robo_datasets.errors import ModelError
from robo_rm.labels.plan import WindowShape, regular_window
from robo_rm.models.frames import Looks, checked_step

if TYPE_CHECKING:
    from robo_rm.stage.model import StageRewardModel


class StageStreams:
    """Estimates of N episodes, step by step; each image is encoded once.

    Args:
        model: the stage-aware model.
        count: N.
        task: the instruction; the model's own if None.
        every: frames at the store's rate between two steps; must divide the model's gap.

    Raises:
        ModelError: ``every`` does not divide the gap, or counts below 1.
    """

    def __init__(self, model: StageRewardModel, count: int, task: str | None = None, every: int = 1) -> None:
        gap = model.description.shape.gap
        if count < 1 or every < 1:
            raise ModelError(f"streams of {count} episodes, every {every} frames: both must be 1 at least")
        if gap % every:
            fitting = [k for k in range(1, gap + 1) if gap % k == 0]
            raise ModelError(
                f"the model looks back in steps of {gap} frames, which {every} does not divide; "
                f"score every {', '.join(map(str, fitting))} frames, or train with another reward.gap_seconds"
            )
        self._model, self._task = model, task
        self._shape = WindowShape(model.description.shape.history, gap // every)
        self._kept = self._shape.history * self._shape.gap + 1
        self._count = np.zeros(count, dtype=np.int64)
        self._start: Looks | None = None
        self._first: torch.Tensor | None = None
        self._recent: torch.Tensor | None = None

    def reset(self, which: npt.ArrayLike | None = None) -> None:
        """Begin new episodes: at the indices or the mask given, or all."""
        self._count[slice(None) if which is None else np.asarray(which)] = 0

    def step(
        self,
        frames: Mapping[str, npt.NDArray[np.uint8]],
        state: npt.ArrayLike | None = None,
        which: npt.ArrayLike | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Progress (n,), stage probabilities (n, K) and uncertainty (n,) of the newest frames.

        Args:
            frames: images (n, H, W, 3) uint8 by key.
            state: (n, D), where the model reads one.
            which: the n episodes that step, indices; all N in their order if None.

        Raises:
            ModelError: a camera or the state is missing or has another shape than in training.
        """
        model = self._model
        rows = np.arange(len(self._count)) if which is None else np.asarray(which, dtype=np.int64)
        if not len(rows):
            nothing = np.zeros(0, dtype=np.float32)
            return nothing, np.zeros((0, len(model.stages)), dtype=np.float32), nothing
        size = model.description.state_size
        images, joint = checked_step(model.cameras, model.state_key, size, frames, state, batched=True)
        wrong = {key: len(value) for key, value in images.items() if len(value) != len(rows)}
        if wrong:
            raise ModelError(f"{len(rows)} episodes step, but there are {wrong} images")
        looks = model.look(images, joint)
        return self._read(model.encode_block(looks, self._starts(looks, rows), len(rows)), rows)

    def _starts(self, looks: Looks, rows: npt.NDArray[np.int64]) -> Looks:
        """Looks at the first frames of the episodes that step, after noting those that begin."""
        if self._start is None:
            self._start = looks.take(np.zeros(len(self._count), dtype=np.int64))
        fresh = self._count[rows] == 0
        for key, kept in self._start.inputs.items():
            kept[rows[fresh]] = looks.inputs[key][fresh]
        if self._start.state is not None and looks.state is not None:
            self._start.state[rows[fresh]] = looks.state[fresh]
        return self._start.take(rows)

    def _read(self, tokens: torch.Tensor, rows: npt.NDArray[np.int64]) -> tuple[Any, Any, Any]:
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
        self._count[rows] += 1
        progress, probabilities, spread = self._model.read_block(windows, slot, self._task)
        return progress, probabilities, spread
