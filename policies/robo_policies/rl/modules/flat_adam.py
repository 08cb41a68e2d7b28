"""Adam over many small parameters at once."""

from __future__ import annotations

import torch
from torch import nn


class FlatAdam:
    """Adam over all parameters of a network as one vector: on a CPU a small network's steps cost calls, not arithmetic.

    The parameters become views of that vector, and their gradients of another; they must never be set to None.

    Args:
        network: on the device it stays on.
        learning_rate: of the steps.
        weight_decay: fraction of the weights, times the learning rate, removed at each step.
    """

    def __init__(self, network: nn.Module, learning_rate: float, weight_decay: float = 0.0) -> None:
        self.values = flatten(network)
        self._gradient = torch.zeros_like(self.values)
        start = 0
        for parameter in network.parameters():
            parameter.grad = self._gradient[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
        whole = nn.Parameter(self.values)
        whole.grad = self._gradient
        self.adam = torch.optim.AdamW([whole], learning_rate, weight_decay=weight_decay, fused=True)

    def zero_grad(self) -> None:
        """Zero the gradients."""
        self._gradient.zero_()

    def step(self) -> None:
        """One step along the gradients accumulated in the network's parameters."""
        self.adam.step()


def flatten(network: nn.Module) -> torch.Tensor:
    """Make the parameters of a network views of one vector, and return it."""
    parameters = list(network.parameters())
    whole = torch.cat([parameter.detach().ravel() for parameter in parameters])
    start = 0
    for parameter in parameters:
        parameter.data = whole[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    return whole
