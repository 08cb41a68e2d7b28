"""Networks of the learners: a Gaussian actor squashed by tanh, an ensemble of critics computed as one, and MLPs."""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn
from torch.nn import functional

LOG_STD_RANGE = (-5.0, 2.0)


class SquashedGaussianActor(nn.Module):
    """A squashed Gaussian over actions in [-1, 1]^A (SAC, arXiv 1812.05905, appendix C).

    Args:
        observation_size: input size.
        action_size: A.
        width: of its two hidden layers.
    """

    def __init__(self, observation_size: int, action_size: int, width: int) -> None:
        super().__init__()
        # The last layer is drawn first, which fixes the weights that a seed gives.
        last = nn.Linear(width, 2 * action_size)
        self.body = layer_norm_mlp(observation_size, width, last)
        with torch.no_grad():
            # Nearly the same wide distribution everywhere at the start.
            last.weight.mul_(0.01)

    def forward(self, observation: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Actions (B, A) from standard normal ``noise`` (B, A), and their log-densities (B,).

        With u = mean + std * noise and a = tanh(u), the density of a follows from that of u by the change of variables

            log p(a) = sum_i [log N(u_i; mean_i, std_i) - log(1 - tanh(u_i)^2)]
        """
        mean, raw_std = self.body(observation).chunk(2, dim=-1)
        low, high = LOG_STD_RANGE
        log_std = low + 0.5 * (high - low) * (torch.tanh(raw_std) + 1)
        raw = mean + log_std.exp() * noise
        # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), which loses no digits for large u.
        squash = 2 * (math.log(2) - raw - functional.softplus(-2 * raw))
        density = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        return torch.tanh(raw), (density - squash).sum(dim=-1)

    def mode(self, observation: torch.Tensor) -> torch.Tensor:
        """The action (B, A) at the middle of the distribution."""
        mean, _ = self.body(observation).chunk(2, dim=-1)
        return torch.tanh(mean)


class CriticEnsemble(nn.Module):
    """E critics with LayerNorm (RLPD, arXiv 2302.02948) in batched matrix products.

    Args:
        observation_size: input size, without the action.
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
        self, observation: torch.Tensor, action: torch.Tensor, members: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Values (E, B); of the given ``members`` alone, where given."""
        layers = [self.weights, self.biases, self.gains, self.shifts]
        if members is not None:
            chosen = [[part.index_select(0, members) for part in parts] for parts in layers]
        else:
            chosen = [list(parts) for parts in layers]
        weights, biases, gains, shifts = chosen
        x = torch.cat([observation, action], dim=-1).expand(len(weights[0]), -1, -1)
        for layer in range(2):
            x = torch.baddbmm(biases[layer], x, weights[layer])
            x = torch.addcmul(shifts[layer], functional.layer_norm(x, (self.width,)), gains[layer])
            x = functional.relu(x)
        return torch.baddbmm(biases[2], x, weights[2]).squeeze(-1)


def layer_norm_mlp(inside: int, width: int, last: int | nn.Module) -> nn.Sequential:
    """Two hidden layers with LayerNorm and ReLU from (B, inside), then a linear layer of a size, or the given one."""
    return nn.Sequential(
        nn.Linear(inside, width), nn.LayerNorm(width), nn.ReLU(),
        nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(),
        nn.Linear(width, last) if isinstance(last, int) else last,
    )  # fmt: skip
