"""A policy for tidy_drawer that has learned nothing: quick to make, for tests of what runs policies."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robo_policies.cloning.act import ActLearner
from robo_policies.cloning.checkpoint import write_card
from robo_policies.cloning.learned import load_policy
from robo_policies.cloning.settings import ActSettings


def drawer_policy(folder: Path, settings: ActSettings, seed: int = 0) -> Any:
    """Write one with random weights into ``folder`` and load it."""
    torch.manual_seed(seed)
    dims = {"observation.state": 7, "observation.environment_state": 15, "action": 7}
    statistics = {
        key: {"mean": np.zeros(size, np.float32), "std": np.ones(size, np.float32)} for key, size in dims.items()
    }
    ActLearner(dataclasses.replace(settings, use_vae=False), dims).save(folder, statistics)
    write_card(folder, {"policy": "act"})
    return load_policy(folder)
