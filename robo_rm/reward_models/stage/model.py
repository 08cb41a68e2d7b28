"""The stage-aware reward model: predict, stream, save (protocol: `robo_rm.reward_models.base.RewardModel`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from robo_rm.labels.plan import WindowShape, regular_window
from robo_rm.reward_models.blocks import FRAMES_PER_BLOCK, exact_arithmetic, fill
from robo_rm.reward_models.frames import EpisodeView, ModelInputs
from robo_rm.reward_models.prediction import Prediction
from robo_rm.reward_models.protocol import Observations, Said
from robo_rm.reward_models.stage.card import stage_model_card
from robo_rm.reward_models.stage.description import StageDescription
from robo_rm.reward_models.stage.network import Heads, StageNetwork, compose
from robo_rm.reward_models.stage.sparse import DENSE, SPARSE, shown_provenance
from robo_rm.reward_models.streams import EncodingModel, Streams
from robo_rm.settings import FrozenSettings

NAME = "stage"

# Windows go through the network in blocks of one size, as frames do.
WINDOWS_PER_BLOCK = 64


class StageRewardModel(EncodingModel):
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
        super().__init__(network, description, provenance, device, stages)
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
        tokens = self.encode_all(view)
        blocks = [
            self._windows(tokens, np.arange(start, min(start + WINDOWS_PER_BLOCK, view.length)), instruction)
            for start in range(0, view.length, WINDOWS_PER_BLOCK)
        ]
        if not blocks:
            empty = np.zeros(0, dtype=np.float32)
            return Prediction(empty, np.zeros((0, len(self.stages)), dtype=np.float32), empty)
        progress, probabilities, spread = (np.concatenate(part) for part in zip(*blocks, strict=True))
        return Prediction(progress, probabilities, spread)

    def streams(self, count: int, task: str | None = None, every: int = 1) -> StageStreams:
        """Follow ``count`` episodes at once, looking at every so many frames of the store's rate."""
        return StageStreams(self, count, task, every)

    def card(self) -> str:
        """The model card, in Markdown."""
        return stage_model_card(self.description, self.provenance, self.stages, self.priors.tolist())

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

    def _inputs_of(self, view: EpisodeView) -> Iterator[ModelInputs]:
        stored = self._stored_features(view)
        if stored is None:
            return super()._inputs_of(view)
        return (
            ModelInputs({key: rows[slice(*span)] for key, rows in stored.items()}, view.state(*span))
            for span in view.spans(FRAMES_PER_BLOCK)
        )

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

    def _seen(self, key: str, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """A frozen encoder runs here."""
        return super()._seen(key, images) if self.frozen is None else self.frozen.encode(images)

    def _pixels(self, rows: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(rows).to(self.device).float() if self.description.features else super()._pixels(rows)


class StageStreams(Streams[StageRewardModel]):
    """Estimates of N episodes, step by step.

    Args:
        model: the stage-aware model.
        count: N.
        task: the instruction; the model's own if None.
        every: frames at the store's rate between two steps; must divide the model's gap.

    Raises:
        ModelError: ``every`` does not divide the gap, or counts below 1.
    """

    def __init__(self, model: StageRewardModel, count: int, task: str | None = None, every: int = 1) -> None:
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
        if (now == 0).any():
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
