"""What `robo-rm run-policy` needs of an arm: connect, read, write, disconnect; everything in the contract's units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from robo_hw.errors import HardwareError


class ArmError(HardwareError):
    """An arm cannot be made, connected, read or commanded; says which, and what to do."""


@dataclass(frozen=True)
class CameraFrame:
    """One image of one camera. ``stamp``: s by the camera's own steady clock; None where it has none."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    stamp: float | None = None


@dataclass(frozen=True)
class Reading:
    """What an arm reported at one moment.

    ``names`` and ``positions`` (N,): those joints that were there, in the contract's units; nothing is filled in.
    ``problems``: what could not be read, one line each, by part. ``success``: what a simulation knows.
    """

    names: Sequence[str]
    positions: np.ndarray
    images: Mapping[str, CameraFrame] = field(default_factory=dict)
    arrays: Mapping[str, tuple[Sequence[str], np.ndarray]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    success: bool | None = None
    stage: int = -1


class Arm(Protocol):
    """One arm. ``read`` and ``write`` are called from two threads; an arm that cannot bear that locks inside."""

    name: str
    vector_names: Mapping[str, Sequence[str]]
    """Further inputs that it gives, as ``observation.environment_state``, with the names of their values."""
    stages: Sequence[str]
    """Names of the task's stages, where it knows the stage."""

    @property
    def at_disconnect(self) -> str:
        """What happens to the motors' torque when it is disconnected, in one sentence."""

    def connect(self) -> None:
        """Connect; moves nothing. Raises ArmError: it cannot, or it does not fit the contract."""

    def read(self) -> Reading:
        """The newest of everything; may block. Raises any exception of the driver."""

    def write(self, positions: np.ndarray) -> None:
        """Send joint positions (D,); may block. Raises any exception of the driver."""

    @property
    def connected(self) -> bool:
        """Whether the driver still holds the connection."""

    def disconnect(self) -> None:
        """Let go of it; never raises."""
