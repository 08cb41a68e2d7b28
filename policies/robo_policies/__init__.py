"""Simulated environments, scripted experts, policies trained from demonstrations, and their evaluation."""

from __future__ import annotations

import importlib
from typing import Any

# Each public name and the module that holds it; imported only when asked for, so that the command starts at once.
_EXPORTS: dict[str, str] = {
    "Execution": "robo_policies.cloning.settings",
    "evaluate": "robo_policies.evaluation.evaluate",
    "load_policy": "robo_policies.cloning.learned",
    "make_env": "robo_policies.envs",
    "train_lerobot_policy": "robo_policies.cloning.lerobot_training",
    "train_policy": "robo_policies.cloning.training",
}

__all__ = [*_EXPORTS]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_EXPORTS]
