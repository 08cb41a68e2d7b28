"""Reward models for robot demonstrations: labels, models, training, scoring, metrics, weights and shaping."""

from __future__ import annotations

import importlib
from typing import Any

from robo_core import __version__

# Each public name and the module that holds it; imported only when asked for, so that the command starts at once.
_EXPORTS: dict[str, str] = {
    "rabc_weights": "robo_rm.weights.rabc",
    "stage_priors": "robo_rm.labels.progress",
    "progress_labels": "robo_rm.labels.progress",
    "Prediction": "robo_rm.reward_models.prediction",
    "load_reward_model": "robo_rm.reward_models.saving",
    "check_reward_model": "robo_rm.reward_models.checker",
    "store_weights": "robo_rm.weights.rabc",
    "shaped_reward": "robo_rm.shaping.potential_based",
    "check_shaping": "robo_rm.shaping.checker",
}
_MODULES = ("metrics",)

__all__ = [*_EXPORTS, *_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
