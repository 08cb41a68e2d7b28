"""The hop reward model: predict, stream, save (protocol: `robo_rm.reward_models.base.RewardModel`)."""

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
from robo_rm.reward_models.base import BaseRewardModel
from robo_rm.reward_models.blocks import FRAMES_PER_BLOCK, channels_last, exact_arithmetic, fill, to_pixels
from robo_rm.reward_models.frames import EpisodeView, ModelInputs, checked_step, resize, with_change
from robo_rm.reward_models.grm.card import hop_model_card
from robo_rm.reward_models.grm.description import HopDescription
from robo_rm.reward_models.grm.fusion import Fused, Perspectives, fuse
from robo_rm.reward_models.grm.network import HopNetwork
from robo_rm.reward_models.grm.settings import check_hop_settings
from robo_rm.reward_models.grm.streams import HopStreams
from robo_rm.reward_models.placing import place_in_stages
from robo_rm.reward_models.prediction import Estimate, Prediction
from robo_rm.reward_models.protocol import Observations

NAME = "hop"


class HopRewardModel(BaseRewardModel):
    """Progress of a task as hops between moments, after Robo-Dopamine (arXiv 2512.23703).

    Each moment is compared with the one a gap earlier and with start and goal images of training demonstrations; the
    three perspectives are fused (`grm.fusion`). The uncertainty is a standard deviation: that of the hops'
    distributions, of their difference from one reference to another, and of the perspectives from each other.

    Stage probabilities are those of the stage head, where there were stage labels to train one. Else they follow from
    progress: the chance that a normal distribution about it, as wide as the uncertainty, gives each stage's interval of
    progress (the stage priors added up).
    """

    type_name = NAME
    network: HopNetwork
    description: HopDescription

    def __init__(
        self, network: HopNetwork, description: HopDescription, provenance: Mapping[str, Any], device: str = "cpu"
    ) -> None:
        super().__init__(description.stages, list(description.cameras), description.state_key, provenance, device)
        self.network = channels_last(network.to(device)).eval().requires_grad_(False)
        self.description = description
        self._references = self._encode_references()

    @property
    def priors(self) -> npt.NDArray[np.float64]:
        """(K,) share of each stage in progress."""
        return np.asarray(self.description.priors, dtype=np.float64)

    def with_fusion(self, fusion: str, alpha: float | None = None) -> HopRewardModel:
        """The same model with another fusion, for comparisons.

        Raises:
            ConfigError: there is no such fusion.
        """
        old = self.description.reward
        reward = replace(old, fusion=fusion, alpha=old.alpha if alpha is None else alpha)
        check_hop_settings(reward)
        return HopRewardModel(self.network, replace(self.description, reward=reward), self.provenance, self.device)

    def predict(self, episode: Observations, task: str | None = None) -> Prediction:
        """Estimates for every frame of a stored episode or of a mapping of its arrays.

        Each frame is encoded once; memory does not grow with the size of the images times their number.

        Raises:
            ModelError: a camera or the state is missing or has another shape than in training, or the model knows
                several tasks and this is none of them.
        """
        seen = self.perspectives(episode, task)
        fused = self._fuse(seen)
        progress = np.array([moment.progress for moment in fused], dtype=np.float32)
        spread = np.array([moment.uncertainty for moment in fused], dtype=np.float32)
        return Prediction(progress, self._stage_chances(seen, progress, spread), spread)

    def fused(self, episode: Observations, task: str | None = None) -> list[Fused]:
        """T estimates with the perspectives that they were made of; arguments and errors as in `predict`."""
        return self._fuse(self.perspectives(episode, task))

    def _fuse(self, seen: Sequence[Perspectives]) -> list[Fused]:
        fused: list[Fused] = []
        for t, moment in enumerate(seen):
            before = fused[max(t - self.description.gap, 0)].progress if t else None
            fused.append(fuse(moment, before, self.description.reward))
        return fused

    def perspectives(self, episode: Observations, task: str | None = None) -> list[Perspectives]:
        """What the network says of each of T frames, before fusion; arguments and errors as in `predict`."""
        view = EpisodeView(episode, self.cameras, self.state_key, self.description.state_size)
        references = self._pick(task if task is not None else view.task)
        embedded = self._encode_all(view)
        moments: list[Perspectives] = []
        for span in view.spans(FRAMES_PER_BLOCK):
            here = np.arange(*span)
            earlier = np.maximum(here - self.description.gap, 0)
            rows = [torch.from_numpy(fill(frames, FRAMES_PER_BLOCK)).to(self.device) for frames in (earlier, here)]
            moments += self.compare(embedded[rows[0]], embedded[rows[1]], references)[: len(here)]
        return moments

    def stream(self, task: str | None = None) -> HopStream:
        """Follow an episode frame by frame, at the rate of the training store (``provenance["fps"]``)."""
        return HopStream(self, self._pick(task))

    def streams(self, count: int, task: str | None = None, every: int = 1) -> HopStreams:
        """Follow ``count`` episodes at once, looking at every so many frames; ``every`` must divide the gap."""
        return HopStreams(self, self._pick(task), count, every)

    def card(self) -> str:
        """The model card, in Markdown."""
        return hop_model_card(self.description, self.provenance)

    def look(
        self, images: Mapping[str, npt.NDArray[np.uint8]], state: npt.NDArray[np.float32] | None = None
    ) -> ModelInputs:
        """What the network takes of n frames (n, H, W, 3) of any size by key and their states (n, D_s); each image
        counts as encoded."""
        inputs = {key: resize(images[key], size) for key, size in self.description.cameras.items()}
        self.frames_encoded += sum(len(rows) for rows in inputs.values())
        return ModelInputs(inputs, state)

    def encode_block(self, looks: ModelInputs, start: ModelInputs, block: int) -> torch.Tensor:
        """Embeddings (n, E) of n <= block frames.

        Args:
            looks: of the n frames.
            start: of the first frame of their episode.
            block: frames to compute with.
        """
        change = self.description.encoder.change
        shown = {key: with_change(rows, start.inputs[key]) if change else rows for key, rows in looks.inputs.items()}
        return self._embed(ModelInputs(shown, looks.state), start.state, block)

    def _embed(self, looks: ModelInputs, first: npt.NDArray[np.float32] | None, block: int) -> torch.Tensor:
        """Embeddings (n, E) of what the network is shown: images (n, h, w, C) and states (n, D_s), and the states
        (n, D_s) or (1, D_s) at the first frames of their episodes."""
        count = len(next(iter(looks.inputs.values())))
        pixels = {
            key: to_pixels(torch.from_numpy(fill(rows, block)).to(self.device)) for key, rows in looks.inputs.items()
        }
        joint = origin = None
        net = self.network.state
        if net is not None and looks.state is not None and first is not None:
            joint = net.standardise(torch.from_numpy(fill(looks.state, block)).to(self.device))
            origins = first if len(first) == 1 else fill(first, block)
            origin = net.standardise(torch.from_numpy(origins).to(self.device)).expand_as(joint)
        with torch.inference_mode(), exact_arithmetic(self.device):
            return self.network.encode(pixels, joint, origin)[:count]

    def compare(self, earlier: torch.Tensor, here: torch.Tensor, references: torch.Tensor) -> list[Perspectives]:
        """What the network says of n moments.

        Args:
            earlier: embeddings (n, E) of the moments one gap earlier.
            here: embeddings (n, E).
            references: (2, R, E), starts before goals.
        """
        count, pairs = len(here), references.shape[1]
        starts, goals = references.repeat(1, count, 1)
        then, now = earlier.repeat_interleave(pairs, 0), here.repeat_interleave(pairs, 0)
        with torch.inference_mode(), exact_arithmetic(self.device):
            seen, stage = [], None
            for origin in (goals, then, starts):
                compared = self.network(starts, goals, origin, now)
                hop = self.network.expected(compared.hop)
                value, variance = (part.view(count, pairs).double() for part in hop)
                # What the references do not agree on is not known either.
                spread = variance.mean(1) + value.var(1, correction=0)
                seen += [value.mean(1), spread]
                # Of the last of them, as seen from the start.
                stage = compared.stage
            table = torch.stack(seen, dim=1).cpu().numpy()
        chances: list[Any] = [None] * count
        if stage is not None:
            chances = [tuple(row) for row in stage.softmax(-1).view(count, pairs, -1).mean(1).tolist()]
        return [
            Perspectives(hop, forward, 1 + backward, hop_variance, forward_variance, backward_variance, stage)
            for (backward, backward_variance, hop, hop_variance, forward, forward_variance), stage in zip(
                table.tolist(), chances, strict=True
            )
        ]

    def estimate(self, seen: Perspectives, fused: Fused) -> Estimate:
        """The estimate of one moment."""
        progress, spread = (np.array([value], dtype=np.float32) for value in (fused.progress, fused.uncertainty))
        return Estimate(float(progress[0]), self._stage_chances([seen], progress, spread)[0], float(spread[0]))

    def _stage_chances(
        self, seen: Sequence[Perspectives], progress: npt.NDArray[np.float32], spread: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        if self.description.stage_head:
            rows = np.array([moment.stage for moment in seen], dtype=np.float32)
            return rows.reshape(len(seen), len(self.stages))
        return place_in_stages(progress, spread, self.description.priors)

    def _pick(self, task: str | None) -> torch.Tensor:
        """The references (2, R, E) of a task."""
        counts = self.description.references
        if len(counts) == 1:
            return self._references
        task = None if task is None else Phrasings(self.description.instruction_groups).task(task)
        if task not in counts:
            known = ", ".join(repr(name) for name in counts)
            raise ModelError(f"the model has start and goal images of {known}, but none of the task {task!r}")
        names = list(counts)
        before = sum(counts[name] for name in names[: names.index(task)])
        return self._references[:, before : before + counts[task]]

    def _encode_references(self) -> torch.Tensor:
        """Embeddings (2, R, E)."""
        kept = self.network.references
        images = {key: np.ascontiguousarray(kept.images(key).cpu().numpy()) for key in self.cameras}
        state, first = (kept.state.cpu().numpy(), kept.first.cpu().numpy()) if kept.has_state else (None, None)
        return self._embed(ModelInputs(images, state), first, 2 * kept.count).unflatten(0, (2, kept.count))

    def _encode_all(self, view: EpisodeView) -> torch.Tensor:
        blocks: list[torch.Tensor] = []
        first: ModelInputs | None = None
        for span in view.spans(FRAMES_PER_BLOCK):
            looks = self.look(view.images(*span), view.state(*span))
            first = looks.take(slice(0, 1)) if first is None else first
            blocks.append(self.encode_block(looks, first, FRAMES_PER_BLOCK))
        return torch.cat(blocks) if blocks else torch.zeros(0, device=self.device)


class HopStream:
    """Estimates frame by frame: each image is encoded once, and embeddings of one gap are kept."""

    def __init__(self, model: HopRewardModel, references: torch.Tensor) -> None:
        self._model, self._references = model, references
        gap = model.description.gap
        self._recent: deque[torch.Tensor] = deque(maxlen=gap + 1)
        self._fused: deque[float] = deque(maxlen=gap)
        self._start: ModelInputs | None = None

    def reset(self) -> None:
        """Begin a new episode."""
        self._recent.clear()
        self._fused.clear()
        self._start = None

    def step(self, frames: Mapping[str, npt.NDArray[np.uint8]], state: npt.ArrayLike | None = None) -> Estimate:
        """Estimate for the newest frame; images (H, W, 3) uint8 by key, state (D,).

        Raises:
            ModelError: a camera or the state is missing or has another shape than in training.
        """
        model = self._model
        size = model.description.state_size
        looks = model.look(*checked_step(model.cameras, model.state_key, size, frames, state))
        self._start = looks.take(slice(None)) if self._start is None else self._start
        here = model.encode_block(looks, self._start, 1)
        self._recent.append(here)
        seen = model.compare(self._recent[0], here, self._references)[0]
        # Both hold what lies one gap back at their left end, or the first frame where there is no more.
        before = self._fused[0] if self._fused else None
        fused = fuse(seen, before, model.description.reward)
        self._fused.append(fused.progress)
        return model.estimate(seen, fused)
