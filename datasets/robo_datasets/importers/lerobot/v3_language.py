"""Subtasks in LeRobot 0.6's language columns (lerobot/datasets/language.py).

``language_persistent`` holds the same list on every frame of an episode: rows with role, content, style and timestamp,
each valid from its time until the next of its style. Those of style ``subtask`` are the stages of the episode.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from robo_core.errors import ImportSourceError
from robo_datasets.importers.columns import parquet_schema, read_table
from robo_datasets.importers.lerobot.v3_places import EpisodePlace
from robo_datasets.importers.stage_files import Segment

COLUMN = "language_persistent"
_EARLY = 1e-3
"""Seconds by which a frame may come before the subtask that starts with it: times are rounded to float32."""


def has_language(places: Mapping[int, EpisodePlace]) -> bool:
    """Whether the data files have the column."""
    return any(COLUMN in parquet_schema(place.data).names for place in places.values() if not place.problem)


def language_segments(places: Mapping[int, EpisodePlace]) -> tuple[dict[int, list[Segment]], list[str]]:
    """The subtasks (name, start, end) of each episode that has some, and their names in order of appearance.

    Raises:
        ImportSourceError: a row has no name or no time, or starts after the episode's end.
    """
    segments: dict[int, list[Segment]] = {}
    tables = {
        path: read_table(path, [COLUMN, "timestamp"])
        for path in {place.data for place in places.values() if not place.problem}
    }
    for number, place in sorted(places.items()):
        if place.problem or not place.length:
            continue
        part = tables[place.data].slice(place.start, place.length)
        rows = part[COLUMN][0].as_py() or []
        # Without a time a row describes the whole episode, and marks no stage.
        found = [row for row in rows if row.get("style") == "subtask" and row.get("timestamp") is not None]
        if found:
            times = np.asarray(part["timestamp"].to_numpy(zero_copy_only=False), np.float64)
            segments[number] = _segments(found, times, f"{place.data}, episode {number}")
    names = [name for found in segments.values() for name, _, _ in found]
    return segments, list(dict.fromkeys(names))


def _segments(rows: list[dict[str, object]], times: np.ndarray, where: str) -> list[Segment]:
    starts: list[tuple[int, str]] = []
    for row in rows:
        name, time = row.get("content"), row.get("timestamp")
        if not isinstance(name, str) or not name or not isinstance(time, float | int):
            raise ImportSourceError(f"{where}: {COLUMN} has a subtask {name!r} at time {time!r}")
        start = int(np.searchsorted(times, time - _EARLY))
        if start >= len(times):
            raise ImportSourceError(f"{where}: the subtask {name!r} starts at {time:g} s, after the last frame")
        starts.append((start, name))
    starts.sort(key=lambda pair: pair[0])
    ends = [start for start, _ in starts[1:]] + [len(times)]
    return [(name, start, end) for (start, name), end in zip(starts, ends, strict=True) if end > start]
