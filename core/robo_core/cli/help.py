"""The help texts: all commands in the order a user needs them, and every setting of one command."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
import types
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Union, get_args, get_origin

from robo_core.cli.commands import HEADINGS, Command, family, pick_command
from robo_core.console import say, text_width
from robo_core.errors import ConfigError

HEAD = """robo-rm: robot demonstrations into reward models, better policies and safe motion.

usage: robo-rm COMMAND key=value ...
       robo-rm COMMAND --help        every setting of a command
       robo-rm completion SHELL      install completion for bash, zsh or fish
       robo-rm --version"""
FLAGS = """Hydra's flags: --cfg job (show the config; --resolve, --package), --multirun (-m; key=a,b: one job for each),
--info, --config-dir, --config-name, --shell-completion; robo-rm COMMAND --hydra-help says more."""


def print_help(commands: Mapping[str, Command], topic: list[str]) -> None:
    """Print the help of what ``topic`` names: everything, a family such as ``import``, or a command and its settings.

    Raises:
        ConfigError: there is no such command, or the settings do not compose.
    """
    if not topic:
        print_overview(commands)
    elif topic[0] == "completion":
        from robo_core.cli.completion import USAGE

        say(USAGE)
    elif family(topic[0], commands) and (len(topic) == 1 or "=" in topic[1]):
        print_family(topic[0], family(topic[0], commands))
    else:
        print_command_help(*pick_command(topic, commands))


def print_family(word: str, members: Sequence[Command]) -> None:
    """Print the commands that begin with one word, such as ``import``, each with its one-line summary."""
    say(f"usage: robo-rm {word} FORMAT key=value ...\n")
    _say_commands([(command.words, command.summary) for command in members])
    say(f"\nrobo-rm {members[0].words} --help shows every setting")


def print_overview(commands: Mapping[str, Command]) -> None:
    """Print every command with its one-line summary, under headings."""
    say(_wrapped(HEAD))
    rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
    for command in commands.values():
        try:
            rows.setdefault(command.heading, []).append((command.words, command.summary))
        except ImportError as error:  # one broken third-party command must not take the help away
            rows.setdefault("cannot be loaded", []).append((command.words, str(error)))
    width = max((len(words) for lines in rows.values() for words, _ in lines), default=0)
    for heading, lines in rows.items():
        if lines:
            say(f"\n{heading}")
            _say_commands(lines, width)
    say("\nnext: robo-rm demo out=demo, or with a dataset of your own: robo-rm help import")


def _say_commands(lines: Sequence[tuple[str, str]], width: int = 0) -> None:
    """Each command with its summary, wrapped to the window where that is narrower than the line."""
    width = width or max(len(words) for words, _ in lines)
    for words, summary in lines:
        start = f"  {words:<{width}}  "
        say(textwrap.fill(summary, text_width(), initial_indent=start, subsequent_indent=" " * len(start)))


def print_command_help(command: Command, words: list[str]) -> None:
    """Print the command's docstring and its settings with type, default and meaning.

    ``words`` may choose groups, so that ``policy=diffusion --help`` shows the settings of that policy.

    Raises:
        ConfigError: the words do not compose.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from robo_core.cli.composed import compose_command
    from robo_core.cli.mistakes import explain
    from robo_core.cli.overrides import parse_flags

    options = parse_flags(words, command)
    try:
        composed = compose_command(command, options.overrides, options.config_dir)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(explain(error, command, options)) from error
    say(f"usage: robo-rm {command.words} key=value ...\n")
    say(_wrapped(inspect.cleandoc(command.module.__doc__ or "")))
    say("\nsettings")
    for setting in composed.settings():
        name = setting.key.rpartition(".")[2]
        if dataclasses.is_dataclass(setting.kind):
            if setting.key in composed.groups:
                _say_choices(setting.key, composed.groups[setting.key])
                _say_indented(field_sentences(setting.owner).get(name, ""))
            continue
        given = "mandatory" if setting.value == "???" else f"default {_shown(setting.value)}"
        say(f"  {setting.key}  ({_type_name(setting.kind)}, {given})")
        _say_indented(field_sentences(setting.owner).get(name, ""))
    for group, choices in composed.groups.items():
        if choices and group not in {setting.key for setting in composed.settings()}:
            _say_choices(group, choices)
    say(f"\n{_wrapped(FLAGS)}")


@cache
def field_sentences(schema: type) -> dict[str, str]:
    """Return the sentence that stands under each field of a dataclass, or of the class that it inherits it from."""
    sentences: dict[str, str] = {}
    for base in schema.__bases__:
        if dataclasses.is_dataclass(base):
            sentences.update(field_sentences(base))
    body = ast.parse(textwrap.dedent(inspect.getsource(schema))).body[0]
    if isinstance(body, ast.ClassDef):
        for field, text in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                sentences[field.target.id] = " ".join(str(text.value.value).split())
    return sentences


def _type_name(kind: object) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_type_name(part) for part in get_args(kind))
    if kind is type(None):
        return "null"
    return str(kind) if get_args(kind) else getattr(kind, "__name__", str(kind))


def _shown(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else (str(value) or "''")


def _wrapped(text: str) -> str:
    """Text whose paragraphs fit the window, where that is narrower than they are; indented lines stay as they are."""
    width = text_width()
    paragraphs = text.split("\n\n")
    for place, paragraph in enumerate(paragraphs):
        lines = paragraph.split("\n")
        if max(map(len, lines)) > width and not any(line.startswith(" ") for line in lines):
            paragraphs[place] = textwrap.fill(" ".join(lines), width)
    return "\n\n".join(paragraphs)


def _say_choices(key: str, choices: Sequence[str]) -> None:
    """``key=a|b|c``, on a terminal over as many lines as it takes."""
    line = f"  {key}="
    indent = " " * len(line)
    for number, choice in enumerate(choices):
        word = choice + ("|" if number + 1 < len(choices) else "")
        if sys.stdout.isatty() and line.strip() and len(line) + len(word) > text_width():
            say(line)
            line = indent
        line += word
    say(line)


def _say_indented(text: str) -> None:
    if text:
        say(textwrap.fill(text, text_width(100), initial_indent="      ", subsequent_indent="      "))
