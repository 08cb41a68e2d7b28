"""How long a message may be, as the contract fixes it."""

from __future__ import annotations

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.transport.images import ImageLayout
from robo_hw.transport.wire import SMALL

HELLO = 384 * 1024
"""Before the handshake: the longest contract and some names."""
MOST_NUMBERS = 8192
"""Of further low-dimensional features with one observation."""


def observation_limit(layout: ImageLayout, shared: bool) -> int:
    """Bytes of an observation; images only count where they travel in the frame."""
    return SMALL + 8 * MOST_NUMBERS + (0 if shared else layout.pixels)


def chunk_limit(contract: RobotContract) -> int:
    """Bytes of an answer: the longest chunk of the contract, or the text of a refusal."""
    return 2 * SMALL + 8 * contract.safety.max_horizon * len(contract.joints)
