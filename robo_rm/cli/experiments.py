"""Recipes: ``configs/experiment/*.yaml``, each for the command that its first comment names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from robo_rm.cli.commands import Command


def command_of(recipe: Path) -> str:
    """The command that a recipe is for, as the user types it; empty where its comments name none."""
    found = re.search(r"^# robo-rm ([a-z -]+?) experiment=", recipe.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return found.group(1) if found else ""


def owner_of(words: Sequence[str], command: Command, config_dir: str | None) -> str:
    """A line where the command line chooses a recipe of another command, else an empty string."""
    for word in words:
        key, _, name = word.lstrip("+").partition("=")
        for folder in (command.folder, Path(config_dir or command.folder)):
            recipe = folder / "experiment" / f"{name}.yaml"
            if key == "experiment" and recipe.is_file() and command_of(recipe) not in ("", command.words):
                return f"{word} is for robo-rm {command_of(recipe)}"
    return ""
