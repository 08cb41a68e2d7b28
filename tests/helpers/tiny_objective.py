"""A convolution that learns to sum a picture: as small as an objective of the training engine comes."""

from __future__ import annotations

import numpy as np
import torch

from robo_rm.training.budget import Budget
from robo_rm.training.engine import Engine, Recipe
from robo_rm.training.objective import Objective


class TinyObjective(Objective[torch.Tensor]):
    """Sample n is the same whatever the batch size, so that two batches of 4 are one of 8."""

    losses = ("total", "absolute")

    def __init__(self, size: int = 4, dropout: float = 0.0, spoilt: int = -1) -> None:
        self.size, self.spoilt = size, spoilt
        torch.manual_seed(0)
        layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Dropout(dropout),
            torch.nn.Linear(8 * 4 * 4, 1),
        )  # fmt: skip
        # As policies keep their networks for pictures.
        self.network = layers.to(memory_format=torch.channels_last)

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.network.parameters(), lr=0.01, fused=True)

    def rate(self, step: int, total: int) -> float:
        return 1 - step / (2 * total)

    def batch(self, number: int) -> torch.Tensor:
        rows = range(number * self.size, (number + 1) * self.size)
        samples = torch.from_numpy(np.stack([np.random.default_rng(row).random((3, 6, 6)) for row in rows])).float()
        return samples * torch.nan if number == self.spoilt else samples

    def loss(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        error = self.network(batch)[:, 0] - batch.mean((1, 2, 3))
        return {"total": error.square().mean(), "absolute": error.detach().abs().mean()}


def tiny_engine(steps: int = 8, minutes: float | None = None, seconds: float = 1e9, **changes: float) -> Engine:
    """The objective in training; ``changes`` are its own."""
    return Engine(TinyObjective(**changes), Recipe(Budget(steps, minutes), 0.9, 1.0, seconds), "cpu")


def weights_of(engine: Engine) -> list[torch.Tensor]:
    """The averaged weights, a copy."""
    with engine.averaged():
        return [value.clone() for value in engine.objective.network.state_dict().values()]
