"""The training step of the hop model: balanced hops with references, what the network is not told, the losses."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from robo_rm.hop.adapt import RatedAdamW, adopt, parameter_groups
from robo_rm.hop.labels import Truth, hop_bounds
from robo_rm.hop.losses import hop_loss
from robo_rm.hop.model import HopDescription, HopRewardModel
from robo_rm.hop.network import HopNetwork, channels_last
from robo_rm.hop.references import reference_frames
from robo_rm.hop.sampling import Hops, HopSampler
from robo_rm.settings import OptimiserSettings
from robo_rm.stage.model import to_pixels
from robo_rm.training.augment import augment_window
from robo_rm.training.data import TrainingData
from robo_rm.training.trainer import IMAGES, WINDOWS, NetworkTrainer

# Pairs of reference moments that the hops of a step share for each task.
EXCHANGED = 6

Indices = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """B hops, their U pairs of reference moments, and the images and states of all.

    The moments of ``images`` (M, h, w, 3) uint8 by key, ``state`` and ``origin`` (M, D_s) are, in this order: here (B),
    there (B), starts (U), goals (U). ``origin`` is the state at the first frame of each moment's episode.
    ``reference`` (B,) says which pair a hop is seen with. ``low`` and ``high`` (2, B) bound the progress of here and
    there; ``zero`` (B,) marks hops from a frame to itself.
    """

    images: dict[str, npt.NDArray[np.uint8]]
    state: npt.NDArray[np.float32] | None
    origin: npt.NDArray[np.float32] | None
    reference: npt.NDArray[np.int64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    zero: npt.NDArray[np.bool_]


class HopTrainer(NetworkTrainer[HopNetwork]):
    """A hop network in training.

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

    losses: tuple[str, ...] = ("total", "distribution", "value")

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
            states = np.concatenate(data.states)
            # A joint that never moves is left in its own units, not blown up.
            scale = states.std(axis=0)
            network.state.mean.copy_(torch.from_numpy(states.mean(axis=0)))
            network.state.scale.copy_(torch.from_numpy(np.where(scale > 1e-4, scale, 1.0).astype(np.float32)))
        self.taken = adopt(network, init) if init is not None else set()
        """Names of the weights that came from ``init``."""
        network.references.fill(chosen, truths, data)
        super().__init__(channels_last(network.to(device)), settings, seed, device)
        if init is not None:
            groups = parameter_groups(self.network, self.taken, description.reward.adaptation, settings.weight_decay)
            self._optimiser = RatedAdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))

    def batch(self, step: int) -> Batch:
        """The hops of a step with their references, images and states."""
        rng = np.random.default_rng((self.seed, WINDOWS, step))
        hops = self.sampler.draw(rng, self.description.reward.hops)
        reference, places = self._references(rng, hops)
        zero = hops.here == hops.there
        # (episode, frame) of the moments of each hop, and of each pair of references.
        hopped = np.stack([np.stack([hops.episode, frames], axis=1) for frames in (hops.here, hops.there)])
        ends = np.array([reference_frames(self.truths[place]) for place in places], dtype=np.int64).reshape(-1, 2)
        paired = np.stack([np.stack([places, frames], axis=1) for frames in ends.T])
        images = self._images(np.random.default_rng((self.seed, IMAGES, step)), hopped, paired, zero)
        state = origin = None
        if self.data.states is not None:
            moments = np.concatenate([hopped.reshape(-1, 2), paired.reshape(-1, 2)])
            state = np.stack([self.data.states[episode][frame] for episode, frame in moments.tolist()])
            origin = np.stack([self.data.states[episode][0] for episode in moments[:, 0].tolist()])
        low, high = (
            np.array([[getattr(self.truths[e], side)[f] for e, f in rows] for rows in hopped.tolist()], float)
            for side in ("low", "high")
        )
        return Batch(images, state, origin, reference, low, high, zero)

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
            logits = self.network(start.repeat(6, 1), goal.repeat(6, 1), origin, arrival)
        low, high = hop_targets(batch.low, batch.high, batch.zero)
        lowest, highest = (torch.from_numpy(side).float().to(self.device) for side in (low, high))
        return hop_loss(self.network, logits, lowest, highest, self.description.reward.loss)

    def model(self, provenance: Mapping[str, Any]) -> HopRewardModel:
        """The model of the averaged weights as they are now."""
        return HopRewardModel(copy.deepcopy(self.averaged), self.description, provenance, self.device)

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

    def _images(
        self, rng: np.random.Generator, hopped: Indices, paired: Indices, zero: npt.NDArray[np.bool_]
    ) -> dict[str, npt.NDArray[np.uint8]]:
        """Images of the moments (2, B, 2) of hops and (2, U, 2) of references, each (episode, frame)."""
        settings = self.description.reward.augmentation
        images: dict[str, npt.NDArray[np.uint8]] = {}
        for key, (height, width) in self.data.cameras.items():
            block = np.empty((hopped[..., 0].size + paired[..., 0].size, height, width, 3), dtype=np.uint8)
            together = block[: hopped[..., 0].size].reshape(2, -1, height, width, 3)
            for row, still in enumerate(zero):
                shown = self.data.images(int(hopped[0, row, 0]), key, hopped[:, row, 1])
                together[:, row] = augment_window(shown, rng, settings)
                if still:
                    # The same picture under two lights: else a hop of nothing would be told by its bits.
                    together[1, row] = augment_window(shown[1:2], rng, settings)[0]
            for row, (episode, frame) in enumerate(paired.reshape(-1, 2).tolist(), start=hopped[..., 0].size):
                shown = self.data.images(episode, key, np.array([frame], dtype=np.int64))
                block[row] = augment_window(shown, rng, settings)[0]
            images[key] = block
        return images

    def _embed(self, batch: Batch) -> torch.Tensor:
        reward, network, count = self.description.reward, self.network, len(batch.reference)
        kind = self.autocast or torch.float32
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
