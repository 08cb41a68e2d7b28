"""What the engine trains: a network with its batches, its losses, its optimiser and its learning-rate schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from robo_rm.reward_models.protocol import TrainedModel
from robo_rm.settings import OptimiserSettings
from robo_rm.training.device import autocast, computes_bf16
from robo_rm.training.schedule import warmup_cosine

# Fraction of the peak learning rate at which the cosine ends.
FLOOR = 0.02
# Streams of random numbers, kept apart by a second number.
EPISODES, WINDOWS, IMAGES, WORDS = 0, 1, 2, 3

Batch = TypeVar("Batch")
Network = TypeVar("Network", bound=torch.nn.Module)


class Objective(Generic[Batch]):
    """A network, its batches and its losses; `robo_rm.training.engine.Engine` trains any.

    Attributes:
        network: what is trained, on its device.
        losses: names of what `loss` returns, ``total`` first.
        rate_setting: the setting of the learning rate, named where a training diverges.
    """

    network: torch.nn.Module
    losses: tuple[str, ...] = ("total",)
    rate_setting = "optimiser.learning_rate"

    def optimizer(self) -> torch.optim.Optimizer:
        """A fresh optimiser; the ``lr`` of its groups is the peak of their schedule."""
        raise NotImplementedError

    def rate(self, step: int, total: int) -> float:
        """Fraction of the peak learning rate at a step of ``total``."""
        raise NotImplementedError

    def batch(self, number: int) -> Batch:
        """The batch of a number; made ahead of time in a thread, so it depends on the seed and the number alone."""
        raise NotImplementedError

    def begin(self, number: int) -> None:
        """Called before the loss of batch ``number`` is computed."""

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The losses named in `losses`, each a scalar."""
        raise NotImplementedError


class RewardObjective(Objective[Batch], Generic[Batch, Network]):
    """Base for reward models: every random draw of a step comes from (seed, step).

    A reward model type gives `batch`, `loss` and `model`. Only the forward pass of the network is under `half`.

    Args:
        network: with fresh weights, on the device.
        settings: of the optimiser.
        seed: of every draw.
        device: cpu or cuda.
    """

    network: Network

    def __init__(self, network: Network, settings: OptimiserSettings, seed: int, device: str) -> None:
        self.network, self.settings, self.seed, self.device = network, settings, seed, device
        self.bf16 = computes_bf16(device)
        self.number = 0

    def model(self, provenance: Mapping[str, object]) -> TrainedModel:
        """The model of a copy of the weights as they are now."""
        raise NotImplementedError

    def half(self) -> torch.autocast:
        """bfloat16 arithmetic where the machine has it."""
        return autocast(self.device, self.bf16)

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW that decays matrices and kernels, not offsets and norms."""
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.settings.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.settings.learning_rate, betas=(0.9, 0.98))

    def rate(self, step: int, total: int) -> float:
        """A warm-up over steps, times a cosine over the whole training."""
        return warmup_cosine(step / total, (step + 1) / max(self.settings.warmup, 1), FLOOR)

    def begin(self, number: int) -> None:
        """Draw from (seed, number) from here on."""
        self.number = number
        torch.manual_seed(self.seed * 1_000_003 + number)

    def episodes_of(self, number: int, count: int) -> npt.NDArray[np.int64]:
        """Episodes of a batch's samples out of ``count``: all of them in random order, again and again."""
        batch = self.settings.batch
        places = np.arange(number * batch, (number + 1) * batch)
        rounds = {
            turn: np.random.default_rng((self.seed, EPISODES, turn)).permutation(count)
            for turn in np.unique(places // count).tolist()
        }
        return np.array([rounds[place // count][place % count] for place in places.tolist()], dtype=np.int64)

    def chance(self, count: int, probability: float) -> torch.Tensor:
        """(count,) bool, each True with ``probability``."""
        return (torch.rand(count) < probability).to(self.device)
