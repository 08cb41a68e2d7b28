"""What reward models share that look at one frame at a time (and at the episode's first): predict, stream, batches.

A kind gives `features`, a fixed-size block of frames to vectors, and `read`, vectors to progress.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robo_rm.reward_models.base import BaseRewardModel, InputSpec
from robo_rm.reward_models.blocks import FRAMES_PER_BLOCK, fill
from robo_rm.reward_models.frames import EpisodeView, checked_step
from robo_rm.reward_models.placing import place_in_stages
from robo_rm.reward_models.prediction import Estimate, Prediction
from robo_rm.reward_models.protocol import Observations


class PerFrameModel(BaseRewardModel):
    """A reward model whose estimate at a frame depends on that frame and the episode's first.

    The uncertainty is what `read` says.
    """

    def __init__(self, input_spec: InputSpec, provenance: Mapping[str, Any], device: str) -> None:
        super().__init__(input_spec.stages, list(input_spec.cameras), input_spec.state_key, provenance, device)
        self.input_spec, self.priors = input_spec, list(input_spec.priors)

    def features(
        self, images: Mapping[str, npt.NDArray[np.uint8]], state: npt.NDArray[np.float32] | None
    ) -> torch.Tensor:
        """Vectors (n, D) of images (n, H, W, 3) by key and states (n, D_s)."""
        raise NotImplementedError

    def read(self, features: torch.Tensor, first: torch.Tensor, task: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Progress (n,) in [0, 1] and uncertainty (n,) from vectors (n, D) and that of the first frame (D,)."""
        raise NotImplementedError

    def predict(self, episode: Observations, task: str | None = None) -> Prediction:
        """Estimates for every frame of one episode.

        Raises:
            ModelError: a camera or the state is missing or has another shape than in training.
        """
        view = EpisodeView(episode, self.cameras, self.state_key, self.input_spec.state_size)
        instruction = task if task is not None else view.task
        first: torch.Tensor | None = None
        rows: list[tuple[torch.Tensor, torch.Tensor]] = []
        for start, stop in view.spans(FRAMES_PER_BLOCK):
            block = self._encode(view.images(start, stop), view.state(start, stop), stop - start, FRAMES_PER_BLOCK)
            first = block[0] if first is None else first
            with torch.inference_mode():
                parts = self.read(block, first, instruction)
            rows.append((parts[0][: stop - start], parts[1][: stop - start]))
        if not rows:
            empty = np.zeros(0, dtype=np.float32)
            return Prediction(empty, np.zeros((0, len(self.stages)), dtype=np.float32), empty)
        progress, spread = (_plain(torch.cat(part)) for part in zip(*rows, strict=True))
        return Prediction(progress, place_in_stages(progress, spread, self.priors), spread)

    def stream(self, task: str | None = None) -> PerFrameStream:
        """Follow an episode frame by frame."""
        return PerFrameStream(self, task)

    def _encode(
        self,
        images: Mapping[str, npt.NDArray[np.uint8]],
        state: npt.NDArray[np.float32] | None,
        count: int,
        block: int,
    ) -> torch.Tensor:
        filled = {key: fill(value, block) for key, value in images.items()}
        with torch.inference_mode():
            vectors = self.features(filled, None if state is None else fill(state, block))
        self.frames_encoded += count * len(images)
        return vectors


class PerFrameStream:
    """Estimates frame by frame: each image is encoded once, and only the first frame's vector is kept."""

    def __init__(self, model: PerFrameModel, task: str | None) -> None:
        self._model, self._task = model, task
        self._first: torch.Tensor | None = None

    def reset(self) -> None:
        """Begin a new episode."""
        self._first = None

    def step(self, frames: Mapping[str, npt.NDArray[np.uint8]], state: npt.ArrayLike | None = None) -> Estimate:
        """Estimate for the newest frame.

        Raises:
            ModelError: a camera or the state is missing or has another shape than in training.
        """
        model = self._model
        images, joint = checked_step(model.cameras, model.state_key, model.input_spec.state_size, frames, state)
        vector = model._encode(images, joint, 1, 1)
        self._first = vector[0] if self._first is None else self._first
        with torch.inference_mode():
            progress, spread = (_plain(part) for part in model.read(vector, self._first, self._task))
        chances = place_in_stages(progress, spread, model.priors)
        return Estimate(float(progress[0]), chances[0], float(spread[0]))


def _plain(values: torch.Tensor) -> npt.NDArray[np.float32]:
    return np.asarray(values.cpu().numpy(), dtype=np.float32)
