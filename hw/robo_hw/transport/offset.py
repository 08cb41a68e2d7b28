"""The difference between two computers' steady clocks, from pings: neither clock's numbers mean anything to the other.

    t0 ping sent (here)    t1 ping received (there)    t2 pong sent (there)    t3 pong received (here)

offset = ((t1 - t0) + (t2 - t3)) / 2, wrong by at most half of the round trip (t3 - t0) - (t2 - t1), however that is
divided into there and back (RFC 5905, section 8). So the shortest of the last pings is the one to believe.
"""

from __future__ import annotations

from collections import deque

_KEPT = 64
"""Pings, at four a second a quarter of a minute: in that time two crystals part by a millisecond at most."""


class ClockOffset:
    """Estimates it. All times in seconds. One thread adds; ``best`` may be read from any."""

    def __init__(self) -> None:
        self._trips: deque[tuple[float, float]] = deque(maxlen=_KEPT)
        self._best: tuple[float, float] | None = None

    def add(self, sent: float, received: float, answered: float, back: float) -> None:
        """One ping: ``sent`` and ``back`` by this clock, ``received`` and ``answered`` by the other's."""
        travelled = (back - sent) - (answered - received)
        if travelled >= 0 and answered >= received:  # anything else is not a ping of ours
            self._trips.append((travelled, ((received - sent) + (answered - back)) / 2))
            shortest, offset = min(self._trips)
            self._best = offset, shortest / 2

    @property
    def best(self) -> tuple[float, float] | None:
        """(the other clock minus this one, the most by which that may be wrong), None before the first ping."""
        return self._best
