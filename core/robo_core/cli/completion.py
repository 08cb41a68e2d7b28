"""Shell completion: installed by ``robo-rm completion SHELL``, answered by Hydra, which knows one command at a time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from robo_core.cli.commands import Command, nearest
from robo_core.console import say
from robo_core.errors import ConfigError

USAGE = """usage: robo-rm completion bash|zsh|fish           install completion for your user
       robo-rm completion bash|zsh|fish --print   print the script instead

Completes commands, settings and choices, and file names after key=."""

# Bash and fish load a file of the command's name from these folders; zsh has none of the user's own.
_BASH = """# Completion of robo-rm; written by: robo-rm completion bash
_robo_rm() {
    local line=${COMP_LINE:0:COMP_POINT}
    local word=${line##* }
    COMPREPLY=($(compgen -W "$(COMP_LINE=$line robo-rm -sc query=bash 2>/dev/null)" -- "$word"))
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%%=*}="}")
    fi
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} != *[=./] ]]; then
        compopt +o nospace 2>/dev/null
    fi
}
complete -o default -o nospace -F _robo_rm robo-rm
"""
_ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"
_FISH = """# Completion of robo-rm; written by: robo-rm completion fish
complete -c robo-rm -a '(env COMP_LINE=(commandline -cp) robo-rm -sc query=fish 2>/dev/null)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _BASH.replace("\n", f"\n{_ZSH}", 1).replace("completion bash", "completion zsh"),
           "fish": _FISH}  # fmt: skip


def install(words: list[str]) -> int:
    """Do what ``robo-rm completion SHELL [--print]`` asks; return the exit code.

    Raises:
        ConfigError: no shell is named, or another word is there.
    """
    rest = [word for word in words if word != "--print"]
    if len(rest) != 1 or rest[0] not in SCRIPTS:
        given = f"'{rest[0]}' is not one of them{nearest(rest[0], SCRIPTS)}" if rest else "none was given"
        raise ConfigError(f"'completion' needs one of: {', '.join(SCRIPTS)}; {given}")
    shell = rest[0]
    if len(rest) < len(words):
        print(SCRIPTS[shell], end="")
        return 0
    path = _place(shell)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SCRIPTS[shell])
    say(f"wrote {path}; new shells complete robo-rm")
    if shell == "bash":
        say(f"this shell, or a bash without the bash-completion package: source {path}")
    if shell == "zsh":
        _source_from(Path(os.environ.get("ZDOTDIR", Path.home())) / ".zshrc", path)
    return 0


def _place(shell: str) -> Path:
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    if shell == "bash":
        folder = os.environ.get("BASH_COMPLETION_USER_DIR") or data / "bash-completion"
        return Path(folder) / "completions" / "robo-rm"
    if shell == "zsh":
        return data / "robo-rm" / "completion.zsh"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "fish/completions/robo-rm.fish"


def _source_from(rc: Path, script: Path) -> None:
    """Add a line to ``rc`` that loads the script, where it does not have it yet."""
    line = f'[ -f "{script}" ] && source "{script}"  # completion of robo-rm'
    text = rc.read_text() if rc.exists() else ""
    if line in text.splitlines():
        return
    with open(rc, "a") as file:
        file.write(("" if text.endswith("\n") or not text else "\n") + line + "\n")
    say(f"added a line to {rc} that loads it")


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
    if typed[:1] == ["completion"] and len(typed) > 1:
        print("\n".join(SCRIPTS))
        return 0
    begun = " ".join(typed)
    names = [command.words.split(" ") for command in commands.values() if command.words.startswith(begun)]
    others = [word for word in ("completion", "help", "version") if len(typed) == 1 and word.startswith(begun)]
    print("\n".join(dict.fromkeys([*(name[len(typed) - 1] for name in names), *others])))
    return 0
