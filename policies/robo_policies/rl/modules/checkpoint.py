"""Weights and optimizer memory as plain tensors by name, which is all that checkpoints hold."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from robo_rm.training.checkpoint import under


def cpu_copies(tensors: Mapping[str, torch.Tensor], prefix: str = "") -> dict[str, torch.Tensor]:
    """Contiguous copies on the CPU, each name after the prefix."""
    return {f"{prefix}{name}": value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def optimizer_state(name: str, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Moments and step counts of each parameter as ``<name>.<number>.<field>``."""
    return {
        f"{name}.{number}.{field}": torch.as_tensor(value).detach().cpu().contiguous().clone()
        for number, values in optimizer.state_dict()["state"].items()
        for field, value in values.items()
    }


def restore_optimizer(name: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Restore what `optimizer_state` returned; settings such as the learning rate stay.

    Raises:
        ValueError: it is of an optimizer of other parameters.
    """
    whole = optimizer.state_dict()
    whole["state"] = {}
    for key, value in under(tensors, f"{name}.").items():
        number, _, field = key.partition(".")
        whole["state"].setdefault(int(number), {})[field] = value
    optimizer.load_state_dict(whole)
