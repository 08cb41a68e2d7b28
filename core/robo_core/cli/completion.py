"""Shell completion: Hydra's, which knows one command, behind the choice of a command."""

from __future__ import annotations

import os
from collections.abc import Mapping

from robo_core.cli.commands import Command


def complete(commands: Mapping[str, Command], words: list[str]) -> int:
    """Do what ``robo-rm --shell-completion install=SHELL`` (or ``uninstall=``, ``query=``) asks; return the exit code.

    A shell queries with the whole line in ``COMP_LINE``.
    """
    from robo_core.cli.app import run_app

    first = next(iter(commands.values()))
    if not any(word.startswith("query=") for word in words):
        return run_app(first, words)
    program, *typed = os.environ.get("COMP_LINE", "robo-rm ").split(" ")
    for count in (2, 1):
        command = commands.get(".".join(typed[:count]))
        if command is not None and len(typed) > count:
            os.environ["COMP_LINE"] = " ".join([program, *typed[count:]])
            return run_app(command, words)
    begun = " ".join(typed)
    names = [command.words.split(" ") for command in commands.values() if command.words.startswith(begun)]
    print(" ".join(dict.fromkeys(name[len(typed) - 1] for name in names)))
    return 0
