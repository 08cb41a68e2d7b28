"""What people and tools write beside an episode in LeRobot's list of episodes: how it went, who recorded it, and so on.

meta/episodes.jsonl (version 2) and the table meta/episodes (version 3) may have more entries than LeRobot's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from robo_datasets.importers.grades import Grade, grade_of

# Features that say frame by frame whether the task is done; an episode is a success where one is ever true.
SUCCESS_FEATURES = ("next.success", "is_success", "success")
# Entries of an episode that say how it went, in the order in which they are believed.
_OUTCOMES = ("success", "is_success", "outcome", "grade", "label")
_INSTRUCTIONS = ("language_instruction", "instruction", "task_description")
# LeRobot's own, SARM's, and ours, which are read elsewhere.
_OTHERS = frozenset({"episode_index", "index", "length", "tasks", "task", "terminated", "truncated", *_INSTRUCTIONS})
_PREFIXES = ("stats/", "data/", "videos/", "meta/", "dataset_", "robo_rm.", "subtask_", "sparse_", "dense_")


def noted_grade(entry: Mapping[str, object]) -> Grade | None:
    """How the episode went by its own entry; None where it does not say."""
    for name in _OUTCOMES:
        value = entry.get(name)
        if isinstance(value, bool | str | int) or (isinstance(value, float) and math.isfinite(value)):
            return grade_of(value, {}) if value != "" else None
    return None


def noted_attributes(entry: Mapping[str, object]) -> dict[str, object]:
    """Everything else of the entry that LeRobot has no meaning for, as plain JSON; with the grade, where it is one."""
    grade = noted_grade(entry)
    found: dict[str, object] = {} if grade is None or isinstance(entry.get("success"), bool) else grade.attributes()
    for name, value in entry.items():
        if name in _OTHERS or name == "success" or name.startswith(_PREFIXES) or value is None:
            continue
        if not (isinstance(value, float) and not math.isfinite(value)):
            found.setdefault(name, json.loads(json.dumps(value, default=str)))
    return found


def noted_instruction(entry: Mapping[str, object]) -> str:
    """An instruction under other names than LeRobot's; empty where there is none."""
    found = (entry.get(name) for name in _INSTRUCTIONS)
    return next((text for text in found if isinstance(text, str) and text), "")
