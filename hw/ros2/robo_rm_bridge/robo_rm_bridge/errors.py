"""What can be wrong with a message."""

from __future__ import annotations

from robo_hw.errors import HardwareError


class MessageError(HardwareError, ValueError):
    """A message cannot be used; says which field and why."""
