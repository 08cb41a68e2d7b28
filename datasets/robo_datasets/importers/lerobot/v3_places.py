"""Where the episodes of a LeRobot v3.0 dataset stand: which rows of which data file, which seconds of which video.

An episode's rows are those that carry its number (``episode_index``): a dataset from which episodes were removed keeps
files that hold more than meta/episodes lists, and rows counted from the first one listed would be another episode's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from robo_core.errors import ImportSourceError
from robo_datasets import lerobot_layout as v3
from robo_datasets.importers.columns import ColumnSpec, column_array, parquet_rows, parquet_schema, read_table
from robo_datasets.store.annotations import runs_of

_MAX_SECONDS = 1e7
_NUMBER: ColumnSpec = {"shape": (), "dtype": "int64"}


@dataclass(frozen=True)
class VideoPlace:
    """Where an episode's frames of one camera stand."""

    chunk: int
    file: int
    start: float
    """Seconds from the start of the file."""


@dataclass(frozen=True)
class EpisodePlace:
    """Where an episode's rows and frames stand."""

    data: Path
    start: int
    """Its first row in that file."""
    length: int
    videos: dict[str, VideoPlace] = field(default_factory=dict)
    tasks: np.ndarray | None = None
    """``task_index`` of its rows, (T,) int64; None where there is no such column."""
    problem: str = ""
    """Why it cannot be read."""


@dataclass(frozen=True)
class _File:
    """What a data file says of itself."""

    rows: int
    spans: dict[int, tuple[int, int]] | None
    """Episode number to its first row and the one behind its last; None where rows carry no number."""
    tasks: np.ndarray | None


def episode_places(
    rows: Sequence[dict[str, object]], data_path: Callable[[int, int], Path], videos: Sequence[str], root: Path
) -> dict[int, EpisodePlace]:
    """Where every episode stands, by its number; what is wrong with one is its ``problem``.

    Raises:
        ImportSourceError: the pattern of the data files makes no sense.
    """
    folder = root / v3.EPISODES_FOLDER
    places: dict[int, EpisodePlace] = {}
    spans: dict[int, tuple[Path, int, int]] = {}
    for row in rows:
        number = number_of(row)
        try:
            spans[number] = _declared_span(row, data_path, folder)
        except ImportSourceError as error:
            if "pattern" in str(error) or "lies outside" in str(error):
                raise
            places[number] = EpisodePlace(folder, 0, 0, problem=str(error))
    firsts: dict[Path, int] = {}
    for path, start, _ in spans.values():
        firsts[path] = min(start, firsts.get(path, start))
    files: dict[Path, _File | str] = {path: _read_file(path) for path in firsts}
    for number, (path, start, end) in spans.items():
        file = files[path]
        if isinstance(file, str) or (file.spans is not None and number not in file.spans):
            spans[number] = _elsewhere(number, path, root, files) or path, start, end
            firsts.setdefault(spans[number][0], start)
    for row in rows:
        number = number_of(row)
        if number in spans:
            path, start, end = spans[number]
            places[number] = _place(row, number, (path, start, end), firsts[path], files[path], videos, folder)
    return {number_of(row): places[number_of(row)] for row in rows}


def _declared_span(
    row: Mapping[str, object], data_path: Callable[[int, int], Path], folder: Path
) -> tuple[Path, int, int]:
    path = data_path(whole(row, "data/chunk_index", folder), whole(row, "data/file_index", folder))
    start, end = whole(row, "dataset_from_index", folder), whole(row, "dataset_to_index", folder)
    length = whole(row, "length", folder)
    if not length:
        raise ImportSourceError(f"{folder}: episode {row['episode_index']} has the length 0")
    # Some converters scrambled the end, and the start may be wrong too: rows are found by the number they carry.
    return path, start, start + length if end - start != length else end


def _elsewhere(number: int, path: Path, root: Path, files: dict[Path, _File | str]) -> Path | None:
    """Another data file that holds an episode: LeRobot's converter pointed a file's first one to the file before."""
    for other in sorted((root / "data").glob("*/*.parquet")):
        if other not in files:
            files[other] = _read_file(other)
        found = files[other]
        if other != path and not isinstance(found, str) and number in (found.spans or {}):
            return other
    return None


def _read_file(path: Path) -> _File | str:
    try:
        count, names = parquet_rows(path), parquet_schema(path).names
        wanted = [name for name in ("episode_index", "task_index") if name in names]
        table = read_table(path, wanted)
        found = {name: column_array(table, name, _NUMBER, str(path)) for name in wanted}
    except ImportSourceError as error:
        return str(error)
    spans = None
    if "episode_index" in found:
        spans = {}
        for start, end, number in runs_of(found["episode_index"]):
            if number in spans:
                return f"{path}: the rows of episode {number} do not stand together"
            spans[number] = (start, end)
    return _File(count, spans, found.get("task_index"))


def _place(
    row: Mapping[str, object],
    number: int,
    declared: tuple[Path, int, int],
    first: int,
    file: _File | str,
    videos: Sequence[str],
    folder: Path,
) -> EpisodePlace:
    path, start, end = declared
    if isinstance(file, str):
        return EpisodePlace(path, 0, end - start, problem=file)
    try:
        begin = _first_row(number, declared, first, file)
        where = {key: _video_place(row, key, folder) for key in videos}
    except ImportSourceError as error:
        return EpisodePlace(path, 0, end - start, problem=str(error))
    tasks = None if file.tasks is None else file.tasks[begin : begin + end - start]
    return EpisodePlace(path, begin, end - start, where, tasks)


def _first_row(number: int, declared: tuple[Path, int, int], first: int, file: _File) -> int:
    """Where in its file an episode begins."""
    path, start, end = declared
    if file.spans is None:
        if end - first > file.rows:
            raise ImportSourceError(f"{path} has {file.rows} rows, episode {number} ends at row {end - first} of it")
        return start - first
    if number not in file.spans:
        raise ImportSourceError(f"{path} has no rows of episode {number}, which meta/episodes says to stand there")
    begin, stop = file.spans[number]
    if stop - begin != end - start:
        if end - first > file.rows:
            raise ImportSourceError(f"{path} has {file.rows} rows, episode {number} ends at row {end - first} of it")
        raise ImportSourceError(
            f"{path} has {stop - begin} rows of episode {number}, meta/episodes gives it {end - start}"
        )
    return begin


def _video_place(row: Mapping[str, object], key: str, folder: Path) -> VideoPlace:
    start = row.get(f"videos/{key}/from_timestamp")
    if not isinstance(start, int | float) or not 0 <= start < _MAX_SECONDS:
        raise ImportSourceError(
            f"{folder}: episode {row['episode_index']} has videos/{key}/from_timestamp = {start!r}, seconds are needed"
        )
    chunk, file = whole(row, f"videos/{key}/chunk_index", folder), whole(row, f"videos/{key}/file_index", folder)
    return VideoPlace(chunk, file, float(start))


def number_of(row: Mapping[str, object]) -> int:
    """Number of the episode that a checked row of meta/episodes is about."""
    return cast(int, row["episode_index"])


def whole(row: Mapping[str, object], key: str, where: Path) -> int:
    """A column of a row that must be a whole number from 0 up.

    Raises:
        ImportSourceError: it is missing or something else.
    """
    value = row.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ImportSourceError(f"{where}: {key} is {value!r}, a whole number is needed")
    return value
