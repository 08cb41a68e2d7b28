"""Settings written as in other programs, ``--key value`` or a bare word: the answer is what to write instead."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import NamedTuple

from robo_core.cli.commands import Command, nearest
from robo_core.errors import ConfigError

# Groups that every command has.
COMMON = ("experiment", "run", "hydra")


class _Slip(NamedTuple):
    typed: str
    """As the user wrote it."""
    key: str
    """Empty where a word stands alone."""
    value: str


def check_written(words: Sequence[str], command: Command, parser: argparse.ArgumentParser) -> None:
    """Check that every word is a flag of Hydra's, its value, or an override.

    Raises:
        ConfigError: one is not; names what to write, with the user's own values.
    """
    slips = list(_slips(words, _flags(parser)))
    if not slips:
        return
    # OmegaConf's MISSING is this text.
    mandatory = [field.name for field in fields(command.schema) if field.default == "???"]
    given = {word.partition("=")[0] for word in words if "=" in word} | {slip.key for slip in slips}
    free = [name for name in mandatory if name not in given]
    known = [*(field.name for field in fields(command.schema)), *command.groups, *COMMON]
    written = []
    for slip in slips:
        key = slip.key.replace("-", "_")
        if key.split(".")[0] in known:
            written.append(f"{key}={slip.value or '...'}")
        elif slip.key:
            hint = nearest(key, known).replace("'?", "=...'?")
            raise ConfigError(
                f"there is no flag or setting '{slip.typed}'{hint}; settings are written key=value "
                f"(robo-rm {command.words} --help lists them, --hydra-help the flags)"
            )
        elif slip.value in known or slip.value.split(".")[0] in command.groups:
            written.append(f"{slip.value}=...")
        elif free:
            written.append(f"{free.pop(0)}={slip.value}")
        else:
            see = f"robo-rm {command.words} --help"
            raise ConfigError(f"'{slip.typed}' is not a setting; write key=value ({see} lists them)")
    typed = " ".join(slip.typed for slip in slips)
    here = " ".join(word if word.endswith("...") else shlex.quote(word) for word in written)
    what = "not a setting" if len(slips) == 1 else "no settings"
    raise ConfigError(f"'{typed}' is {what}; write key=value, here {here}")


def _flags(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {name: action for action in parser._actions for name in action.option_strings}


def _slips(words: Sequence[str], flags: dict[str, argparse.Action]) -> Iterator[_Slip]:
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        action = _flag(name, flags)
        if action is not None:
            if not equals and _takes(action, left):
                left.pop(0)
        elif word == "=" or (equals and not value and _is_bare(left)):
            # Spaces around the equals sign; a bare word before it has been reported already.
            if _is_bare(left):
                yield _Slip(f"{word} {left[0]}", name, left.pop(0))
        elif name.startswith("-"):
            typed = word
            if not equals and _is_bare(left):
                value = left.pop(0)
                typed = f"{word} {value}"
            yield _Slip(typed, name.lstrip("-"), value)
        elif _is_bare([word]):
            if left[:1] == ["="] and _is_bare(left[1:]):
                yield _Slip(f"{word} = {left[1]}", word, left[1])
                del left[:2]
            else:
                yield _Slip(word, "", word)


def _flag(name: str, flags: dict[str, argparse.Action]) -> argparse.Action | None:
    """The flag that a word begins, as argparse finds it: whole, or as the only one that begins so."""
    if name in flags:
        return flags[name]
    begun = [action for flag, action in flags.items() if name.startswith("--") and flag.startswith(name)]
    return begun[0] if len(begun) == 1 and len(name) > 2 else None


def _takes(action: argparse.Action, left: Sequence[str]) -> bool:
    """Whether the next word is the flag's value."""
    if action.nargs == 0 or not left:
        return False
    return action.nargs is None or _is_bare(left)


def _is_bare(left: Sequence[str]) -> bool:
    """Whether the first word is neither a flag nor an override."""
    return bool(left) and "=" not in left[0] and not left[0].startswith(("-", "~"))
