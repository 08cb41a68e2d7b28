"""What a replay buffer says of whole episodes, in arrays beside ``meta/episode_ends`` of one row an episode."""

from __future__ import annotations

import numpy as np

from robo_core.errors import ImportSourceError
from robo_datasets.importers.grades import grade_of
from robo_datasets.importers.zarr.replay_buffer import ENDS, ReplayBuffer
from robo_datasets.importers.zarr.zarr_v3 import open_array

# Names of arrays that say how an episode went, without the word "episode" before them.
_OUTCOMES = ("success", "successes", "is_success", "outcome", "grade")
# Numbers of an episode that are kept; longer rows are not notes.
_LONGEST = 64


def episode_notes(
    buffer: ReplayBuffer, allow_missing: bool = False
) -> tuple[list[dict[str, object]], list[bool | None], list[str]]:
    """Notes of each episode by name, what they say of its success, and what to report to the user."""
    count = len(buffer.ends)
    notes: list[dict[str, object]] = [{} for _ in range(count)]
    success: list[bool | None] = [None] * count
    remarks: list[str] = []
    for name in sorted(buffer.files.folders("meta")):
        place = f"meta/{name}"
        if place == ENDS:
            continue
        try:
            array = open_array(buffer.files, place, allow_missing)
            if len(array.shape) < 1 or array.shape[0] != count or int(np.prod(array.shape[1:])) > _LONGEST:
                raise ImportSourceError(f"it has the shape {tuple(array.shape)}, not one row for each episode")
            rows = array.rows(0, count).reshape(count, -1).tolist()
        except ImportSourceError as error:
            remarks.append(f"{place} was left out: {error}")
            continue
        for number, row in enumerate(rows):
            value = row[0] if len(row) == 1 else row
            notes[number][name] = value
            if name.removeprefix("episode_") in _OUTCOMES and len(row) == 1:
                success[number] = grade_of(value, {}).success
        remarks.append(f"{place} is kept in the attributes of episodes")
    return notes, success, remarks
