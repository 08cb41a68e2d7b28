"""The policy in one process, the arm's bridge in another, on the same computer or, over mutual TLS, on another.

The bridge holds a ``PolicyClient``, which never blocks; the policy's process runs a ``PolicyServer``. Messages are
msgpack maps checked against a schema, of bounded size; nothing received is ever executed. Both sides prove who they are
before anything else (``docs/network.md``); images travel in shared memory where the two share a computer.
``docs/deploying.md`` tells how the parts are used together.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robo_hw.transport.address import Address as Address
    from robo_hw.transport.client import PolicyClient as PolicyClient
    from robo_hw.transport.credentials import Credentials as Credentials
    from robo_hw.transport.reports import ClientState as ClientState
    from robo_hw.transport.reports import ClientStatus as ClientStatus
    from robo_hw.transport.reports import Timeouts as Timeouts
    from robo_hw.transport.reports import Update as Update
    from robo_hw.transport.served import Observation as Observation
    from robo_hw.transport.served import PolicyInfo as PolicyInfo
    from robo_hw.transport.served import PolicyRun as PolicyRun
    from robo_hw.transport.served import ProgressEstimate as ProgressEstimate
    from robo_hw.transport.served import ProgressRun as ProgressRun
    from robo_hw.transport.served import ServedPolicy as ServedPolicy
    from robo_hw.transport.served import ServedProgress as ServedProgress
    from robo_hw.transport.served import ServerInfo as ServerInfo
    from robo_hw.transport.server import PolicyServer as PolicyServer

_EXPORTS: dict[str, str] = {
    "Address": "robo_hw.transport.address",
    "Credentials": "robo_hw.transport.credentials",
    "ClientState": "robo_hw.transport.reports",
    "ClientStatus": "robo_hw.transport.reports",
    "Observation": "robo_hw.transport.served",
    "PolicyClient": "robo_hw.transport.client",
    "PolicyInfo": "robo_hw.transport.served",
    "PolicyRun": "robo_hw.transport.served",
    "PolicyServer": "robo_hw.transport.server",
    "ProgressEstimate": "robo_hw.transport.served",
    "ProgressRun": "robo_hw.transport.served",
    "ServedPolicy": "robo_hw.transport.served",
    "ServedProgress": "robo_hw.transport.served",
    "ServerInfo": "robo_hw.transport.served",
    "Timeouts": "robo_hw.transport.reports",
    "Update": "robo_hw.transport.reports",
}

__all__ = [*_EXPORTS]


def __getattr__(name: str) -> object:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_EXPORTS]
