"""What a reader keeps at hand, the least recently used let go first."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Values by key, bounded in number and in bytes; several threads may use it, and a fork may leave it.

    Args:
        most: values kept at once.
        most_bytes: bytes kept at once; one value alone may be larger.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._bytes = 0
        self._lock, self._process = threading.Lock(), os.getpid()

    def get(self, key: Hashable) -> Value | None:
        """The value of a key, which is now the most recently used one; None where it is not kept."""
        with self._guard():
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def get_or_make(self, key: Hashable, make: Callable[[], Value], size: Callable[[Value], int]) -> Value:
        """The value of a key, made where it is not kept; ``size`` gives a value's bytes."""
        found = self.get(key)
        return self.put(key, value := make(), size(value)) if found is None else found

    def put(self, key: Hashable, value: Value, size: int) -> Value:
        """Keep a value of ``size`` bytes and return it, or the one that another thread put there meanwhile."""
        with self._guard():
            if key in self._values:
                return self._values[key][0]
            self._values[key] = value, size
            self._bytes += size
            while len(self._values) > 1 and (len(self._values) > self._most or self._bytes > self._most_bytes):
                self._bytes -= self._values.popitem(last=False)[1][1]
            return value

    def __len__(self) -> int:
        """Values kept."""
        return len(self._values)

    def _guard(self) -> threading.Lock:
        if self._process != os.getpid():
            # The thread that held the lock does not live on in a forked process.
            self._lock, self._process = threading.Lock(), os.getpid()
        return self._lock

    def __getstate__(self) -> dict[str, Any]:
        """The bounds alone: another process opens its own files."""
        return {"most": self._most, "most_bytes": self._most_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start empty."""
        self.__init__(**state)  # type: ignore[misc]
