"""Recipes: ``configs/experiment/*.yaml``. Their key ``command`` names the command that they are for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml
from omegaconf import DictConfig

from robo_core.cli.commands import Command, find_commands, nearest
from robo_core.cli.configs import configs_folder
from robo_core.errors import ConfigError

FOLDER = "experiment/"
KEY = "command"


def command_of(recipe: Path) -> str:
    """The command that a recipe is for, as the user types it; empty where it names none or cannot be read."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(recipe.read_text(encoding="utf-8"), loader)
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    return str(content.get(KEY, "")) if isinstance(content, dict) else ""


def take_command(recipe: DictConfig, name: str, file: str, command: Command) -> None:
    """Remove the key from a recipe that was loaded for ``command``: it is no setting.

    Args:
        recipe: the content of the file.
        name: of the recipe, as in ``experiment=NAME``.
        file: where it stands.
        command: the one that loads it.

    Raises:
        ConfigError: the key is missing, names no command, or another one.
    """
    words = [one.words for one in find_commands().values()]
    given = recipe.pop(KEY, None)
    if given is None:
        raise ConfigError(f"{file} does not say which command it is for; add '{KEY}: {command.words}' at its top")
    if given == command.words:
        return
    if given not in words:
        raise ConfigError(f"{file}: {KEY}: {given} names no command{nearest(str(given), words)}")
    raise ConfigError(f"experiment={name} is for robo-rm {given}")


def recipes_of(names: Iterable[str], command: Command, config_dir: str | None) -> list[str]:
    """Those of the recipes that are for a command."""
    folders = (command.folder, configs_folder(), Path(config_dir or command.folder))

    def found(name: str) -> Path:
        places = [folder / FOLDER / f"{name}.yaml" for folder in folders]
        return next(filter(Path.is_file, places), places[0])

    return [name for name in names if command_of(found(name)) == command.words]
