"""Instructions that mean the same task: groups of phrasings, an annotation of the whole store.

"pick up the cube" and "lift the cube" are one task, which no model can know from the words alone. A group lists such
phrasings; those that no episode has are welcome, since somebody may say them to the robot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from robo_core.errors import StoreError
from robo_datasets.store.demo_store import DemoStore
from robo_datasets.store.description import edit_description, read_description


def instruction_groups(store: DemoStore) -> list[list[str]]:
    """The groups of a store; empty where none were given."""
    return [[str(text) for text in group] for group in read_description(store.path).get("instruction_groups", [])]


def set_instruction_groups(store: DemoStore, groups: object) -> None:
    """Replace the groups of a store by lists of phrasings, checked here; an empty list removes them.

    Raises:
        StoreError: a group has fewer than two phrasings, a phrasing is not text or stands in two groups, or the store
            cannot be written to.
    """
    checked = check_groups(groups)
    root = store.path
    if not isinstance(root, Path):
        raise StoreError(f"{root} is on a URL and can only be read; write to a folder and upload it")
    with edit_description(root) as description:
        description.pop("instruction_groups", None)
        if checked:
            description["instruction_groups"] = checked


def check_groups(groups: object) -> list[list[str]]:
    """The groups, if they are lists of phrasings.

    Raises:
        StoreError: names the group or the phrasing that is not.
    """
    if not isinstance(groups, Sequence) or isinstance(groups, str):
        raise StoreError(f"instruction groups are a list of lists of instructions, got {type(groups).__name__}")
    seen: dict[str, int] = {}
    checked: list[list[str]] = []
    for number, group in enumerate(groups, start=1):
        if not isinstance(group, Sequence) or isinstance(group, str):
            raise StoreError(f"instruction group {number} is {group!r}; give a list of instructions")
        for text in group:
            if not isinstance(text, str) or not words_of(text):
                raise StoreError(f"instruction group {number} holds {text!r}; give instructions with words")
            if seen.get(words_of(text), number) != number:
                raise StoreError(f"the instruction {text!r} stands in the groups {seen[words_of(text)]} and {number}")
            seen[words_of(text)] = number
        if len({words_of(text) for text in group}) < 2:
            raise StoreError(f"instruction group {number} needs two different phrasings or more, got {list(group)}")
        checked.append(list(group))
    return checked


def words_of(text: str) -> str:
    """An instruction by its words alone: two that differ in case, spaces and marks are the same."""
    return " ".join(re.findall(r"\w+", text.casefold()))


class Phrasings:
    """Which instructions mean the same.

    Args:
        groups: of phrasings.
    """

    def __init__(self, groups: Sequence[Sequence[str]] = ()) -> None:
        self.groups = [list(group) for group in groups]
        self._group = {words_of(text): group for group in self.groups for text in group}

    def of(self, text: str) -> list[str]:
        """All phrasings of an instruction's group; itself alone where it is in none."""
        return self._group.get(words_of(text), [text])

    def task(self, text: str) -> str:
        """One phrasing that stands for all of its group, the first; the text itself where it is in none."""
        return self.of(text)[0]

    def same(self, one: str, other: str) -> bool:
        """Whether two instructions mean the same task."""
        return words_of(self.task(one)) == words_of(self.task(other))
