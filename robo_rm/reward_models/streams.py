"""Models that encode each frame once, beside the first of its episode, and episodes of theirs followed step by step.

A model looks back at frames that lie ``gap`` apart. Where only every k-th frame is looked at and k divides the gap,
what it looks back at is there, so the estimates are those of a stream that is given every frame, at a k-th of the
rendering and encoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from robo_core.errors import ModelError
from robo_rm.reward_models.base import BaseRewardModel
from robo_rm.reward_models.blocks import FRAMES_PER_BLOCK, channels_last, exact_arithmetic, fill, to_pixels
from robo_rm.reward_models.frames import EpisodeView, ModelInputs, checked_step, resize, with_change
from robo_rm.reward_models.prediction import Estimate
from robo_rm.reward_models.protocol import Said


class EncodingModel(BaseRewardModel):
    """A reward model whose network has ``encode`` and ``state``; types give `predict`, `streams` and `card`.

    ``stages``: names of the stages shown. The other arguments are those of the types.
    """

    network: Any

    def __init__(
        self,
        network: torch.nn.Module,
        description: Any,
        provenance: Mapping[str, Any],
        device: str,
        stages: Sequence[str],
    ) -> None:
        super().__init__(stages, list(description.cameras), description.state_key, provenance, device)
        self.network = channels_last(network.to(device)).eval().requires_grad_(False)
        self.description = description

    def look(
        self, images: Mapping[str, npt.NDArray[np.uint8]], state: npt.NDArray[np.float32] | None = None
    ) -> ModelInputs:
        """What the network takes of n frames (n, H, W, 3) of any size by key and their states (n, D_s); each image
        counts as encoded."""
        inputs = {key: self._seen(key, images[key]) for key in self.cameras}
        self.frames_encoded += sum(len(rows) for rows in inputs.values())
        return ModelInputs(inputs, state)

    def encode_block(self, looks: ModelInputs, start: ModelInputs, block: int) -> torch.Tensor:
        """Tokens or embeddings (n, ...) of n <= block frames.

        Args:
            looks: of the n frames.
            start: of the first frames of their episodes, n or 1 where it is the same episode.
            block: frames to compute with.
        """
        change = self.description.encoder.change
        shown = {key: with_change(rows, start.inputs[key]) if change else rows for key, rows in looks.inputs.items()}
        return self.encode_shown(ModelInputs(shown, looks.state), start.state, block)

    def encode_shown(self, shown: ModelInputs, first: npt.NDArray[np.float32] | None, block: int) -> torch.Tensor:
        """The same of what the network is shown, images with their change, and states (n or 1, D_s) of the first
        frames."""
        count = len(next(iter(shown.inputs.values())))
        pixels = {key: self._pixels(fill(rows, block)) for key, rows in shown.inputs.items()}
        joint = origin = None
        net = self.network.state
        if net is not None and shown.state is not None and first is not None:
            joint = net.standardise(torch.from_numpy(fill(shown.state, block)).to(self.device))
            origins = first if len(first) == 1 else fill(first, block)
            origin = net.standardise(torch.from_numpy(origins).to(self.device)).expand_as(joint)
        with torch.inference_mode(), exact_arithmetic(self.device):
            encoded: torch.Tensor = self.network.encode(pixels, joint, origin)[:count]
        return encoded

    def encode_all(self, view: EpisodeView) -> torch.Tensor:
        """Tokens or embeddings (T, ...) of a whole episode."""
        blocks: list[torch.Tensor] = []
        first: ModelInputs | None = None
        for looks in self._inputs_of(view):
            first = looks.take(slice(0, 1)) if first is None else first
            blocks.append(self.encode_block(looks, first, FRAMES_PER_BLOCK))
        return torch.cat(blocks) if blocks else torch.zeros(0, device=self.device)

    def streams(self, count: int, task: str | None = None, every: int = 1) -> Streams[Any]:
        """Follow ``count`` episodes at once, looking at every so many frames of the store's rate; ``every`` must divide
        the gap."""
        raise NotImplementedError

    def stream(self, task: str | None = None) -> OneStream:
        """Follow an episode frame by frame, at the rate of the training store (``provenance["fps"]``)."""
        return OneStream(self.streams(1, task))

    def _inputs_of(self, view: EpisodeView) -> Iterator[ModelInputs]:
        """An episode's frames in blocks."""
        return (self.look(view.images(*span), view.state(*span)) for span in view.spans(FRAMES_PER_BLOCK))

    def _seen(self, key: str, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        return resize(images, self.description.cameras[key])

    def _pixels(self, rows: npt.NDArray[Any]) -> torch.Tensor:
        return to_pixels(torch.from_numpy(rows).to(self.device))


Model = TypeVar("Model", bound=EncodingModel)


class Streams(Generic[Model]):
    """N episodes of one model, step by step; each image is encoded once. Models fill in `_say`.

    Args:
        model: whose episodes these are.
        count: N.
        gap: frames at the store's rate between those that the model looks back at.
        every: frames at the store's rate between two steps; must divide the gap.

    Raises:
        ModelError: ``every`` does not divide the gap, or counts below 1.
    """

    def __init__(self, model: Model, count: int, gap: int, every: int) -> None:
        if count < 1 or every < 1:
            raise ModelError(f"streams of {count} episodes, every {every} frames: both must be 1 at least")
        if gap % every:
            fitting = [k for k in range(1, gap + 1) if gap % k == 0]
            raise ModelError(
                f"the model looks back in steps of {gap} frames, which {every} does not divide; "
                f"score every {', '.join(map(str, fitting))} frames, or train with another reward.gap_seconds"
            )
        self._model = model
        self._count = np.zeros(count, dtype=np.int64)
        self._start: ModelInputs | None = None

    def reset(self, which: npt.ArrayLike | None = None) -> None:
        """Begin new episodes: at the indices or the mask given, or all."""
        self._count[slice(None) if which is None else np.asarray(which)] = 0

    def step(
        self,
        frames: Mapping[str, npt.NDArray[np.uint8]],
        state: npt.ArrayLike | None = None,
        which: npt.ArrayLike | None = None,
    ) -> Said:
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
        said = self._say(looks, self._starts(looks, rows), rows)
        self._count[rows] += 1
        return said

    def _say(self, looks: ModelInputs, starts: ModelInputs, rows: npt.NDArray[np.int64]) -> Said:
        """What the model says of n looks, those at the first frames of their episodes beside them."""
        raise NotImplementedError

    def _starts(self, looks: ModelInputs, rows: npt.NDArray[np.int64]) -> ModelInputs:
        """Looks at the first frames of the episodes that step, after noting those that begin."""
        if self._start is None:
            self._start = looks.take(np.zeros(len(self._count), dtype=np.int64))
        fresh = self._count[rows] == 0
        for key, kept in self._start.inputs.items():
            kept[rows[fresh]] = looks.inputs[key][fresh]
        if self._start.state is not None and looks.state is not None:
            self._start.state[rows[fresh]] = looks.state[fresh]
        return self._start.take(rows)


class OneStream:
    """Estimates frame by frame: `Streams` of one episode."""

    def __init__(self, streams: Streams[Any]) -> None:
        self._streams = streams

    def reset(self) -> None:
        """Begin a new episode."""
        self._streams.reset()

    def step(self, frames: Mapping[str, npt.NDArray[np.uint8]], state: npt.ArrayLike | None = None) -> Estimate:
        """Estimate for the newest frame; images (H, W, 3) uint8 by key, state (D,).

        Raises:
            ModelError: a camera or the state is missing or has another shape than in training.
        """
        rows = {key: np.asarray(image)[None] for key, image in frames.items()}
        said = self._streams.step(rows, None if state is None else np.asarray(state)[None])
        progress, chances, spread = (part[0] for part in said)
        return Estimate(float(progress), chances, float(spread))
