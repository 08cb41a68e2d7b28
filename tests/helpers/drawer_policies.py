"""A policy for tidy_drawer that has learned nothing: quick to make, for tests of what runs policies."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robo_policies.cloning.checkpoint import write_card
from robo_policies.cloning.learned import load_policy
from robo_policies.cloning.learners import make_learner
from robo_policies.cloning.settings import ActSettings, DiffusionSettings

PLAIN = {"mean": 0, "std": 1, "min": -1, "max": 1}
"""Statistics that leave values as they are."""


def drawer_policy(folder: Path, settings: ActSettings | DiffusionSettings, seed: int = 0, **card: Any) -> Any:
    """Write one with random weights into ``folder``, with ``card`` in its card, and load it."""
    torch.manual_seed(seed)
    dims = {"observation.state": 7, "observation.environment_state": 15, "action": 7}
    statistics = {
        key: {name: np.full(size, value, np.float32) for name, value in PLAIN.items()} for key, size in dims.items()
    }
    if isinstance(settings, ActSettings):
        settings = dataclasses.replace(settings, use_vae=False)
    make_learner(settings, dims, {}).save(folder, statistics)
    write_card(folder, {"policy": settings.name, **card})
    return load_policy(folder)
