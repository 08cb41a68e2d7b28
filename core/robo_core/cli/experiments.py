"""Recipes: ``configs/experiment/*.yaml``, each for the command that its first comment names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from robo_core.cli.commands import Command
from robo_core.cli.configs import configs_folder


def command_of(recipe: Path) -> str:
    """The command that a recipe is for, as the user types it; empty where its comments name none."""
    found = re.search(r"^# robo-rm ([a-z -]+?) experiment=", recipe.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return found.group(1) if found else ""


def owner(name: str, command: Command, config_dir: str | None) -> str:
    """The command that the recipe ``name`` is for; ``command`` itself where nothing says otherwise."""
    for folder in (command.folder, configs_folder(), Path(config_dir or command.folder)):
        recipe = folder / "experiment" / f"{name}.yaml"
        if recipe.is_file():
            return command_of(recipe) or command.words
    return command.words


def recipes_of(names: Iterable[str], command: Command, config_dir: str | None) -> list[str]:
    """Those of the recipes that are for a command."""
    return [name for name in names if owner(name, command, config_dir) == command.words]
