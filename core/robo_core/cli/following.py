"""The command that follows: printed at the end of one, with the user's own paths, ready to be pasted."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robo_core.console import say

QUIET_VARIABLE = "ROBO_RM_NO_NEXT"


def next_command(command: str, **settings: str) -> str:
    """``robo-rm COMMAND KEY=VALUE ...``, quoted for a shell.

    Args:
        command: such as ``eval-reward`` or ``import lerobot``.
        settings: in order; empty ones are left out. Keys with a dot are given as ``**{"weights.name": name}``; a value
            in capitals stands for what only the user knows, as in ``contract="YOUR_ROBOT.yaml"``.
    """
    return shlex.join(["robo-rm", *command.split(), *(f"{key}={value}" for key, value in settings.items() if value)])


def say_next(command: str, **settings: str) -> None:
    """Print ``next:`` and the command line of `next_command`."""
    say_then(next_command(command, **settings))


def say_then(text: str) -> None:
    """Print ``next: TEXT``, where what follows is no command of ours, or is one with words around it."""
    if QUIET_VARIABLE not in os.environ:
        say(f"next: {text}")


@contextmanager
def without_next() -> Iterator[None]:
    """Have commands that run inside, or in processes started inside, not say what follows: their caller knows."""
    before = os.environ.get(QUIET_VARIABLE)
    os.environ[QUIET_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[QUIET_VARIABLE]


def beside(folder: str, ending: str) -> str:
    """A name for the next command's folder beside ``folder``: ``rm`` and ``report`` make ``rm_report``."""
    return f"{folder.rstrip('/')}_{ending}"


def beside_store(store: str, ending: str) -> str:
    """The same beside a store: ``demos.zarr`` and ``rm`` make ``demos_rm``."""
    return beside(str(Path(store.rstrip("/")).with_suffix("")), ending)


def saved_setting(folder: str | os.PathLike[str], key: str) -> str:
    """What a command was given as ``key=`` when it wrote ``folder``; empty where its config.yaml does not say."""
    import yaml

    try:
        settings = yaml.safe_load((Path(folder) / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return ""
    value = settings.get(key) if isinstance(settings, dict) else None
    return value if isinstance(value, str) else ""
