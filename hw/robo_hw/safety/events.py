"""The record of everything the safety core did against what it was asked: who, how much, which limit."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One entry. ``joint``, ``value`` and ``limit`` are set wherever a joint and a number are at the bottom of it."""

    time: float
    """Steady-clock time, s."""
    kind: str
    """``state``, ``fault``, ``stop``, ``rejected``, ``dropped``, ``limited``, ``slowed``, ``degraded``, ``stream``,
    ``warning``."""
    message: str
    joint: str | None = None
    value: float | None = None
    limit: float | None = None

    def __str__(self) -> str:
        return f"{self.time:.3f} {self.kind}: {self.message}"


class EventLog:
    """The last ``capacity`` events, and how many of each kind there ever were.

    Memory is bounded whatever a policy sends; the counts never forget.
    """

    def __init__(self, capacity: int = 2000) -> None:
        self._events: deque[Event] = deque(maxlen=capacity)
        self.counts: Counter[str] = Counter()
        self._spells: set[str] = set()

    def add(
        self,
        time: float,
        kind: str,
        message: str,
        joint: str | None = None,
        value: float | None = None,
        limit: float | None = None,
    ) -> Event:
        """Append and return one event."""
        event = Event(time, kind, message, joint, value, limit)
        self._events.append(event)
        self.counts[kind] += 1
        return event

    def complain(self, time: float, key: str, problem: str | None) -> None:
        """Add what is wrong with ``key``, once per spell (a stream at 1 kHz must not push everything else out); None
        ends the spell."""
        if problem is None:
            self._spells.discard(key)
        elif key not in self._spells:
            self._spells.add(key)
            self.add(time, "stream", problem)

    def renew_complaints(self) -> None:
        """Let everything that is still wrong be reported again."""
        self._spells.clear()

    def of_kind(self, kind: str) -> list[Event]:
        """The kept events of one kind, oldest first."""
        return [event for event in self._events if event.kind == kind]

    def __iter__(self) -> Iterator[Event]:
        return iter(list(self._events))

    def __len__(self) -> int:
        return len(self._events)
