"""What runs on the robot's own computer: the robot contract and the safety core. Numpy only, no torch, no ROS."""

from __future__ import annotations

import importlib
from typing import Any

# Each public name and the module that holds it; imported only when asked for.
_EXPORTS: dict[str, str] = {
    "ActionChunk": "robo_hw.chunk",
    "ArmRefusedError": "robo_hw.errors",
    "Command": "robo_hw.states",
    "ContractError": "robo_hw.errors",
    "ContractMismatchError": "robo_hw.errors",
    "Event": "robo_hw.events",
    "Fault": "robo_hw.states",
    "HardwareError": "robo_hw.errors",
    "ManualClock": "robo_hw.clock",
    "RobotContract": "robo_hw.contract",
    "SafetyCore": "robo_hw.safety_core",
    "State": "robo_hw.states",
    "Status": "robo_hw.states",
    "SteadyClock": "robo_hw.clock",
    "Stop": "robo_hw.states",
    "SubmitResult": "robo_hw.chunk",
    "example_contracts": "robo_hw.contract",
    "frame_digest": "robo_hw.watch",
}

__all__ = [*_EXPORTS]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_EXPORTS]
