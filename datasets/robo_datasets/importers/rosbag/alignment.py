"""Messages of several topics, brought to one sequence of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robo_datasets.importers.rosbag.messages import TopicMapping


@dataclass(frozen=True)
class TopicTimes:
    """Stamps of a topic's messages in the order of the bag, nanoseconds, (n,) int64 each."""

    stamps: np.ndarray
    """From the header; the receiver's where there is none."""
    received: np.ndarray


@dataclass(frozen=True)
class Gap:
    """A frame for which a topic has no message young enough."""

    topic: str
    time: int
    """Nanoseconds."""
    age: float
    """Seconds to the message that would have been taken."""


@dataclass(frozen=True)
class Aligned:
    """Frames at a steady rate, and which message of each topic belongs to which."""

    times: np.ndarray
    """(T,) int64 nanoseconds."""
    picks: dict[str, np.ndarray]
    """Feature to (T,) message number in the order of the bag."""
    received: np.ndarray
    """(T,) int64 nanoseconds: when the last of a frame's messages arrived."""
    good: np.ndarray
    """(T,) whether all messages are young enough."""
    gaps: list[Gap]
    """The first gap of every topic that has one."""


def align(topics: Mapping[str, TopicTimes], mappings: Sequence[TopicMapping], fps: float) -> Aligned:
    """Frames from the first moment at which every topic has a message to the last.

    Args:
        topics: times by feature; none empty.
        mappings: how to pick, one a feature.
        fps: frames per second.
    """
    # Stamps need not rise: a bag is ordered by arrival.
    orders = {feature: np.argsort(times.stamps, kind="stable") for feature, times in topics.items()}
    sorted_stamps = {feature: topics[feature].stamps[order] for feature, order in orders.items()}
    first = max(int(stamps[0]) for stamps in sorted_stamps.values())
    last = min(int(stamps[-1]) for stamps in sorted_stamps.values())
    count = max(0, int((last - first) * fps / 1e9 + 1e-6) + 1) if last >= first else 0
    times = first + np.round(np.arange(count) * 1e9 / fps).astype(np.int64)
    picks, good, gaps = {}, np.ones(count, bool), []
    received = np.full(count, np.iinfo(np.int64).min)
    for mapping in mappings:
        stamps = sorted_stamps[mapping.feature]
        place = np.searchsorted(stamps, times, side="right") - 1
        if mapping.align == "nearest":
            after = np.minimum(place + 1, len(stamps) - 1)
            place = np.where(stamps[after] - times < times - stamps[place], after, place)
        age = np.abs(times - stamps[place])
        late = age > mapping.max_age * 1e9
        if late.any():
            frame = int(late.argmax())
            gaps.append(Gap(mapping.topic, int(times[frame]), float(age[frame]) / 1e9))
        good &= ~late
        picks[mapping.feature] = orders[mapping.feature][place]
        received = np.maximum(received, topics[mapping.feature].received[picks[mapping.feature]])
    return Aligned(times, picks, received, good, gaps)


def good_runs(good: np.ndarray, least: int) -> list[tuple[int, int]]:
    """Runs [start, end) of good frames of at least ``least``."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2) if b - a >= least]
