"""What runs on the robot's own computer: the robot contract and the safety core. Numpy only, no torch, no ROS."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robo_hw.contract.robot_contract import RobotContract as RobotContract
    from robo_hw.contract.robot_contract import example_contracts as example_contracts
    from robo_hw.errors import ArmRefusedError as ArmRefusedError
    from robo_hw.errors import ContractError as ContractError
    from robo_hw.errors import ContractMismatchError as ContractMismatchError
    from robo_hw.errors import HardwareError as HardwareError
    from robo_hw.observation.states import Command as Command
    from robo_hw.observation.states import Fault as Fault
    from robo_hw.observation.states import State as State
    from robo_hw.observation.states import Status as Status
    from robo_hw.observation.states import Stop as Stop
    from robo_hw.safety.chunk import ActionChunk as ActionChunk
    from robo_hw.safety.chunk import SubmitResult as SubmitResult
    from robo_hw.safety.clock import ManualClock as ManualClock
    from robo_hw.safety.clock import SteadyClock as SteadyClock
    from robo_hw.safety.events import Event as Event
    from robo_hw.safety.safety_core import SafetyCore as SafetyCore
    from robo_hw.safety.watch import frame_digest as frame_digest

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


def __getattr__(name: str) -> object:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_EXPORTS]
