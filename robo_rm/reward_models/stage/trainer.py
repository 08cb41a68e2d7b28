"""What trains the stage-aware model: its windows, what is hidden from the network, the losses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robo_datasets.store.instructions import Phrasings
from robo_rm.encoders.conv import word_vectors
from robo_rm.encoders.frozen import FrozenEncoder
from robo_rm.encoders.sentences import SentenceEncoder
from robo_rm.labels.mismatch import mismatch_instructions, nothing_done, rephrased
from robo_rm.labels.plan import Windows, draw_windows, relabelled
from robo_rm.reward_models.blocks import channels_last, to_pixels
from robo_rm.reward_models.frames import with_change
from robo_rm.reward_models.stage.losses import Targets, stage_loss
from robo_rm.reward_models.stage.model import StageDescription, StageRewardModel
from robo_rm.reward_models.stage.network import Heads, StageNetwork, compose
from robo_rm.reward_models.stage.sparse import SPARSE
from robo_rm.settings import OptimiserSettings
from robo_rm.training.augment import augment_window
from robo_rm.training.data import TrainingData
from robo_rm.training.lipschitz import between, lipschitz_penalty
from robo_rm.training.objective import IMAGES, WINDOWS, WORDS, RewardObjective


class Batch:
    """Windows and the images and states gathered with them.

    ``images`` (B * S, h, w, C) uint8 by key, or features (B * S, N) of a frozen encoder;
    ``state`` (B * S, D) or None; ``sparse`` are the windows under the sparse labels, where both are learned.
    """

    def __init__(
        self,
        windows: Windows,
        instructions: list[str],
        images: dict[str, npt.NDArray[Any]],
        state: npt.NDArray[np.float32] | None,
        sparse: Windows | None = None,
    ) -> None:
        self.windows, self.instructions, self.images, self.state = windows, instructions, images, state
        self.sparse = sparse


class StageObjective(RewardObjective[Batch, StageNetwork]):
    """A stage-aware network, its batches and losses.

    Args:
        description: the model to be.
        data: training split.
        settings: of the optimiser.
        seed: of weights and every draw.
        device: cpu or cuda.
        frozen: the frozen encoder, for its text tower.
        sentences: the sentence encoder that instructions are read with, instead of words.
    """

    losses: tuple[str, ...] = ("total", "stage", "within", "progress")

    def __init__(
        self,
        description: StageDescription,
        data: TrainingData,
        settings: OptimiserSettings,
        seed: int,
        device: str = "cpu",
        frozen: FrozenEncoder | None = None,
        sentences: SentenceEncoder | None = None,
    ) -> None:
        self.description, self.data, self.frozen, self.sentences = description, data, frozen, sentences
        self._phrasings = Phrasings(description.instruction_groups)
        self._texts: dict[str, torch.Tensor] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = description.network()
        if network.state is not None and data.states is not None:
            network.state.measure(np.concatenate(data.states))
        super().__init__(channels_last(network.to(device)), settings, seed, device)
        self._cumulative = description.cumulative(device)
        self._sparse: Callable[[str], torch.Tensor] | None = None
        if description.sparse is not None:
            self._sparse = description.cumulative(device, SPARSE)
            self.losses = (*self.losses, "sparse")

    def batch(self, number: int) -> Batch:
        """The windows of a batch with their images and states."""
        windows = draw_windows(
            np.random.default_rng((self.seed, WINDOWS, number)),
            self.data.labels,
            self.episodes_of(number, len(self.data)),
            self.description.shape,
            self.description.reward.plan,
        )
        sparse = None if self.data.sparse is None else relabelled(windows, self.data.sparse)
        instructions = [self.data.tasks[episode] for episode in windows.episode.tolist()]
        reward = self.description.reward
        right = instructions
        windows, instructions = mismatch_instructions(
            np.random.default_rng((self.seed, WORDS, number)),
            windows,
            instructions,
            self.data.tasks,
            reward.instruction_mismatch,
            self._phrasings,
        )
        wrong = np.array([text != own for text, own in zip(instructions, right, strict=True)])
        hidden = (
            np.random.default_rng((self.seed, WORDS, number, 1)).random(len(instructions)) < reward.instruction_dropout
        )
        if sparse is not None:
            sparse = nothing_done(sparse, wrong)
        if self._phrasings.groups:
            instructions = rephrased(
                np.random.default_rng((self.seed, WORDS, number, 2)), instructions, ~wrong, self._phrasings
            )
        # A wrong instruction is never hidden: nothing would tell why the progress is 0.
        instructions = [
            "" if hide and not lie else text for text, hide, lie in zip(instructions, hidden, wrong, strict=True)
        ]
        rng = np.random.default_rng((self.seed, IMAGES, number))
        chosen = windows.episode, windows.frames
        images = {
            key: np.concatenate([self._look(rng, int(e), key, f) for e, f in zip(*chosen, strict=True)])
            for key in self.data.cameras
        }
        state = None
        if self.data.states is not None:
            rows = [self.data.states[e][f] for e, f in zip(*chosen, strict=True)]
            state = np.concatenate(rows)
        return Batch(windows, instructions, images, state, sparse)

    def _begins(self, batch: Batch, cumulative: Callable[[str], torch.Tensor] | None = None) -> torch.Tensor:
        """P_0 .. P_K (B, K + 1) of the tasks that are really seen, by which labels were made; after a wrong instruction
        progress is 0 by any."""
        of = cumulative or self._cumulative
        return torch.stack([of(self.data.tasks[episode]) for episode in batch.windows.episode.tolist()])

    def _look(
        self, rng: np.random.Generator, episode: int, key: str, frames: npt.NDArray[np.int64]
    ) -> npt.NDArray[Any]:
        """Images, changed in appearance, or features of a window, with their change since slot 0 where it is shown."""
        rows = self.data.reader.read(episode, key, frames)
        if self.data.features is None:
            rows = augment_window(rows, rng, self.description.reward.augmentation)
        # Slot 0 of every window is the first frame of its episode.
        return with_change(rows, rows[:1]) if self.description.encoder.change else rows

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The masked losses over all slots."""
        settings = self.description.reward.loss
        with self.half():
            tokens = self._tokens(batch)
            forced = self.chance(len(batch.instructions), self.description.reward.teacher_forcing)[:, None]
            seen = self.network.look(tokens, self._vectors(batch.instructions))
            heads = self._heads(seen, batch.windows, forced)
            sparse = None if batch.sparse is None else self._heads(seen, batch.sparse, forced, sparse=True)
        losses = stage_loss(heads, _targets(batch.windows, self.device), self._begins(batch)[:, None], settings)
        if sparse is not None and batch.sparse is not None:
            begins = self._begins(batch, self._sparse)[:, None]
            losses["sparse"] = stage_loss(sparse, _targets(batch.sparse, self.device), begins, settings)["total"]
            losses["total"] = losses["total"] + losses["sparse"]
        if settings.lipschitz:
            points = between(tokens.detach().float())
            penalty = lipschitz_penalty(lambda at: self._last_progress(at, batch), points, settings.slope)
            losses["total"] = losses["total"] + settings.lipschitz * penalty
        return losses

    def model(self, provenance: Mapping[str, Any]) -> StageRewardModel:
        """The model of a copy of the weights as they are now."""
        model = StageRewardModel(copy.deepcopy(self.network), self.description, provenance, self.device)
        model.stored = self.data.features
        return model

    def _last_progress(self, tokens: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Progress (B,) at the last slot of windows of tokens (B, S, C + 1, D)."""
        heads = self.network(tokens, self._vectors(batch.instructions))
        last = Heads(heads.logits[:, -1].float(), heads.within[:, -1].float())
        return compose(last, self._begins(batch))[0]

    def _tokens(self, batch: Batch) -> torch.Tensor:
        """Tokens (B, S, C + 1, D) of a batch, with the state and the images hidden in some windows."""
        reward, network = self.description.reward, self.network
        count, slots = batch.windows.frames.shape
        kind = torch.bfloat16 if self.bf16 else torch.float32
        given = {key: torch.from_numpy(value).to(self.device) for key, value in batch.images.items()}
        frozen = self.data.features is not None
        pixels = {key: value.float() if frozen else to_pixels(value, kind) for key, value in given.items()}
        state = first = shown = None
        if network.state is not None and batch.state is not None:
            state = network.state.standardise(torch.from_numpy(batch.state).to(self.device))
            state = state + reward.state_noise * torch.randn_like(state)
            offset = reward.state_offset * torch.randn(count, 1, state.shape[-1], device=state.device)
            state = state + offset.expand(-1, slots, -1).flatten(0, 1)
            first = state.unflatten(0, (count, slots))[:, :1].expand(-1, slots, -1).flatten(0, 1)
            shown = self.chance(count, 1 - reward.state_dropout)[:, None].expand(-1, slots).flatten()
        tokens = network.encode(pixels, state, first, shown)
        if reward.image_dropout:
            seen = self.chance(count, 1 - reward.image_dropout).repeat_interleave(slots)
            tokens = torch.cat([tokens[:, :-1] * seen[:, None, None], tokens[:, -1:]], dim=1)
        return tokens.unflatten(0, (count, slots))

    def _heads(self, seen: torch.Tensor, windows: Windows, forced: torch.Tensor, sparse: bool = False) -> Heads:
        truth = torch.from_numpy(windows.stage).to(self.device)
        heads = self.network.read(seen, torch.where(forced, truth, torch.full_like(truth, -1)), sparse)
        return Heads(heads.logits.float(), heads.within.float())

    def _vectors(self, instructions: list[str]) -> torch.Tensor:
        """(B, E) vectors of instructions."""
        reads = self.frozen is not None and self.description.encoder.text
        if not reads and self.sentences is None:
            return word_vectors(instructions).to(self.device)
        for text in set(instructions) - self._texts.keys():
            if self.sentences is not None:
                self._texts[text] = self.sentences.encode([text])[0].cpu()
            elif self.frozen is not None:
                self._texts[text] = torch.from_numpy(self.frozen.encode_text([text])[0]).float()
        return torch.stack([self._texts[text] for text in instructions]).to(self.device)


def _targets(windows: Windows, device: str) -> Targets:
    fields = (windows.supervised, windows.stage, windows.within, windows.progress, windows.complete)
    return Targets(*(torch.from_numpy(values).to(device) for values in fields))
