"""The meta folder of a LeRobot v3.0 dataset, read and checked: where episodes stand, subtasks, outcomes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa

from robo_core.errors import ImportSourceError
from robo_datasets import lerobot_layout as v3
from robo_datasets.importers.columns import column_array, parquet_schema, read_table
from robo_datasets.importers.files import read_json
from robo_datasets.importers.lerobot.v3_language import has_language, language_segments
from robo_datasets.importers.lerobot.v3_places import EpisodePlace, number_of, whole
from robo_datasets.importers.lerobot_notes import SUCCESS_FEATURES, noted_attributes, noted_grade
from robo_datasets.importers.stage_files import Segment
from robo_datasets.store.annotations import runs_of

ANNOTATIONS = ("auto", "frames", "sparse", "dense", "language", "none")


@dataclass(frozen=True)
class EpisodeRows:
    """The rows of meta/episodes without statistics, in order of episode, and the files they stand in."""

    values: list[dict[str, object]]
    files: list[Path]


@dataclass(frozen=True)
class Subtasks:
    """Segments by episode number, and the known names in order where the dataset gives them."""

    segments: dict[int, list[Segment]] = field(default_factory=dict)
    names: list[str] | None = None


@dataclass(frozen=True)
class Outcome:
    """How an episode ended, and its attributes."""

    success: bool | None
    attributes: dict[str, object]


def own_record(root: Path) -> v3.ExportRecord:
    """What robo-rm noted when it exported the dataset; empty for one of another origin.

    Raises:
        ImportSourceError: the file is damaged, or of a version that is not known.
    """
    path = root / v3.ROBO_FILE
    if not path.exists():
        return {}
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != v3.ROBO_FORMAT:
        raise ImportSourceError(f"{path} is not of format {v3.ROBO_FORMAT}; remove it to import without it")
    kinds = {"features": dict, "added": list, "stages": list}
    for key, kind in kinds.items():
        if not isinstance(record.get(key), kind):
            raise ImportSourceError(f"{path}: {key} is {record.get(key)!r}; remove the file to import without it")
    return cast(v3.ExportRecord, record)


def read_episode_rows(root: Path) -> EpisodeRows:
    """Read meta/episodes.

    Raises:
        ImportSourceError: it is missing or damaged, or lists an episode twice.
    """
    folder = root / v3.EPISODES_FOLDER
    files = sorted(folder.glob("*/*.parquet"))
    if not files:
        raise ImportSourceError(f"{folder} holds no parquet file: the dataset is incomplete")
    rows: list[dict[str, object]] = []
    for file in files:
        names = [name for name in parquet_schema(file).names if not name.startswith("stats/")]
        rows += read_table(file, names).to_pylist()
    for row in rows:
        whole(row, "episode_index", folder)
    rows.sort(key=number_of)
    numbers = [row["episode_index"] for row in rows]
    if len(set(numbers)) != len(numbers):
        raise ImportSourceError(f"{folder} lists an episode twice")
    return EpisodeRows(rows, files)


def names_by_number(path: Path, column: str) -> dict[int, str]:
    """Names of tasks or subtasks by number: a number column and one of text, which pandas may call its index.

    Raises:
        ImportSourceError: the file is missing or has other columns.
    """
    table = read_table(path)
    kinds = {field.name: field.type for field in table.schema}
    texts = [name for name, kind in kinds.items() if pa.types.is_string(kind) or pa.types.is_large_string(kind)]
    texts.sort(key=lambda name: (name != column.removesuffix("_index"), not name.startswith("__index")))
    if column not in table.column_names or not texts:
        raise ImportSourceError(f"{path} has the columns {table.column_names}; {column} and a name are needed")
    names: dict[int, str] = {}
    for number, name in zip(table[column].to_pylist(), table[texts[0]].to_pylist(), strict=True):
        if not isinstance(number, int) or not isinstance(name, str) or number in names:
            raise ImportSourceError(f"{path}: {column} {number!r} with the name {name!r} comes twice or is malformed")
        names[number] = name
    return names


def subtask_segments(
    root: Path,
    rows: Sequence[dict[str, object]],
    places: Mapping[int, EpisodePlace],
    annotation: str,
    known: Sequence[str] | None,
) -> Subtasks:
    """Subtasks that the dataset carries.

    Args:
        root: the dataset.
        rows: meta/episodes.
        places: where the episodes stand.
        annotation: ``frames`` (subtask_index), ``sparse`` or ``dense`` (SARM's columns), ``language`` (LeRobot 0.6's
            language columns), ``none``, or ``auto``: the first there is of frames, dense, sparse, language.
        known: stage names in order, where robo-rm noted them.

    Raises:
        ImportSourceError: the annotation is malformed, or the one asked for is not there.
    """
    columns = rows[0].keys() if rows else ()
    frames = (root / v3.SUBTASKS_FILE).exists()
    there = {
        "frames": frames,
        "dense": f"dense_{v3.SARM_NAMES}" in columns,
        "sparse": f"sparse_{v3.SARM_NAMES}" in columns or v3.SARM_NAMES in columns,
        "language": has_language(places),
    }
    if annotation == "auto":
        annotation = next((kind for kind, found in there.items() if found), "none")
    elif annotation != "none" and not there.get(annotation):
        raise ImportSourceError(f"{root} has no {annotation} annotation; it has {[k for k in there if there[k]]}")
    if annotation == "none":
        return Subtasks(names=list(known) if known else None)
    if annotation == "language":
        spoken, order = language_segments(places)
        return Subtasks(spoken, list(known) if known else order)
    if annotation == "frames":
        return _from_frames(root, places, known)
    prefix = f"{annotation}_" if f"{annotation}_{v3.SARM_NAMES}" in columns else ""
    segments = {}
    for row in rows:
        found = _from_row(row, prefix, places[number_of(row)].length, root)
        if found:
            segments[number_of(row)] = found
    return Subtasks(segments, list(known) if known else _proportion_names(root, annotation))


def _from_frames(root: Path, places: Mapping[int, EpisodePlace], known: Sequence[str] | None) -> Subtasks:
    names = names_by_number(root / v3.SUBTASKS_FILE, v3.SUBTASK)
    columns = {
        path: column_array(read_table(path, [v3.SUBTASK]), v3.SUBTASK, {"shape": (), "dtype": "int64"}, str(path))
        for path in {place.data for place in places.values() if not place.problem}
    }
    segments = {}
    for number, place in places.items():
        if place.problem:
            continue
        found = []
        for start, end, subtask in runs_of(columns[place.data][place.start : place.start + place.length]):
            if subtask >= 0 and subtask not in names:
                raise ImportSourceError(
                    f"{place.data}, episode {number}, frame {start}: {v3.SUBTASKS_FILE} has no subtask {subtask}"
                )
            if subtask >= 0 and names[subtask] != v3.UNLABELLED:
                found.append((names[subtask], start, end))
        if found:
            segments[number] = found
    order = [names[number] for number in sorted(names) if names[number] != v3.UNLABELLED]
    return Subtasks(segments, list(known) if known else order)


def _from_row(row: dict[str, object], prefix: str, length: int, root: Path) -> list[Segment]:
    names, starts, ends = (row.get(f"{prefix}{name}") for name in (v3.SARM_NAMES, v3.SARM_STARTS, v3.SARM_ENDS))
    if not isinstance(names, list):
        return []
    where = f"{root / v3.EPISODES_FOLDER}: episode {row['episode_index']}"
    if not (isinstance(starts, list) and isinstance(ends, list) and len(names) == len(starts) == len(ends)):
        raise ImportSourceError(f"{where}: {prefix}subtask names, starts and ends have different lengths")
    if not all(isinstance(value, int) for value in (*starts, *ends)) or not all(isinstance(n, str) for n in names):
        raise ImportSourceError(f"{where}: {prefix}subtasks need names and whole frame numbers")
    # Some tools write the last frame of a subtask in place of the first of the next.
    inclusive = len(names) > 1 and all(end + 1 == start for end, start in zip(ends, starts[1:], strict=False))
    segments, before = [], 0
    for name, start, end in zip(names, starts, ends, strict=True):
        stop = end + 1 if inclusive else end
        # LeRobot's own tool rounds times down to seconds and may end an annotation a little late.
        stop = min(stop, length)
        if not before <= start < stop:
            raise ImportSourceError(
                f"{where}: subtask {name!r} has the frames {start} to {end}, the one in front ends at {before} and the "
                f"episode at {length}"
            )
        segments.append((name, start, stop))
        before = stop
    return segments


def _proportion_names(root: Path, annotation: str) -> list[str] | None:
    path = root / v3.SARM_PROPORTIONS.format(kind=annotation)
    if not path.exists():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or not found:
        raise ImportSourceError(f"{path} must hold the subtasks' names and proportions")
    return list(found)


def episode_outcomes(
    rows: Sequence[dict[str, object]], places: Mapping[int, EpisodePlace], columns: Sequence[str]
) -> dict[int, Outcome]:
    """Success and attributes of every episode.

    Success is what the episode's own row says, else whether ``next.success`` was ever true, else unknown. ``next.done``
    is left alone: it does not say whether an episode was terminated or truncated.

    Raises:
        ImportSourceError: a data file is damaged.
    """
    reached: dict[Path, np.ndarray] = {}
    done = next((key for key in SUCCESS_FEATURES if key in columns), "")
    if done:
        for path in {place.data for place in places.values() if not place.problem}:
            table = read_table(path, [done])
            reached[path] = column_array(table, done, {"shape": (), "dtype": "float64"}, str(path)) > 0
    outcomes = {}
    for row in rows:
        place = places[number_of(row)]
        grade = noted_grade(row)
        success = None if grade is None else grade.success
        if grade is None and v3.SUCCESS not in row and place.data in reached:
            success = bool(reached[place.data][place.start : place.start + place.length].any())
        attributes = noted_attributes(row) | _attributes(row.get(v3.ATTRIBUTES))
        for key in (v3.TERMINATED, v3.TRUNCATED):
            if isinstance(row.get(key), bool):
                attributes[key] = row[key]
        outcomes[number_of(row)] = Outcome(success, attributes)
    return outcomes


def _attributes(text: object) -> dict[str, object]:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
