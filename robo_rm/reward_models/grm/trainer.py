"""What trains the hop model: balanced hops with references, what is hidden from the network, the losses."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from robo_rm.reward_models.blocks import channels_last, to_pixels
from robo_rm.reward_models.frames import with_change
from robo_rm.reward_models.grm.adapt import adopt, parameter_groups
from robo_rm.reward_models.grm.labels import Truth, hop_bounds
from robo_rm.reward_models.grm.losses import hop_loss
from robo_rm.reward_models.grm.model import HopDescription, HopRewardModel
from robo_rm.reward_models.grm.network import HopNetwork
from robo_rm.reward_models.grm.references import reference_frames
from robo_rm.reward_models.grm.sampling import Hops, HopSampler
from robo_rm.settings import OptimiserSettings
from robo_rm.training.augment import augment_window
from robo_rm.training.data import TrainingData
from robo_rm.training.objective import IMAGES, WINDOWS, RewardObjective

# Pairs of reference moments that the hops of a step share for each task.
EXCHANGED = 6

Indices = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """B hops, their U pairs of reference moments, and the images and states of all.

    The moments of ``images`` (M, h, w, C) uint8 by key, ``state`` and ``origin`` (M, D_s) are, in this order: here (B),
    there (B), starts (U), goals (U). ``origin`` is the state at the first frame of each moment's episode.
    ``reference`` (B,) says which pair a hop is seen with. ``low`` and ``high`` (2, B) bound the progress of here and
    there, and ``stage`` (2, B) is where they lie, -1 where unlabelled; ``zero`` (B,) marks hops from a frame to itself.
    """

    images: dict[str, npt.NDArray[np.uint8]]
    state: npt.NDArray[np.float32] | None
    origin: npt.NDArray[np.float32] | None
    reference: npt.NDArray[np.int64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    stage: npt.NDArray[np.int64]
    zero: npt.NDArray[np.bool_]


class HopObjective(RewardObjective[Batch, HopNetwork]):
    """A hop network, its batches and losses.

    Args:
        description: the model to be.
        data: training split.
        truths: what is known of each episode's progress.
        chosen: places of the episodes whose moments are kept as references.
        settings: of the optimiser.
        seed: of weights and every draw.
        device: cpu or cuda.
        init: a model to start from.
    """

    losses: tuple[str, ...] = ("total", "distribution", "value", "stage")

    def __init__(
        self,
        description: HopDescription,
        data: TrainingData,
        truths: Sequence[Truth],
        chosen: Sequence[int],
        settings: OptimiserSettings,
        seed: int,
        device: str = "cpu",
        init: HopRewardModel | None = None,
    ) -> None:
        self.description, self.data, self.truths = description, data, list(truths)
        self.sampler = HopSampler(truths, description.reward.plan)
        self._reached = [place for place, truth in enumerate(truths) if truth.reached]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = description.network()
        if network.state is not None and data.states is not None:
            network.state.measure(np.concatenate(data.states))
        self.taken = adopt(network, init) if init is not None else set()
        """Names of the weights that came from ``init``."""
        network.references.fill(chosen, truths, data)
        super().__init__(channels_last(network.to(device)), settings, seed, device)

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW; weights that came from ``init`` move at a fraction of the learning rate."""
        if not self.taken:
            return super().optimizer()
        groups = parameter_groups(self.network, self.taken, self.description.reward.adaptation, self.settings)
        return torch.optim.AdamW(groups, betas=(0.9, 0.98))

    def batch(self, number: int) -> Batch:
        """The hops of a batch with their references, images and states."""
        rng = np.random.default_rng((self.seed, WINDOWS, number))
        hops = self.sampler.draw(rng, self.description.reward.hops)
        reference, places = self._references(rng, hops)
        zero = hops.here == hops.there
        # (episode, frame, the frame it is seen to begin with) of the moments of hops, and of pairs of references.
        begins = np.repeat(self._begins(rng, hops.episode)[None], 2, 0)
        hopped = np.stack([np.repeat(hops.episode[None], 2, 0), np.stack([hops.here, hops.there]), begins], axis=-1)
        ends = np.array([reference_frames(self.truths[place]) for place in places], dtype=np.int64).reshape(-1, 2)
        paired = np.stack([np.repeat(places[None], 2, 0), ends.T, np.zeros_like(ends.T)], axis=-1)
        images = self._images(np.random.default_rng((self.seed, IMAGES, number)), hopped, paired, zero)
        state = origin = None
        if self.data.states is not None:
            moments = np.concatenate([hopped.reshape(-1, 3), paired.reshape(-1, 3)]).tolist()
            state = np.stack([self.data.states[episode][frame] for episode, frame, _ in moments])
            origin = np.stack([self.data.states[episode][begin] for episode, _, begin in moments])
        low, high = (
            np.array([[getattr(self.truths[e], side)[f] for e, f, _ in rows] for rows in hopped.tolist()], float)
            for side in ("low", "high")
        )
        labels = self.data.labels
        stage = np.array([[labels[e].stage[f] for e, f, _ in rows] for rows in hopped.tolist()], dtype=np.int64)
        return Batch(images, state, origin, reference, low, high, stage, zero)

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Losses of every hop there and back, and of both its moments seen from the start and from the goal."""
        with self.half():
            embedded = self._embed(batch)
            count = len(batch.reference)
            here, there = embedded[: 2 * count].unflatten(0, (2, count))
            start, goal = embedded[2 * count :].unflatten(0, (2, -1))[
                :, torch.from_numpy(batch.reference).to(self.device)
            ]
            origin = torch.cat([here, there, start, start, goal, goal])
            arrival = torch.cat([there, here, here, there, here, there])
            seen = self.network(start.repeat(6, 1), goal.repeat(6, 1), origin, arrival)
        low, high = hop_targets(batch.low, batch.high, batch.zero)
        lowest, highest = (torch.from_numpy(side).float().to(self.device) for side in (low, high))
        # The stage is read as it will be used: at moments seen from the start.
        stage = np.full((6, count), -1)
        stage[2:4] = batch.stage
        stages = torch.from_numpy(stage.reshape(-1)).to(self.device)
        return hop_loss(self.network, seen, lowest, highest, stages, self.description.reward.loss)

    def model(self, provenance: Mapping[str, Any]) -> HopRewardModel:
        """The model of a copy of the weights as they are now."""
        return HopRewardModel(copy.deepcopy(self.network), self.description, provenance, self.device)

    def _references(self, rng: np.random.Generator, hops: Hops) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Which pair each hop is seen with, and the episodes that the pairs come from."""
        tasks, exchange = self.data.tasks, self.description.reward.plan.exchange
        pools: dict[str, list[int]] = {}
        for task in dict.fromkeys(tasks[int(episode)] for episode in hops.episode):
            able = [place for place in self._reached if tasks[place] == task]
            pools[task] = rng.permutation(able)[:EXCHANGED].tolist()
        own = set(self._reached)
        chosen = []
        for episode in hops.episode.tolist():
            swapped = episode not in own or rng.random() < exchange
            chosen.append(int(rng.choice(pools[tasks[episode]])) if swapped else episode)
        episodes, reference = np.unique(chosen, return_inverse=True)
        return reference.astype(np.int64), episodes.astype(np.int64)

    def _begins(self, rng: np.random.Generator, episodes: Indices) -> Indices:
        """The frame (B,) that each hop's episode is seen to begin with: mostly the first, else any other."""
        elsewhere = rng.random(len(episodes)) < self.description.reward.plan.elsewhere
        lengths = np.array([len(self.truths[episode].low) for episode in episodes.tolist()])
        return np.where(elsewhere, rng.integers(lengths), 0)

    def _images(
        self, rng: np.random.Generator, hopped: Indices, paired: Indices, zero: npt.NDArray[np.bool_]
    ) -> dict[str, npt.NDArray[np.uint8]]:
        """Images of the moments (2, B, 3) of hops and (2, U, 3) of references, each (episode, frame, begin)."""
        images: dict[str, npt.NDArray[np.uint8]] = {}
        channels = 6 if self.description.encoder.change else 3
        for key, (height, width) in self.data.cameras.items():
            block = np.empty((hopped[..., 0].size + paired[..., 0].size, height, width, channels), dtype=np.uint8)
            together = block[: hopped[..., 0].size].reshape(2, -1, height, width, channels)
            for row, still in enumerate(zero):
                together[:, row] = self._look(rng, key, hopped[:, row])
                if still:
                    # The same picture under two lights: else a hop of nothing would be recognised by its bits.
                    together[1, row] = self._look(rng, key, hopped[1:, row])[0]
            for row, moment in enumerate(paired.reshape(-1, 3), start=hopped[..., 0].size):
                block[row] = self._look(rng, key, moment[None])[0]
            images[key] = block
        return images

    def _look(self, rng: np.random.Generator, key: str, moments: Indices) -> npt.NDArray[np.uint8]:
        """Images (n, h, w, C) of moments (n, 3) of one episode under one draw of appearance, with their change since
        its beginning where that is shown."""
        change = self.description.encoder.change
        frames = np.concatenate([moments[:1, 2], moments[:, 1]]) if change else moments[:, 1]
        rows = self.data.reader.read(int(moments[0, 0]), key, frames)
        rows = augment_window(rows, rng, self.description.reward.augmentation)
        return with_change(rows[1:], rows[:1]) if change else rows

    def _embed(self, batch: Batch) -> torch.Tensor:
        reward, network, count = self.description.reward, self.network, len(batch.reference)
        kind = torch.bfloat16 if self.bf16 else torch.float32
        pixels = {key: to_pixels(torch.from_numpy(value).to(self.device), kind) for key, value in batch.images.items()}
        pairs = (len(next(iter(batch.images.values()))) - 2 * count) // 2

        def spread(rows: torch.Tensor) -> torch.Tensor:
            """From one row for each hop and each pair of references to one for each of their moments."""
            return torch.cat([torch.cat([rows[:count]] * 2), torch.cat([rows[count:]] * 2)])

        state = origin = see = feel = None
        if network.state is not None and batch.state is not None and batch.origin is not None:
            state, origin = (
                network.state.standardise(torch.from_numpy(values).to(self.device))
                for values in (batch.state, batch.origin)
            )
            # The moments of a hop, and those of a pair of references, come from one episode and share its offset.
            offset = spread(reward.state_offset * torch.randn(count + pairs, state.shape[-1], device=state.device))
            state = state + offset + reward.state_noise * torch.randn_like(state)
            origin = origin + offset
            seen = self.chance(count + pairs, 1 - reward.image_dropout)
            felt = self.chance(count + pairs, 1 - reward.state_dropout) | ~seen
            see, feel = spread(seen), spread(felt)
        return network.encode(pixels, state, origin, see, feel)


def hop_targets(
    low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], zero: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Bounds (6B,) of the hops here-there, there-here, start-here, start-there, goal-here, goal-there."""
    ahead = hop_bounds((low[0], low[1]), (high[0], high[1]))
    back = hop_bounds((low[1], low[0]), (high[1], high[0]))
    sides = []
    for side, (one, other) in zip((low, high), zip(ahead, back, strict=True), strict=True):
        still = np.where(zero, 0.0, one), np.where(zero, 0.0, other)
        sides.append(np.concatenate([*still, side[0], side[1], side[0] - 1, side[1] - 1]))
    return sides[0], sides[1]
