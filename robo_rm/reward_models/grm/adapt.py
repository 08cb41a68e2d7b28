"""Starting from a trained model: what is taken over, and how fast it may change."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from robo_rm.reward_models.grm.model import HopRewardModel
from robo_rm.reward_models.grm.network import HopNetwork
from robo_rm.reward_models.grm.settings import HopAdaptation
from robo_rm.settings import OptimiserSettings

_ENCODERS = ("images.", "state.")


def adopt(network: HopNetwork, model: HopRewardModel) -> set[str]:
    """Give a network the weights of a model as far as they fit; returns the names of what it took.

    A camera's encoder comes from the camera of the same name, else from the one in the same place; state encoders with
    the same number of joints fit. The comparison fits where there are as many cameras and a state as before, and its
    later layers always do. Whatever else stays fresh. References are never taken: the new task has its own.
    """
    source = {name: tensor for name, tensor in model.network.state_dict().items() if not _is_reference(name)}
    cameras = list(model.cameras)
    renamed: dict[str, torch.Tensor] = {name: t for name, t in source.items() if not name.startswith("images.")}
    for number, key in enumerate(network.cameras):
        other = cameras.index(key) if key in cameras else number
        prefix = f"images.{other}."
        for name, tensor in source.items():
            if name.startswith(prefix):
                renamed[f"images.{number}.{name[len(prefix) :]}"] = tensor
    mine = network.state_dict()
    taken = {name for name, tensor in renamed.items() if name in mine and mine[name].shape == tensor.shape}
    network.load_state_dict({name: renamed[name] for name in taken}, strict=False)
    return taken


def left_fresh(network: HopNetwork, taken: Iterable[str]) -> list[str]:
    """The parts of a network of which something took nothing, in words."""
    known = set(taken)
    parts = {
        "images": "image encoders",
        "state": "state encoder",
        "compare": "comparison",
        "head": "head",
        "stage": "stage head",
    }
    fresh = {name.split(".")[0] for name, _ in network.named_parameters() if name not in known}
    return [words for part, words in parts.items() if part in fresh]


def parameter_groups(
    network: HopNetwork, taken: Iterable[str], settings: HopAdaptation, optimiser: OptimiserSettings
) -> list[dict[str, object]]:
    """Groups for AdamW: what was taken over moves at a fraction of the learning rate, what is fresh at the whole."""
    known = set(taken)
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        fraction = 1.0
        if name in known:
            fraction = settings.encoder_rate if name.startswith(_ENCODERS) else settings.head_rate
        decay = optimiser.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((optimiser.learning_rate * fraction, decay), []).append(parameter)
    return [{"params": rows, "lr": rate, "weight_decay": decay} for (rate, decay), rows in groups.items()]


def _is_reference(name: str) -> bool:
    return name.startswith("references.")
