"""Stage annotation from a file: a list of episodes with their subtasks.

    [{"episode_index": 0, "subtasks": [{"name": "reach", "start_frame": 0, "end_frame": 80}, ...]}, ...]

``end_frame`` is exclusive. The subtasks of an episode must follow each other without gap or overlap from its first
frame to its last; a name may come again, and an episode may lack some of the names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from robo_core.errors import LabelError

Segment = tuple[str, int, int]


def read_stage_file(path: str | Path, lengths: Mapping[int, int]) -> dict[int, list[Segment]]:
    """Read and check an annotation file.

    Args:
        path: the JSON file.
        lengths: episode number to number of frames, of the dataset that is annotated.

    Returns:
        Episode number to (name, start, end) segments.

    Raises:
        LabelError: the file is missing or malformed, an episode is unknown or comes twice, or its segments have a gap
            or an overlap; names file, episode and frame.
    """
    file = Path(path)
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise LabelError(f"the stage annotation {file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise LabelError(f"the stage annotation {file} is not JSON: {error}") from error
    if not isinstance(document, list):
        raise LabelError(f"{file} must hold a list of episodes with their subtasks")
    segments: dict[int, list[Segment]] = {}
    for position, entry in enumerate(document):
        number, found = _read_entry(file, position, entry)
        if number not in lengths:
            raise LabelError(
                f"{file} annotates episode {number}, which the dataset does not have; it has {_span(lengths)}"
            )
        if number in segments:
            raise LabelError(f"{file} annotates episode {number} twice")
        check_segments(found, lengths[number], f"{file}, episode {number}")
        segments[number] = found
    return segments


def check_segments(segments: Sequence[Segment], length: int, where: str, whole: bool = True) -> None:
    """Check that segments follow each other without gap or overlap.

    Args:
        segments: (name, start, end).
        length: frames in the episode.
        where: named in errors: file and episode.
        whole: also demand that they begin at frame 0 and end at ``length``.

    Raises:
        LabelError: says where, which frame and what.
    """
    if not segments:
        return
    end = 0 if whole else segments[0][1]
    for name, start, stop in segments:
        if not 0 <= start < stop <= length:
            raise LabelError(
                f"{where}: stage {name!r} has the frames {start} to {stop}, the episode has {length} frames"
            )
        if start > end:
            raise LabelError(f"{where}: a gap of {start - end} frames at frame {end}, before stage {name!r}")
        if start < end:
            raise LabelError(
                f"{where}: stage {name!r} begins at frame {start}, before the stage in front ends at {end}"
            )
        end = stop
    if whole and end != length:
        raise LabelError(f"{where}: a gap of {length - end} frames at frame {end}, after the last stage")


def stage_order(segments: Mapping[int, Sequence[Segment]], lengths: Mapping[int, int]) -> list[str]:
    """Stage names in the order of the task: by the mean place of their first appearance in an episode."""
    places: dict[str, list[float]] = {}
    for number, found in segments.items():
        seen: set[str] = set()
        for name, start, _ in found:
            if name not in seen:
                places.setdefault(name, []).append(start / lengths[number])
                seen.add(name)
    return sorted(places, key=lambda name: float(np.mean(places[name])))


def check_names(segments: Mapping[int, Sequence[Segment]], known: Sequence[str], where: str) -> None:
    """Check that all stages are known.

    Raises:
        LabelError: names episode, frame and stage.
    """
    for number, found in segments.items():
        for name, start, _ in found:
            if name not in known:
                raise LabelError(
                    f"{where}, episode {number}, frame {start}: unknown stage {name!r}; known are {list(known)}"
                )


def frame_labels(segments: Sequence[Segment], length: int, stages: Sequence[str]) -> np.ndarray:
    """Per-frame stages (T,) int16, -1 where no segment is."""
    labels = np.full(length, -1, np.int16)
    for name, start, end in segments:
        labels[start:end] = stages.index(name)
    return labels


def _read_entry(file: Path, position: int, entry: object) -> tuple[int, list[Segment]]:
    where = f"{file}, entry {position}"
    if not isinstance(entry, dict) or not isinstance(entry.get("subtasks"), list):
        raise LabelError(f"{where}: each entry needs episode_index and a list of subtasks")
    number = entry.get("episode_index")
    if not isinstance(number, int) or isinstance(number, bool):
        raise LabelError(f"{where}: episode_index is {number!r}, a whole number is needed")
    segments: list[Segment] = []
    for part in entry["subtasks"]:
        name = part.get("name") if isinstance(part, dict) else None
        if not isinstance(part, dict) or not isinstance(name, str) or not name:
            raise LabelError(
                f"{where} (episode {number}): a subtask needs name, start_frame and end_frame, got {part!r}"
            )
        start, end = part.get("start_frame"), part.get("end_frame")
        if not (isinstance(start, int) and isinstance(end, int) and _whole(start) and _whole(end)):
            raise LabelError(f"{where} (episode {number}): stage {name!r} has the frames {start!r} to {end!r}")
        segments.append((name, start, end))
    return number, segments


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _span(lengths: Mapping[int, int]) -> str:
    return f"{len(lengths)} episodes, {min(lengths)} to {max(lengths)}" if lengths else "none"
