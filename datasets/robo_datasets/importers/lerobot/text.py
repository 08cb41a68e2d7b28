"""Instructions and other text of a LeRobot episode.

An episode's instruction is that of its first frame (``task_index`` and the table of tasks); where another one follows,
every frame's is kept: ``attributes["instructions_by_frame"]`` as runs [start, end, instruction], and the feature
``annotation.task_index``, which counts in ``attributes["tasks"]``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from robo_datasets.importers.source import EpisodeDetails
from robo_datasets.lerobot_layout import TASKS, TASKS_BY_FRAME
from robo_datasets.store.annotations import runs_of

INSTRUCTIONS = "instructions"
# Columns of text that hold the instruction in datasets converted from other formats.
_INSTRUCTION_COLUMNS = ("language_instruction", "instruction", "task", "task_description", "language")


def episode_tasks(
    numbers: np.ndarray | None, names: Mapping[int, str], listed: Sequence[str], number: int
) -> tuple[list[tuple[int, int, str]], str]:
    """The instruction of every frame, as runs (start, end, instruction), and what is odd about it.

    Where the frames of an episode all say task 0 and the episode's own list names another one, the column was never
    filled in: the list counts. object other disagreement is settled by the frames, as LeRobot does.

    Args:
        numbers: (T,) ``task_index``; None where there is no such column.
        names: instruction by task index.
        listed: the episode's own list of instructions.
        number: of the episode.
    """
    if numbers is None or not len(numbers):
        return [], ""
    runs = [(start, end, names.get(task, "")) for start, end, task in runs_of(numbers)]
    found = {text for _, _, text in runs if text}
    if not listed or found <= set(listed):
        if not found and listed:
            missing = sorted({int(task) for task in np.unique(numbers)} - names.keys())
            return [], f"episode {number}: the table of tasks has no task {missing}; the episode's own list counts"
        return runs, ""
    if not numbers.any():
        return [], (
            f"episode {number}: its frames say {sorted(found)}, the list of episodes {list(listed)}; the list counts, "
            "for all frames have the task_index 0"
        )
    return runs, (
        f"episode {number}: its frames say {sorted(found)}, the list of episodes {list(listed)}; the frames count"
    )


def task_rows(runs: Sequence[tuple[int, int, str]], length: int) -> tuple[np.ndarray, list[str]]:
    """``annotation.task_index`` (T, 1) int64 and the instructions it counts in, in order of first appearance."""
    order = list(dict.fromkeys(text for _, _, text in runs))
    rows = np.zeros((length, 1), np.int64)
    for start, end, text in runs:
        rows[start:end] = order.index(text)
    return rows, order


def text_details(
    table: pa.Table,
    text: Sequence[str],
    language: Sequence[str],
    tasks: Sequence[tuple[int, int, str]],
    task: str,
    taken: Mapping[str, object],
    listed: Sequence[str] = (),
) -> EpisodeDetails:
    """Everything an episode's rows say in words.

    Args:
        table: the episode's rows.
        text: columns of strings; a column that never changes becomes one attribute, another one runs.
        language: columns of LeRobot's language rows.
        tasks: instruction by frame, as runs.
        task: the instruction that is known without the rows.
        taken: attributes that the episode has already.
        listed: the episode's own list of instructions.
    """
    attributes: dict[str, object] = {}
    runs: dict[str, list[tuple[int, int, object]]] = {}
    if tasks:
        task = tasks[0][2] or task
        if len(tasks) > 1:
            runs[TASKS_BY_FRAME] = list(tasks)
            attributes[TASKS] = list(dict.fromkeys(words for _, _, words in tasks))
    elif len(listed) > 1:
        attributes[TASKS] = list(listed)  # which frames had which is not known
    for key in text:
        cells = table[key].to_pylist()
        found = _text_runs([cell[0] if isinstance(cell, list) and len(cell) == 1 else cell for cell in cells])
        name = key if key not in taken and key not in attributes else f"text.{key}"
        if len(found) == 1:
            attributes[name] = found[0][2]
        else:
            runs[name] = found
        if not task and key.rsplit(".", 1)[-1] in _INSTRUCTION_COLUMNS and found and isinstance(found[0][2], str):
            task = found[0][2]
    for key in language:
        _add_language(key, table[key].to_pylist(), task, attributes, runs)
    return EpisodeDetails(task, attributes, runs)


def _text_runs(plain: list[object]) -> list[tuple[int, int, object]]:
    """Runs (start, end, value) of equal values."""
    runs: list[tuple[int, int, object]] = []
    for row, value in enumerate(plain):
        if runs and runs[-1][2] == value:
            runs[-1] = (runs[-1][0], row + 1, value)
        else:
            runs.append((row, row + 1, value))
    return runs


def _add_language(
    key: str,
    rows: list[object],
    task: str,
    attributes: dict[str, object],
    runs: dict[str, list[tuple[int, int, object]]],
) -> None:
    """Rows of a language column: those that stand on every frame once, events as runs; phrasings of the task apart."""
    plain = [_plain(value) for value in rows]
    found = _text_runs(plain)
    if len(found) == 1:
        if found[0][2]:
            attributes[key] = found[0][2]
    else:
        runs[key] = [run for run in found if run[2]]
    said = [row for value in plain for row in (value if isinstance(value, list) else [value]) if isinstance(row, dict)]
    phrasings = [str(row["content"]) for row in said if row.get("style") == "task_aug" and row.get("content")]
    if phrasings:
        attributes[INSTRUCTIONS] = list(dict.fromkeys([*([task] if task else []), *phrasings]))


def _plain(value: object) -> object:
    """A cell as plain JSON; a single row as a list of it, as LeRobot writes lists."""
    rows = value if isinstance(value, list) else [] if value is None else [value]
    return json.loads(json.dumps(rows, default=str))
