"""The hop reward model: predict, stream, save (protocol: `robo_rm.reward_models.base.RewardModel`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robo_core.errors import ModelError
from robo_datasets.store.instructions import Phrasings
from robo_rm.reward_models.blocks import FRAMES_PER_BLOCK, exact_arithmetic, fill
from robo_rm.reward_models.frames import EpisodeView, ModelInputs
from robo_rm.reward_models.grm.card import hop_model_card
from robo_rm.reward_models.grm.description import HopDescription
from robo_rm.reward_models.grm.fusion import Fused, Perspectives, fuse
from robo_rm.reward_models.grm.network import HopNetwork
from robo_rm.reward_models.grm.settings import check_hop_settings
from robo_rm.reward_models.placing import place_in_stages
from robo_rm.reward_models.prediction import Estimate, Prediction
from robo_rm.reward_models.protocol import Observations, Said
from robo_rm.reward_models.streams import EncodingModel, Streams

NAME = "hop"


class HopRewardModel(EncodingModel):
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
        super().__init__(network, description, provenance, device, description.stages)
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
        embedded = self.encode_all(view)
        moments: list[Perspectives] = []
        for span in view.spans(FRAMES_PER_BLOCK):
            here = np.arange(*span)
            earlier = np.maximum(here - self.description.gap, 0)
            rows = [torch.from_numpy(fill(frames, FRAMES_PER_BLOCK)).to(self.device) for frames in (earlier, here)]
            moments += self.compare(embedded[rows[0]], embedded[rows[1]], references)[: len(here)]
        return moments

    def streams(self, count: int, task: str | None = None, every: int = 1) -> HopStreams:
        """Follow ``count`` episodes at once, looking at every so many frames; ``every`` must divide the gap."""
        return HopStreams(self, self._pick(task), count, every)

    def card(self) -> str:
        """The model card, in Markdown."""
        return hop_model_card(self.description, self.provenance)

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
        return self.encode_shown(ModelInputs(images, state), first, 2 * kept.count).unflatten(0, (2, kept.count))


class HopStreams(Streams[HopRewardModel]):
    """Estimates of N episodes, step by step.

    Args:
        model: the hop model.
        references: (2, R, E) embeddings of the task's start and goal images.
        count: N.
        every: frames at the store's rate between two steps; must divide the model's gap.

    Raises:
        ModelError: ``every`` does not divide the gap, or counts below 1.
    """

    def __init__(self, model: HopRewardModel, references: torch.Tensor, count: int, every: int = 1) -> None:
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
