"""Optimisers' memory as plain tensors by name, so that a checkpoint needs no pickle."""

from __future__ import annotations

from collections.abc import Mapping

import torch


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
