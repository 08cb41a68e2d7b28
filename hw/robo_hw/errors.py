"""What can go wrong on the robot's side, each with one message: what is wrong, where, and what to do.

This floor stands alone on a robot's own computer, so it has its own base class; the command knows it by name.
"""

from __future__ import annotations


class HardwareError(Exception):
    """Base of every error of this package: a mistake that a person at the robot can mend."""


class ContractError(HardwareError, ValueError):
    """A contract file is missing, unreadable or wrong; lists every problem with its key."""


class ContractMismatchError(HardwareError, ValueError):
    """Two contracts that have to agree differ; names each field."""


class ArmRefusedError(HardwareError, RuntimeError):
    """The arm may not be armed, or a fault not be reset, now; lists every reason."""
