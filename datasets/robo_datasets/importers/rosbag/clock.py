"""One clock for the messages of a bag: their headers', their arrival's, or the simulation's.

Headers may count from another zero than arrival (simulated time, a camera's time since it was switched on), and some
messages carry no stamp. Those are put on the headers' clock through messages that have both times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robo_core.errors import ImportSourceError
from robo_datasets.importers.rosbag.alignment import TopicTimes

CLOCKS = ("auto", "header", "arrival")
# Clocks that lie further apart than this are two; a message takes less long to arrive.
_APART_NS = 1_000_000_000


@dataclass(frozen=True)
class RawTimes:
    """What is known of a topic's messages, nanoseconds, (n,) int64 each; a stamp of 0 was not given."""

    topic: str
    stamps: np.ndarray
    received: np.ndarray


def settle_clock(
    raw: Mapping[str, RawTimes], clock: str, simulated: RawTimes | None, where: str
) -> tuple[dict[str, TopicTimes], list[str]]:
    """Times of all messages on one clock, by feature, and what was assumed.

    Args:
        raw: by feature.
        clock: "header" (arrival for a message without a stamp), "arrival", or "auto": the header's, and a message
            without one is put on that clock.
        simulated: the messages of /clock, where the bag has them.
        where: the bag, for errors.

    Raises:
        ImportSourceError: with "auto", two topics have headers of two clocks, or a topic's clock was set back.
    """
    if clock == "arrival":
        return {feature: TopicTimes(times.received, times.received) for feature, times in raw.items()}, []
    plain = {
        feature: TopicTimes(np.where(times.stamps == 0, times.received, times.stamps), times.received)
        for feature, times in raw.items()
    }
    reference = _reference(raw, simulated)
    if clock == "header" or reference is None:
        return plain, []
    for times in raw.values():
        given = times.stamps != 0
        if given.any():
            _check_rising(times, where)
            apart = _median(times.stamps[given] - _on_clock(times.received[given], reference))
            if abs(apart) > _APART_NS:
                raise ImportSourceError(
                    f"{where}: the header stamps of {times.topic} and {reference.topic} are of two clocks: they lie "
                    f"{abs(apart) / 1e9:.1f} s further apart than their messages arrived; give clock=arrival"
                )
    offset = _median(reference.stamps - reference.received)
    bare = sorted({times.topic for times in raw.values() if (times.stamps == 0).any()})
    if abs(offset) <= _APART_NS:
        return plain, []
    settled = {
        feature: TopicTimes(
            np.where(times.stamps == 0, _on_clock(times.received, reference), times.stamps), times.received
        )
        for feature, times in raw.items()
    }
    said = f"header stamps lie {offset / 1e9:.1f} s from arrival (another clock, simulated time for instance)"
    if bare:
        said += f"; messages without a stamp on {', '.join(bare)} are put on it by the time they arrived at"
    return settled, [said + "; clock=arrival goes by arrival"]


def _check_rising(times: RawTimes, where: str) -> None:
    """Messages may be late; a clock that was set back (a simulation begun again, a bag played twice) puts two on one.

    Raises:
        ImportSourceError: a stamp lies before that of a message which arrived earlier, by more than a message is late.
    """
    order = np.argsort(times.received, kind="stable")
    stamps = times.stamps[order][times.stamps[order] != 0]
    back = np.maximum.accumulate(stamps) - stamps
    if (back > _APART_NS).any():
        at = int(np.argmax(back > _APART_NS))
        raise ImportSourceError(
            f"{where}: the header stamps of {times.topic} go back by {back[at] / 1e9:.1f} s at its message {at}: its "
            "clock was set back, or it was sent twice; clock=arrival goes by arrival, clock=header takes the stamps as "
            "they are"
        )


def _reference(raw: Mapping[str, RawTimes], simulated: RawTimes | None) -> RawTimes | None:
    """Pairs of stamp and arrival to go by, in order of arrival: the topic with most stamps, else /clock."""
    stamped = [
        RawTimes(times.topic, times.stamps[given], times.received[given])
        for times in raw.values()
        if (given := times.stamps != 0).any()
    ]
    best = max(stamped, key=lambda times: len(times.stamps), default=simulated)
    if best is None or not len(best.stamps):
        return None
    order = np.argsort(best.received, kind="stable")
    return RawTimes(best.topic, best.stamps[order], best.received[order])


def _on_clock(received: np.ndarray, reference: RawTimes) -> np.ndarray:
    """Times of arrival (n,) on the reference's clock; outside of it the clock goes on at the receiver's pace."""
    zero, start = int(reference.received[0]), int(reference.stamps[0])
    known = (reference.received - zero).astype(np.float64)
    at = (received - zero).astype(np.float64)
    inside = np.interp(at, known, (reference.stamps - start).astype(np.float64))
    beyond = np.minimum(at - known[0], 0) + np.maximum(at - known[-1], 0)
    return start + np.rint(inside + beyond).astype(np.int64)


def _median(values: np.ndarray) -> int:
    return int(np.sort(values)[len(values) // 2])
