"""What people write down about how an episode went: a word, a yes or no, and what it means for success.

A grade is kept as it was written, in ``episode.attributes["grade"]``; success is what it says about the task: done, not
done (a half success is not done), or unknown for a word that is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from robo_core.errors import ConfigError, ImportSourceError
from robo_datasets.importers.files import read_json

LABELS = "labels.json"
OUTCOMES: dict[str, bool | None] = {"true": True, "false": False, "unknown": None}

_SUCCESS = ("success", "successes", "successful", "succeeded", "succeed", "pass", "passed", "true", "yes")
_FAILURE = ("failure", "failures", "failed", "fail", "fails", "unsuccessful", "false", "no")
_HALF = ("suboptimal", "partial", "partial_success", "half", "half_success", "near_miss", "partially_successful")
# How much of the task a grade stands for, so that grades can be put in order.
_VALUES = {**dict.fromkeys(_SUCCESS, 1.0), **dict.fromkeys(_HALF, 0.5), **dict.fromkeys(_FAILURE, 0.0)}
_LABEL_KEYS = ("label", "grade", "outcome", "quality", "quality_label", "result", "success")
_PATH_KEYS = ("path", "folder", "episode", "name")
_TASK_KEYS = ("task", "instruction", "language_instruction")


@dataclass(frozen=True)
class Grade:
    """How an episode went."""

    word: str
    success: bool | None
    value: float | None
    """1 for done, 0 for not done, .5 for half; None where the word is not known."""

    def attributes(self) -> dict[str, object]:
        """What is kept with the episode."""
        return {"grade": self.word} | ({} if self.value is None else {"grade_value": self.value})


@dataclass(frozen=True)
class Label:
    """What a label file says of an episode."""

    grade: Grade | None = None
    task: str = ""


def check_outcomes(outcomes: Mapping[str, str] | None) -> dict[str, bool | None]:
    """What the user says grades mean.

    Raises:
        ConfigError: a value is not true, false or unknown.
    """
    found: dict[str, bool | None] = {}
    for word, value in (outcomes or {}).items():
        if str(value).lower() not in OUTCOMES:
            raise ConfigError(f"outcomes: {word} is {value!r}, not one of: {', '.join(OUTCOMES)}")
        found[_plain(word)] = OUTCOMES[str(value).lower()]
    return found


def is_grade(word: str, outcomes: Mapping[str, bool | None]) -> bool:
    """Whether a folder's name is a grade."""
    return _plain(word) in _VALUES or _plain(word) in outcomes


def grade_of(value: object, outcomes: Mapping[str, bool | None]) -> Grade:
    """The grade that a word, a truth value or a number from 0 to 1 stands for."""
    if isinstance(value, bool):
        return Grade("success" if value else "failure", value, float(value))
    if isinstance(value, int | float):
        return Grade(f"{value:g}", True if value == 1 else False if 0 <= value < 1 else None, float(value))
    word = str(value)
    known = _VALUES.get(_plain(word))
    success = outcomes.get(_plain(word), None if known is None else known == 1.0)
    return Grade(word, success, known)


def read_labels(path: Path, outcomes: Mapping[str, bool | None]) -> dict[str, Label]:
    """A label file: a list of {path, label, task}, or an object from path to label or to {label, task}.

    Raises:
        ImportSourceError: it is malformed; names the entry.
    """
    document = read_json(path)
    entries: list[tuple[object, object]]
    if isinstance(document, dict):
        entries = list(document.items())
    elif isinstance(document, list):
        entries = [(_first(entry, _PATH_KEYS), entry) for entry in document]
    else:
        raise ImportSourceError(f"{path} must hold a list of {{path, label, task}}, or an object by path")
    labels: dict[str, Label] = {}
    for number, (name, entry) in enumerate(entries):
        if not isinstance(name, str) or not name:
            raise ImportSourceError(f"{path}, entry {number} has no path: {str(entry)[:200]}")
        key = Path(name).as_posix().rstrip("/")
        if key in labels:
            raise ImportSourceError(f"{path}, entry {number}: {name} is labelled twice")
        fields = entry if isinstance(entry, dict) else {"label": entry}
        value, task = _first(fields, _LABEL_KEYS), _first(fields, _TASK_KEYS)
        if value is not None and not isinstance(value, str | bool | int | float):
            raise ImportSourceError(f"{path}, entry {number}: the label of {name} is {str(value)[:80]!r}, not a word")
        labels[key] = Label(
            None if value is None or value == "" else grade_of(value, outcomes), task if isinstance(task, str) else ""
        )
    return labels


def _first(fields: object, keys: tuple[str, ...]) -> object:
    return next((fields[key] for key in keys if key in fields), None) if isinstance(fields, dict) else None


def _plain(word: str) -> str:
    return word.strip().lower().replace("-", "_").replace(" ", "_")
