"""Adam over many small parameters at once, and optimisers' memory as plain tensors by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


class FlatAdam:
    """Adam over all parameters of a network as one vector: on a CPU a small network's steps cost calls, not arithmetic.

    The parameters become views of that vector, and their gradients of another; nobody may set them to None.

    Args:
        network: on the device it stays on.
        learning_rate: of the steps.
        weight_decay: share of the weights, times the learning rate, that goes at each step.
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
        """Forget the gradients."""
        self._gradient.zero_()

    def step(self) -> None:
        """One step along the gradients that the network's parameters have gathered."""
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


def optimiser_state(name: str, optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Moments and step counts of each parameter as ``<name>.<number>.<field>``."""
    return {
        f"{name}.{number}.{field}": torch.as_tensor(value).detach().cpu().contiguous().clone()
        for number, values in optimiser.state_dict()["state"].items()
        for field, value in values.items()
    }


def restore_optimiser(name: str, optimiser: torch.optim.Optimizer, held: Mapping[str, torch.Tensor]) -> None:
    """Take up what `optimiser_state` gave; settings such as the learning rate stay.

    Raises:
        ValueError: it is of an optimiser of other parameters.
    """
    whole = optimiser.state_dict()
    whole["state"] = {}
    for key, value in held.items():
        if key.startswith(f"{name}."):
            number, _, field = key.removeprefix(f"{name}.").partition(".")
            whole["state"].setdefault(int(number), {})[field] = value
    optimiser.load_state_dict(whole)
