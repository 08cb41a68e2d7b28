"""A cache bounded in number and in bytes; the least recently used values are dropped first."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LRUCache(Generic[Value]):
    """Values by key, safe to share between threads and across a fork; pickled, it is empty with the same bounds.

    Args:
        max_items: values at once.
        max_bytes: bytes at once; a single value may be larger.
    """

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items, self._max_bytes = max_items, max_bytes
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._bytes = 0
        self._lock, self._process = threading.Lock(), os.getpid()

    def get(self, key: Hashable) -> Value | None:
        """The value of a key, which is now the most recently used one; None where it is not cached."""
        with self._guard():
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def get_or_build(self, key: Hashable, build: Callable[[], Value], size: Callable[[Value], int]) -> Value:
        """The value of a key, built where it is not cached; ``size`` gives a value's bytes."""
        found = self.get(key)
        return self.put(key, value := build(), size(value)) if found is None else found

    def put(self, key: Hashable, value: Value, size: int) -> Value:
        """Cache a value of ``size`` bytes and return it, or the one that another thread cached meanwhile."""
        with self._guard():
            if key in self._values:
                return self._values[key][0]
            self._values[key] = value, size
            self._bytes += size
            while len(self._values) > 1 and (len(self._values) > self._max_items or self._bytes > self._max_bytes):
                self._bytes -= self._values.popitem(last=False)[1][1]
            return value

    def __len__(self) -> int:
        """Number of cached values."""
        return len(self._values)

    def _guard(self) -> threading.Lock:
        if self._process != os.getpid():
            # The thread that held the lock does not live on in a forked process.
            self._lock, self._process = threading.Lock(), os.getpid()
        return self._lock

    def __getstate__(self) -> dict[str, object]:
        """The bounds alone: another process opens its own files."""
        return {"max_items": self._max_items, "max_bytes": self._max_bytes}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Start empty."""
        self.__init__(**state)  # type: ignore[misc]
