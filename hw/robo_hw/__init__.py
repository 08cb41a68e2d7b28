"""What runs on the robot's own computer: the robot contract and the safety core. Numpy only, no torch, no ROS."""

from __future__ import annotations

import importlib
from typing import Any

# Each public name and the module that holds it; imported only when asked for.
_EXPORTS: dict[str, str] = {
    "ActionChunk": "robo_hw.safety.chunk",
    "ArmRefusedError": "robo_hw.errors",
    "Command": "robo_hw.observation.states",
    "ContractError": "robo_hw.errors",
    "ContractMismatchError": "robo_hw.errors",
    "Event": "robo_hw.safety.events",
    "Fault": "robo_hw.observation.states",
    "HardwareError": "robo_hw.errors",
    "ManualClock": "robo_hw.safety.clock",
    "RobotContract": "robo_hw.contract.robot_contract",
    "SafetyCore": "robo_hw.safety.safety_core",
    "State": "robo_hw.observation.states",
    "Status": "robo_hw.observation.states",
    "SteadyClock": "robo_hw.safety.clock",
    "Stop": "robo_hw.observation.states",
    "SubmitResult": "robo_hw.safety.chunk",
    "example_contracts": "robo_hw.contract.robot_contract",
    "frame_digest": "robo_hw.safety.watch",
}

__all__ = [*_EXPORTS]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_EXPORTS]
