"""The help texts: all verbs in the order a user needs them, and every setting of one verb."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
import types
import typing
from typing import Any

from robo_core.cli.compose import chosen_schemas, config_folder_of, flat_fields, verb_groups
from robo_core.cli.verbs import HEADINGS, Verb
from robo_core.console import say

HEAD = """robo-rm: robot demonstrations into reward models, better policies and safe motion.

usage: robo-rm VERB key=value ...
       robo-rm VERB --help        every setting of a verb
       robo-rm --version"""


def print_overview(verbs: dict[str, Verb]) -> None:
    """Print every verb with its one-line summary, under headings."""
    say(HEAD)
    rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
    for verb in verbs.values():
        try:
            rows.setdefault(verb.heading, []).append((verb.words, verb.summary))
        except ImportError as error:  # one broken third-party verb must not take the help away
            rows.setdefault("cannot be loaded", []).append((verb.words, str(error)))
    width = max((len(words) for lines in rows.values() for words, _ in lines), default=0)
    for heading, lines in rows.items():
        if lines:
            say(f"\n{heading}")
            for words, summary in lines:
                say(f"  {words:<{width}} {summary}")


def print_verb_help(verb: Verb, words: list[str] | None = None) -> None:
    """Print the verb's docstring and its settings with type, default and meaning.

    ``words`` may choose groups, so that ``policy=diffusion --help`` shows the settings of that policy.
    """
    chosen = chosen_schemas(verb, words or [])
    say(f"usage: robo-rm {verb.words} key=value ...\n")
    say(inspect.cleandoc(verb.module.__doc__ or ""))
    groups = verb_groups(verb)
    say(f"\nsettings (defaults from configs/{verb.config_name}.yaml)")
    picked = [word for word in words or [] if word.partition("=")[0] in groups]
    defaults = _defaults(verb, picked, chosen)
    sentences = field_sentences(verb.module.Config, chosen=chosen)
    for key, kind in flat_fields(verb.module.Config, chosen=chosen).items():
        if dataclasses.is_dataclass(kind):
            if key in groups:
                say(f"  {key}={'|'.join(groups[key])}")
                _say_indented(sentences.get(key, ""))
            continue
        default = defaults.get(key, "???")
        given = "mandatory" if default == "???" else f"default {_shown(default)}"
        say(f"  {key}  ({_kind_name(kind)}, {given})")
        _say_indented(sentences.get(key, ""))


def field_sentences(schema: type, prefix: str = "", chosen: typing.Mapping[str, type] | None = None) -> dict[str, str]:
    """Return the sentence that stands under each field of a dataclass, nested ones as ``outer.inner``.

    A field that a class inherits has its sentence there.
    """
    sentences: dict[str, str] = {}
    for base in schema.__bases__:
        if dataclasses.is_dataclass(base):
            sentences.update(field_sentences(base, prefix))
    body = ast.parse(textwrap.dedent(inspect.getsource(schema))).body[0]
    if isinstance(body, ast.ClassDef):
        for field, text in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                sentences[prefix + field.target.id] = " ".join(str(text.value.value).split())
    for name, kind in {**typing.get_type_hints(schema), **(chosen or {})}.items():
        if dataclasses.is_dataclass(kind):
            sentences.update(field_sentences(typing.cast(type, kind), f"{prefix}{name}."))
    return sentences


def _defaults(verb: Verb, picked: list[str], chosen: dict[str, type]) -> dict[str, Any]:
    """The composed defaults; the schema's own where the verb has no YAML."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from robo_core.cli.compose import _register_schema

    _register_schema(verb, chosen)
    folder = config_folder_of(verb)
    has_yaml = (folder / f"{verb.config_name}.yaml").exists()
    with initialize_config_dir(str(folder), version_base="1.3"):
        overrides = [f"{verb.config_name}/{key}@{word}" for word in picked for key in [word.partition("=")[0]]]
        node = compose(verb.config_name if has_yaml else f"{verb.config_name}_schema", overrides=overrides)
    return _flatten(OmegaConf.to_container(node))


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat[prefix + key] = value
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
    return flat


def _kind_name(kind: Any) -> str:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_kind_name(part) for part in typing.get_args(kind))
    if kind is type(None):
        return "null"
    return str(kind) if typing.get_args(kind) else getattr(kind, "__name__", str(kind))


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else (str(value) or "''")


def _say_indented(text: str) -> None:
    if text:
        say(textwrap.fill(text, width=100, initial_indent="      ", subsequent_indent="      "))
    sys.stdout.flush()
