"""A command line as Hydra takes it: its flags, and the settings as its overrides.

Overrides are Hydra's own but for one thing: a path may hold characters that mean something in Hydra's grammar, so what
is not of that grammar is quoted, and so is what would not be text to a setting that is text.
"""

from __future__ import annotations

import argparse
import re
import types
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import NoReturn, Union, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.main import get_args_parser

from robo_core.cli.commands import Command
from robo_core.cli.written import check_written
from robo_core.errors import ConfigError


def parse_flags(words: Sequence[str], command: Command) -> argparse.Namespace:
    """Hydra's flags and, as ``overrides``, the settings, which may stand in any order.

    Raises:
        ConfigError: Hydra has no such flag, or its value is missing or unknown; or a setting is not ``key=value``.
    """
    parser = get_args_parser()
    check_written(words, command, parser)

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; robo-rm COMMAND --hydra-help lists the flags")

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_intermixed_args(list(words))


def as_overrides(command: Command, words: Sequence[str], multirun: bool) -> list[str]:
    """Return the words as Hydra takes them.

    Args:
        command: whose settings they are.
        words: ``key=value``, ``+key=value``, ``++key=value`` or ``~key``.
        multirun: ``key=a,b`` sweeps; else it is text to a setting that is text.
    """
    text = _text_keys(command.schema, set(command.groups))
    return [_as_override(word, text, multirun) for word in words]


def _as_override(word: str, text: set[str], multirun: bool) -> str:
    key, equals, value = word.partition("=")
    if not equals:
        return word
    try:
        parsed = OverridesParser.create().parse_override(word)
    except HydraException:
        return f"{key}={_quoted(value)}"
    if key.lstrip("+") not in text or (multirun and parsed.is_sweep_override()):
        return word
    if not parsed.is_sweep_override() and (parsed.value() is None or isinstance(parsed.value(), str)):
        return word
    return f"{key}={_quoted(value)}"


def unswept_keys(words: Sequence[str]) -> list[str]:
    """Return the keys of those overrides that have one value, however many jobs there are."""
    found = []
    for word in words:
        try:
            parsed = OverridesParser.create().parse_override(word)
        except HydraException:  # Hydra says so, too
            continue
        if not parsed.is_sweep_override():
            found.append(parsed.key_or_group)
    return found


def _text_keys(schema: type, groups: set[str], prefix: str = "") -> set[str]:
    keys = set()
    for name, kind in get_type_hints(schema).items():
        if isinstance(kind, type) and is_dataclass(kind) and name not in groups:
            keys |= _text_keys(kind, set(), f"{prefix}{name}.")
        # A union with str is text; a list or mapping of str keeps Hydra's brackets.
        elif kind is str or (get_origin(kind) in (Union, types.UnionType) and str in get_args(kind)):
            keys.add(prefix + name)
    return keys


def _quoted(value: str) -> str:
    """Quote for Hydra's grammar, in which a backslash is special only before a quote or at the end."""
    value = re.sub(r"(\\*)'", lambda found: found.group(1) * 2 + "\\'", value)
    return "'" + re.sub(r"(\\+)$", lambda found: found.group(1) * 2, value) + "'"
