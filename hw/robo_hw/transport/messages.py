"""The messages between bridge and policy server, field by field; what is not in this table is refused by name."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, TypeVar

from robo_hw.errors import FrameError
from robo_hw.transport.wire import array_in

PROTOCOL = 2
"""Version of the protocol; both sides must have the same."""
_MOST_COUNT = 2**53
_LONGEST_TEXT = 2000
ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class Field:
    """What one field may be. ``least`` and ``most`` bound a number, or the length of a text or list.

    ``kind``: ``count`` (whole number), ``number`` (finite), ``text``, ``flag``, ``bytes``, ``texts`` (list), ``array``,
    ``arrays`` (text -> array) or ``shapes`` (text -> list of counts).
    """

    kind: str
    least: float = 0
    most: float = _MOST_COUNT

    def take(self, value: object, where: str) -> object:
        """The checked value, arrays made numpy.

        Raises:
            FrameError: it is something else; names ``where``.
        """
        if self.kind == "count":
            return self._within(value, value, where) if type(value) is int else self._refuse(where, value)
        if self.kind == "number":
            number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
            return self._within(number, number, where) if math.isfinite(number) else self._refuse(where, value)
        if self.kind == "flag":
            return value if isinstance(value, bool) else self._refuse(where, value)
        if self.kind == "text":
            return self._within(value, len(value), where) if isinstance(value, str) else self._refuse(where, value)
        if self.kind == "bytes":
            return value if isinstance(value, bytes) else self._refuse(where, value)
        if self.kind == "texts":
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                return self._refuse(where, value)
            return tuple(self._within(value, len(value), where))
        if self.kind == "array":
            return array_in(value, where)
        if not isinstance(value, dict):  # the two kinds of map
            return self._refuse(where, value)
        if self.kind == "arrays":
            return {key: array_in(item, f"{where}.{key}") for key, item in value.items()}
        for key, sizes in value.items():
            if not isinstance(sizes, list) or not all(type(size) is int and size > 0 for size in sizes):
                return self._refuse(f"{where}.{key}", sizes)
        return {key: tuple(sizes) for key, sizes in value.items()}

    def _within(self, value: ValueT, measure: float, where: str) -> ValueT:
        if not self.least <= measure <= self.most:
            raise FrameError(f"{where}: {measure:g} is not between {self.least:g} and {self.most:g}")
        return value

    def _refuse(self, where: str, value: object) -> NoReturn:
        raise FrameError(f"{where}: {type(value).__name__} instead of a {self.kind}")


Table: TypeAlias = dict[str, dict[str, Field]]
"""Message types, and the fields of each."""
Message: TypeAlias = dict[str, Any]
"""One message. What its fields are is checked against a table where it comes in, which no static type could say."""

_COUNT = Field("count")
_FLAG = Field("flag")
_NUMBER = Field("number", -1e15, 1e15)
_TEXT = Field("text", 0, _LONGEST_TEXT)
_NAMES = Field("texts", 0, 512)

FROM_CLIENT: Table = {
    "hello": {
        "protocol": _COUNT,
        "schema": _TEXT,
        "role": _TEXT,
        "client": Field("text", 1, 64),
        "contract": Field("text", 2, 300_000),
        "contract_hash": _TEXT,
        "task": _TEXT,
        "shared": _FLAG,
        "slots": Field("count", 1, 16),
    },
    "observation": {
        "epoch": _COUNT,
        "sequence": _COUNT,
        "episode": _COUNT,
        "observed_at": _NUMBER,
        "core_epoch": _COUNT,
        "consumed": Field("number", 0, 1e12),
        "want_chunk": _FLAG,
        "want_progress": _FLAG,
        "state": Field("array"),
        "arrays": Field("arrays"),
        "cameras": _NAMES,
        "slot": Field("count", 0, 15),
        "generation": _COUNT,
        "pixels": Field("bytes"),
    },
    "episode": {"episode": _COUNT, "task": _TEXT},
    "ping": {"sequence": _COUNT},
}
"""What a server takes. ``cameras``: those whose images lie in the slot (or, without shared memory, in ``pixels``)."""

FROM_SERVER: Table = {
    "welcome": {
        "protocol": _COUNT,
        "epoch": _COUNT,
        "policy": _TEXT,
        "kind": _TEXT,
        "chunk_size": _COUNT,
        "execution_horizon": _COUNT,
        "history": Field("count", 1, 64),
        "action_rate": Field("number", 0, 1e6),
        "contract_hash": _TEXT,
        "needs": Field("shapes"),
        "start_poses": Field("arrays"),
        "progress_needs": Field("shapes"),
        "progress_rate": Field("number", 0, 1e6),
        "stages": _NAMES,
    },
    "refuse": {"field": _TEXT, "message": Field("text", 0, 100_000)},
    "taken": {"sequence": _COUNT, "slot": Field("count", 0, 15)},
    "chunk": {
        "epoch": _COUNT,
        "sequence": _COUNT,
        "episode": _COUNT,
        "observed_at": _NUMBER,
        "core_epoch": _COUNT,
        "consumed": _NUMBER,
        "joints": _NAMES,
        "actions": Field("array"),
        "seconds": Field("number", 0, 1e6),
        "received": _NUMBER,
        "answered": _NUMBER,
    },
    "progress": {
        "epoch": _COUNT,
        "sequence": _COUNT,
        "episode": _COUNT,
        "observed_at": _NUMBER,
        "progress": Field("number", 0, 1),
        "stage": _COUNT,
        "stage_name": _TEXT,
        "uncertainty": _NUMBER,
        "verdict": _TEXT,
        "false_alarm_rate": Field("number", 0, 1),
        "message": _TEXT,
    },
    "error": {"epoch": _COUNT, "sequence": _COUNT, "field": _TEXT, "message": _TEXT},
    "pong": {"sequence": _COUNT, "received": _NUMBER, "answered": _NUMBER, "busy": Field("number", 0, 1e9)},
}
"""What a client takes. ``received``, ``answered``: by the server's steady clock, which is not the client's; ``busy``:
seconds that the network has been computing on its present observation."""


def check(message: Mapping[str, object], table: Table) -> Message:
    """The message with every field checked and arrays made numpy; ``type`` stays in it.

    Raises:
        FrameError: an unknown type, a field missing, unknown or wrong; names it.
    """
    kind = message.get("type")
    fields = table.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise FrameError(f"type: {str(kind)[:40]!r} is not one of {', '.join(table)}")
    for name in message:
        if name != "type" and name not in fields:
            raise FrameError(f"{kind}.{str(name)[:40]}: unknown field")
    checked: Message = {"type": kind}
    for name, field in fields.items():
        if name not in message:
            raise FrameError(f"{kind}.{name}: missing")
        checked[name] = field.take(message[name], f"{kind}.{name}")
    return checked


def shortened(text: object, most: int = _LONGEST_TEXT) -> str:
    """Text that fits a message."""
    text = str(text)
    return text if len(text) <= most else text[: most - 3] + "..."


def schema_hash() -> str:
    """SHA-256 of both tables: two versions that speak differently do not shake hands."""
    tables = [
        {kind: {name: vars(field) for name, field in fields.items()} for kind, fields in table.items()}
        for table in (FROM_CLIENT, FROM_SERVER)
    ]
    return hashlib.sha256(json.dumps([PROTOCOL, tables], sort_keys=True).encode()).hexdigest()
