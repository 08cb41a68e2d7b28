"""What can go wrong on the robot's side, each with one message: what is wrong, where, and what to do.

Without the other packages' dependencies: a robot's own computer needs ``robo_core.errors`` only.
"""

from __future__ import annotations

from robo_core.errors import RoboError


class HardwareError(RoboError):
    """Base of every error of this package: a mistake that a person at the robot can fix."""


class ContractError(HardwareError, ValueError):
    """A contract file is missing, unreadable or wrong; lists every problem with its key."""


class ArmRefusedError(HardwareError, RuntimeError):
    """The arm cannot be armed, or a fault cannot be reset, now; lists every reason."""


class TransportError(HardwareError):
    """Base of what goes wrong between the bridge and the policy server."""


class AddressError(TransportError, ValueError):
    """An address is not understood, is of another machine without TLS, is not private, or cannot be listened on."""


class CredentialsError(TransportError, ValueError):
    """A secret or a certificate is missing, unreadable, readable by others, or expired; names the file."""


class AuthenticationError(TransportError):
    """The other side of a connection did not prove who it is; says how."""


class FrameError(TransportError, ValueError):
    """What came over the socket is not a message of this protocol; names the field."""


class HandshakeError(TransportError, ValueError):
    """The two sides do not fit together; ``field`` says in what."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class ObservationError(TransportError, ValueError):
    """An observation does not fit the contract: an unknown camera, a wrong image size; names it."""
