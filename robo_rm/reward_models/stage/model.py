"""The stage-aware reward model: predict, stream, save (protocol: `robo_rm.reward_models.base.RewardModel`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robo_core.errors import ModelError
from robo_datasets.store.instructions import Phrasings
from robo_rm.encoders.conv import word_vectors
from robo_rm.encoders.frozen import FrozenEncoder
from robo_rm.encoders.sentences import SentenceEncoder
from robo_rm.encoders.stored import StoredFeatures
from robo_rm.labels.plan import regular_window
from robo_rm.reward_models.base import BaseRewardModel
from robo_rm.reward_models.blocks import FRAMES_PER_BLOCK, channels_last, exact_arithmetic, fill, to_pixels
from robo_rm.reward_models.frames import EpisodeView, ModelInputs, checked_step, resize, with_change
from robo_rm.reward_models.prediction import Estimate, Prediction
from robo_rm.reward_models.protocol import Observations
from robo_rm.reward_models.stage.card import stage_model_card
from robo_rm.reward_models.stage.description import StageDescription
from robo_rm.reward_models.stage.network import Heads, StageNetwork, compose
from robo_rm.reward_models.stage.sparse import DENSE, SPARSE, shown_provenance
from robo_rm.reward_models.stage.streams import StageStreams
from robo_rm.reward_models.streams import Said
from robo_rm.settings import FrozenSettings

NAME = "stage"

# Windows go through the network in blocks of one size, as frames do.
WINDOWS_PER_BLOCK = 64


class StageRewardModel(BaseRewardModel):
    """Stage and progress of a task from camera images and joint state, after SARM (arXiv 2509.25358).

    The uncertainty is the standard deviation of progress under the predicted distribution over stages: large where the
    model hesitates between stages that lie far apart. Errors within a stage do not show in it.
    """

    type_name = NAME
    network: StageNetwork
    description: StageDescription

    def __init__(
        self, network: StageNetwork, description: StageDescription, provenance: Mapping[str, Any], device: str = "cpu"
    ) -> None:
        self.head = description.head
        stages = list(description.stages if self.head == DENSE else description.sparse.groups)
        super().__init__(stages, list(description.cameras), description.state_key, provenance, device)
        self.network = channels_last(network.to(device)).eval().requires_grad_(False)
        self.description = description
        self._cumulative = description.cumulative(device, self.head)
        self.stored: StoredFeatures | None = None
        self._frozen: FrozenEncoder | None = None
        self._told: dict[str, torch.Tensor] = {}
        self._phrasings = Phrasings(description.instruction_groups)
        self._sentences: SentenceEncoder | None = None

    @property
    def priors(self) -> npt.NDArray[np.float64]:
        """(K,) stage priors of the training split."""
        mine = self.description if self.head == DENSE else self.description.sparse
        return np.asarray(mine.priors, dtype=np.float64)

    def with_head(self, head: str) -> StageRewardModel:
        """The same weights, showing the stages and the progress of the ``dense`` or the ``sparse`` pair of heads.

        Raises:
            ModelError: the model was trained without `reward.sparse`, or there is no such head.
        """
        if head == self.head:
            return self
        if head not in (DENSE, SPARSE) or self.description.sparse is None:
            raise ModelError(
                f"the model has no head {head!r}: it was trained on one list of stages. Both are learned with "
                "reward.sparse=[[0,1],[2,3]], the store's stages put together by their places"
            )
        shown = replace(self.description, head=head)
        other = StageRewardModel(
            self.network, shown, shown_provenance(self.provenance, self.description, head), self.device
        )
        other.stored, other._frozen = self.stored, self._frozen
        return other

    def predict(self, episode: Observations, task: str | None = None) -> Prediction:
        """Estimates for every frame of a stored episode or of a mapping of its arrays.

        Each frame is encoded once; memory does not grow with the size of the images times their number.

        Raises:
            ModelError: a camera or the state is missing or has another shape than in training.
        """
        view = EpisodeView(episode, self.cameras, self.state_key, self.description.state_size)
        instruction = task if task is not None else view.task
        tokens = self._encode_all(view)
        blocks = [
            self._windows(tokens, np.arange(start, min(start + WINDOWS_PER_BLOCK, view.length)), instruction)
            for start in range(0, view.length, WINDOWS_PER_BLOCK)
        ]
        if not blocks:
            empty = np.zeros(0, dtype=np.float32)
            return Prediction(empty, np.zeros((0, len(self.stages)), dtype=np.float32), empty)
        progress, probabilities, spread = (np.concatenate(part) for part in zip(*blocks, strict=True))
        return Prediction(progress, probabilities, spread)

    def stream(self, task: str | None = None) -> StageStream:
        """Follow an episode frame by frame, at the rate of the training store (``provenance["fps"]``)."""
        return StageStream(self, task)

    def streams(self, count: int, task: str | None = None, every: int = 1) -> StageStreams:
        """Follow ``count`` episodes at once, looking at every so many frames of the store's rate."""
        return StageStreams(self, count, task, every)

    def card(self) -> str:
        """The model card, in Markdown."""
        return stage_model_card(self.description, self.provenance, self.stages, self.priors.tolist())

    def look(
        self, images: Mapping[str, npt.NDArray[np.uint8]], state: npt.NDArray[np.float32] | None = None
    ) -> ModelInputs:
        """What the network takes of n frames (n, H, W, 3) of any size by key and their states (n, D_s).

        A frozen encoder runs here; each image counts as encoded.
        """
        if self.frozen is None:
            inputs: dict[str, npt.NDArray[Any]] = {
                key: resize(images[key], size) for key, size in self.description.cameras.items()
            }
        else:
            inputs = {key: self.frozen.encode(images[key]) for key in self.cameras}
        self.frames_encoded += sum(len(rows) for rows in inputs.values())
        return ModelInputs(inputs, state)

    def encode_block(self, looks: ModelInputs, start: ModelInputs, block: int) -> torch.Tensor:
        """Tokens (n, C + 1, D) of n <= block frames.

        Args:
            looks: of the n frames.
            start: of the first frames of their episodes, n or 1 where it is the same episode.
            block: frames to compute with.
        """
        count = len(next(iter(looks.inputs.values())))
        change = self.description.encoder.change
        pixels = {
            key: self._inputs(fill(with_change(rows, start.inputs[key]) if change else rows, block))
            for key, rows in looks.inputs.items()
        }
        joint = origin = None
        if self.network.state is not None and looks.state is not None and start.state is not None:
            joint = self.network.state.standardise(torch.from_numpy(fill(looks.state, block)).to(self.device))
            first = start.state if len(start.state) == 1 else fill(start.state, block)
            origin = self.network.state.standardise(torch.from_numpy(first).to(self.device)).expand_as(joint)
        with torch.inference_mode(), exact_arithmetic(self.device):
            return self.network.encode(pixels, joint, origin)[:count]

    def read_block(self, windows: torch.Tensor, slot: npt.NDArray[np.int64], task: str | None) -> Said:
        """Progress (B,), probabilities (B, K), spread (B,) at the given slot of windows (B, S, C + 1, D)."""
        text = task if task is not None else self.description.task
        instruction = self._instruction(text)
        with torch.inference_mode(), exact_arithmetic(self.device):
            heads = self.network(windows, instruction.expand(len(windows), -1), sparse=self.head == SPARSE)
            row, at = torch.arange(len(windows)), torch.from_numpy(slot)
            here = Heads(heads.logits[row, at], heads.within[row, at])
            parts = compose(here, self._cumulative(text), argmax=self.description.reward.composition == "argmax")
        progress, chances, spread = (part.cpu().numpy() for part in parts)
        return progress, chances, spread

    def _encode_all(self, view: EpisodeView) -> torch.Tensor:
        blocks: list[torch.Tensor] = []
        first: ModelInputs | None = None
        stored = self._stored_features(view)
        for start, stop in view.spans(FRAMES_PER_BLOCK):
            state = view.state(start, stop)
            if stored is not None:
                looks = ModelInputs({key: rows[start:stop] for key, rows in stored.items()}, state)
            else:
                looks = self.look(view.images(start, stop), state)
            first = looks.take(slice(0, 1)) if first is None else first
            blocks.append(self.encode_block(looks, first, FRAMES_PER_BLOCK))
        return torch.cat(blocks) if blocks else torch.zeros(0, device=self.device)

    def _windows(
        self, tokens: torch.Tensor, newest: npt.NDArray[np.int64], task: str | None
    ) -> list[npt.NDArray[np.float32]]:
        frames, slot = regular_window(fill(newest, WINDOWS_PER_BLOCK), self.description.shape)
        windows = tokens[torch.from_numpy(frames).to(self.device)]
        return [part[: len(newest)] for part in self.read_block(windows, slot, task)]

    @property
    def frozen(self) -> FrozenEncoder | None:
        """The frozen encoder, loaded when it is first needed; None where the encoder is part of the model.

        Raises:
            ModelError: its weights cannot be had, or are not those of the training.
        """
        settings = self.description.encoder
        if self._frozen is None and isinstance(settings, FrozenSettings):
            frozen = FrozenEncoder(settings, self.device)
            if dict(frozen.identity) != self.description.identity:
                raise ModelError(
                    f"encoder.source={settings.source} is not the encoder that the model was trained with (weights "
                    f"{str(self.description.identity.get('weights_sha256'))[:12]}...); put those weights there"
                )
            self._frozen = frozen
        return self._frozen

    def store_features(self, store: Any, episodes: Sequence[Any]) -> int:
        """Encode what a store does not hold yet and keep it there; `predict` reads it from now on.

        Returns the number of images encoded. There is nothing to do where the encoder is part of the model.
        """
        if self.description.features == 0:
            return 0
        self.stored = StoredFeatures(store, self.description.identity, self.cameras)
        encoded = self.stored.make(self._loaded, episodes)
        self.frames_encoded += encoded
        return encoded

    def _loaded(self) -> FrozenEncoder:
        frozen = self.frozen
        assert frozen is not None
        return frozen

    def _stored_features(self, view: EpisodeView) -> dict[str, npt.NDArray[np.float16]] | None:
        """Features of a stored episode by camera, where `store_features` has seen to them."""
        uuid = getattr(view.episode, "uuid", None)
        if self.stored is None or uuid is None or not self.stored.has(uuid):
            return None
        return {key: self.stored.read(uuid, key) for key in self.cameras}

    def _instruction(self, text: str) -> torch.Tensor:
        """(1, E) vector of an instruction; of all phrasings of one task that of the first."""
        if text not in self._told:
            said = self._phrasings.task(text)
            if getattr(self.description.encoder, "text", False):
                self._told[text] = torch.from_numpy(self._loaded().encode_text([said])).float().to(self.device)
            elif self.description.text_identity:
                self._told[text] = self._reader().encode([said]).to(self.device)
            else:
                self._told[text] = word_vectors([said]).to(self.device)
        return self._told[text]

    def _reader(self) -> SentenceEncoder:
        """The sentence encoder, loaded when it is first needed.

        Raises:
            ModelError: it cannot be read, or is not the one of the training.
        """
        if self._sentences is None:
            source = self.description.reward.text
            reader = SentenceEncoder(source, self.device)
            if reader.identity != self.description.text_identity:
                raise ModelError(
                    f"reward.text={source} is not the sentence encoder that the model was trained with (weights "
                    f"{self.description.text_identity[:12]}...); put those weights there"
                )
            self._sentences = reader
        return self._sentences

    def _inputs(self, rows: npt.NDArray[Any]) -> torch.Tensor:
        moved = torch.from_numpy(rows).to(self.device)
        return moved.float() if self.description.features else to_pixels(moved)


class StageStream:
    """Estimates frame by frame: each image is encoded once, and only tokens of the window are kept."""

    def __init__(self, model: StageRewardModel, task: str | None) -> None:
        self._model, self._task = model, task
        shape = model.description.shape
        self._first: torch.Tensor | None = None
        self._start: ModelInputs | None = None
        self._recent: deque[torch.Tensor] = deque(maxlen=shape.history * shape.gap + 1)
        self._count = 0

    def reset(self) -> None:
        """Begin a new episode."""
        self._first, self._start, self._count = None, None, 0
        self._recent.clear()

    def step(self, frames: Mapping[str, npt.NDArray[np.uint8]], state: npt.ArrayLike | None = None) -> Estimate:
        """Estimate for the newest frame; images (H, W, 3) uint8 by key, state (D,).

        Raises:
            ModelError: a camera or the state is missing or has another shape than in training.
        """
        model = self._model
        size = model.description.state_size
        looks = model.look(*checked_step(model.cameras, model.state_key, size, frames, state))
        self._start = looks.take(slice(None)) if self._start is None else self._start
        token = model.encode_block(looks, self._start, 1)[0]
        self._first = token if self._first is None else self._first
        self._recent.append(token)
        indices, slot = regular_window(np.array([self._count]), model.description.shape)
        oldest = self._count + 1 - len(self._recent)
        # Index 0 is the first frame, and what fills up a window that is still short; the others are recent.
        window = [self._recent[i - oldest] if i >= max(oldest, 1) else self._first for i in indices[0].tolist()]
        progress, probabilities, spread = model.read_block(torch.stack(window)[None], slot, self._task)
        self._count += 1
        return Estimate(float(progress[0]), probabilities[0], float(spread[0]))
