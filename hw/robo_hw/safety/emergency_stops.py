"""Several emergency-stop sources: any one stops, and only the one that was pressed releases itself.

Pure bookkeeping, without a middleware: messages of a source come through ``update``, its publishers through
``speakers``. A source may have several speakers (two buttons on one topic). Where a message does not say who sent it,
a press is held by everybody who speaks there, and a release counts only from one who is there alone.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

UNKNOWN = "an unknown node"


@dataclass
class _Source:
    name: str
    heartbeat: float
    received_at: float = -np.inf
    holders: dict[str, str] = field(default_factory=dict)
    """Who may have pressed it and has not released it yet: id -> node."""
    speakers: dict[str, str] = field(default_factory=dict)
    armed_with: dict[str, str] | None = None
    """Who spoke here while the arm was armed."""
    uncounted: bool = False
    """Whether a release came that could not be attributed."""

    def press(self, speaker: str | None) -> None:
        if speaker is not None:
            self.holders[speaker] = self.speakers.get(speaker, UNKNOWN)
        else:
            self.holders |= self.speakers or {UNKNOWN: UNKNOWN}
        self.uncounted = False

    def release(self, speaker: str | None) -> None:
        if speaker is None and len(self.speakers) > 1:
            self.uncounted = bool(self.holders)
            return
        if speaker is None:
            self.holders.pop(UNKNOWN, None)
            speaker = next(iter(self.speakers), None)
        if speaker is None:
            return
        self.holders.pop(speaker, None)
        name = self.speakers.get(speaker)
        # A node that ended while it held the stop has come back: it may release what it pressed.
        for held, node in list(self.holders.items()):
            if node == name and held not in self.speakers:
                del self.holders[held]


class EmergencyStops:
    """The emergency-stop sources of a contract. Every method may be called from any thread.

    ``sources``: name -> heartbeat in s, the longest silence allowed while armed; 0: silence is normal.
    """

    def __init__(self, sources: Mapping[str, float]) -> None:
        self._lock = threading.Lock()
        self._sources = {name: _Source(name, heartbeat) for name, heartbeat in sources.items()}
        self._armed = False

    def update(self, name: str, pressed: bool, now: float, speaker: str | None = None) -> str | None:
        """A source said whether it is pressed; ``speaker``: the id of who said it, where that is known.

        Returns why the arm must stop, or None.
        """
        with self._lock:
            source = self._sources[name]
            source.received_at = max(now, source.received_at)
            if not pressed:
                source.release(speaker)
                return None
            source.press(speaker)
            return f"emergency stop on {name}"

    def alive(self, name: str, now: float) -> None:
        """A source spoke; what it said comes through ``update``, from someone who knows who spoke."""
        with self._lock:
            self._sources[name].received_at = now

    def speakers(self, name: str, speakers: Mapping[str, str]) -> str | None:
        """Who speaks on a source now, id -> node; returns why the arm must stop, or None."""
        with self._lock:
            source = self._sources[name]
            source.speakers = dict(speakers)
            if source.speakers and source.holders.pop(UNKNOWN, None) is not None:
                source.holders |= source.speakers
            if source.armed_with is None:
                return None
            gone = sorted(node for key, node in source.armed_with.items() if key not in source.speakers)
            source.armed_with = dict(source.speakers)
            return f"emergency stop on {name}: {', '.join(gone)} went away" if gone else None

    def armed(self) -> None:
        """The arm is commanded from now on: silence and departures count."""
        with self._lock:
            self._armed = True
            for source in self._sources.values():
                source.armed_with = dict(source.speakers)

    def disarmed(self) -> None:
        """The arm is no longer commanded: silence and departures no longer count."""
        with self._lock:
            self._armed = False
            for source in self._sources.values():
                source.armed_with = None

    def overdue(self, now: float) -> str | None:
        """While armed: why the arm must stop because a source fell silent, or None."""
        with self._lock:
            for source in self._sources.values() if self._armed else ():
                silent = now - source.received_at
                if source.heartbeat > 0 and silent > source.heartbeat:
                    return (
                        f"emergency stop on {source.name}: silent for {silent:.3f} s, the heartbeat is "
                        f"{source.heartbeat:g} s"
                    )
            return None

    def pressed(self) -> list[str]:
        """The sources that are held, one line each with who may hold it; empty where none is."""
        with self._lock:
            return [_pressed_line(source) for source in self._sources.values() if source.holders]

    def problems(self, now: float) -> list[str]:
        """Why the arm must not be armed, one line each."""
        lines = self.pressed()
        with self._lock:
            for source in self._sources.values():
                if source.heartbeat > 0 and now - source.received_at > source.heartbeat:
                    silent = now - source.received_at
                    last = f"the last message came {silent:.1f} s ago" if np.isfinite(silent) else "no message has come"
                    lines.append(
                        f"the emergency stop on {source.name}: {last}; its heartbeat is {source.heartbeat:g} s"
                    )
        return lines


def _pressed_line(source: _Source) -> str:
    line = f"the emergency stop on {source.name} is still pressed"
    holders = sorted(set(source.holders.values()) - {UNKNOWN})
    if holders:
        line += f" by {' or '.join(holders)}"
    if source.uncounted:
        line += (
            f"; {len(source.speakers)} publishers speak there, so a release cannot be attributed: let each say false "
            "while it is alone, or give each a topic of its own (topics.estop)"
        )
    return line
