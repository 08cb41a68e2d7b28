"""The command that follows: printed at the end of one, with the user's own paths, ready to be pasted."""

from __future__ import annotations

import shlex

from robo_core.console import say


def say_next(command: str, **settings: str) -> None:
    """Print ``next: robo-rm COMMAND KEY=VALUE ...``, quoted for a shell.

    Args:
        command: such as ``eval-reward``.
        settings: in order; empty ones are left out.
    """
    words = ["robo-rm", command, *(f"{key}={value}" for key, value in settings.items() if value)]
    say(f"next: {shlex.join(words)}")


def beside(folder: str, ending: str) -> str:
    """A name for the next command's folder beside ``folder``: ``rm`` and ``report`` make ``rm_report``."""
    return f"{folder.rstrip('/')}_{ending}"
