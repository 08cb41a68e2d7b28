"""A penalty on steep rewards: E (|grad_x r| - k)_+^2 on points between samples.

A reward that jumps between demonstrations and what a policy does is easy to exploit; holding its slope keeps small
differences small. Of the family of gradient penalties (WGAN-GP, arXiv 1704.00028), one-sided: slopes below k are free.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def between(samples: torch.Tensor) -> torch.Tensor:
    """Points on the lines from each sample (B, ...) to another one of the batch, one draw for each."""
    other = samples[torch.randperm(len(samples)).to(samples.device)]
    share = torch.rand(len(samples), *[1] * (samples.ndim - 1)).to(samples.device)
    return other + share * (samples - other)


def lipschitz_penalty(
    score: Callable[[torch.Tensor], torch.Tensor], points: torch.Tensor, bound: float
) -> torch.Tensor:
    """Mean of (|grad score| - bound)_+^2.

    Args:
        score: from points (B, ...) to (B,).
        points: where the slope is measured.
        bound: k, the slope that is free.
    """
    at = points.detach().requires_grad_()
    # The fused kernels of attention have no second derivative.
    with sdpa_kernel(SDPBackend.MATH):
        (slope,) = torch.autograd.grad(score(at).sum(), at, create_graph=True)
    steepness = torch.linalg.vector_norm(slope.flatten(1) + 1e-12, dim=1)
    return F.relu(steepness - bound).square().mean()
