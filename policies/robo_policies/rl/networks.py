"""Networks of the learner: a Gaussian actor squashed by tanh, and an ensemble of critics computed as one."""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn
from torch.nn import functional

LOG_STD_RANGE = (-5.0, 2.0)


class Actor(nn.Module):
    """A squashed Gaussian over actions in [-1, 1]^A (SAC, arXiv 1812.05905, appendix C).

    Args:
        observation_size: length of what it sees.
        action_size: A.
        width: of its two hidden layers.
    """

    def __init__(self, observation_size: int, action_size: int, width: int) -> None:
        super().__init__()
        last = nn.Linear(width, 2 * action_size)
        self.body = nn.Sequential(
            nn.Linear(observation_size, width), nn.LayerNorm(width), nn.ReLU(),
            nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(),
            last,
        )  # fmt: skip
        with torch.no_grad():
            last.weight.mul_(0.01)

    def forward(self, observation: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Actions (B, A) made of standard normal ``noise`` (B, A), and their log-densities (B,)."""
        mean, spread = self.body(observation).chunk(2, dim=-1)
        low, high = LOG_STD_RANGE
        log_std = low + 0.5 * (high - low) * (torch.tanh(spread) + 1)
        raw = mean + log_std.exp() * noise
        # log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2 x)), which does not lose digits for large x.
        squash = 2 * (math.log(2) - raw - functional.softplus(-2 * raw))
        density = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        return torch.tanh(raw), (density - squash).sum(dim=-1)

    def best(self, observation: torch.Tensor) -> torch.Tensor:
        """The action (B, A) at the middle of the distribution."""
        mean, _ = self.body(observation).chunk(2, dim=-1)
        return torch.tanh(mean)


class Critics(nn.Module):
    """E critics with LayerNorm (RLPD, arXiv 2302.02948) in batched matrix products.

    Args:
        observation_size: length of what they see.
        action_size: A.
        width: of their two hidden layers.
        count: E.
    """

    def __init__(self, observation_size: int, action_size: int, width: int, count: int) -> None:
        super().__init__()
        sizes = [observation_size + action_size, width, width, 1]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for inside, outside in itertools.pairwise(sizes):
            bound = 1 / math.sqrt(inside)
            self.weights.append(nn.Parameter(torch.empty(count, inside, outside).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(count, 1, outside).uniform_(-bound, bound)))
        self.gains = nn.ParameterList([nn.Parameter(torch.ones(count, 1, width)) for _ in range(2)])
        self.shifts = nn.ParameterList([nn.Parameter(torch.zeros(count, 1, width)) for _ in range(2)])
        self.count, self.width = count, width

    def forward(
        self, observation: torch.Tensor, action: torch.Tensor, which: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Values (E, B); of the critics ``which`` alone, where given."""
        layers = [self.weights, self.biases, self.gains, self.shifts]
        if which is not None:
            chosen = [[part.index_select(0, which) for part in parts] for parts in layers]
        else:
            chosen = [list(parts) for parts in layers]
        weights, biases, gains, shifts = chosen
        x = torch.cat([observation, action], dim=-1).expand(len(weights[0]), -1, -1)
        for layer in range(2):
            x = torch.baddbmm(biases[layer], x, weights[layer])
            x = torch.addcmul(shifts[layer], functional.layer_norm(x, (self.width,)), gains[layer])
            x = functional.relu(x)
        return torch.baddbmm(biases[2], x, weights[2]).squeeze(-1)
