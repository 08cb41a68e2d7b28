"""From ``key=value`` words to a verb's typed settings, by way of Hydra.

The schema is the verb's frozen dataclass ``Config``; the values come from ``configs/<verb>.yaml``, then from the
command line. A group of a verb stands in ``configs/<verb>/<group>/`` so that ``policy=act`` can choose a group in one
verb while ``policy=folder`` is a plain value in another. A verb's module may have ``further_choices()``, choices of a
group that have no YAML there because another distribution brings them; they keep the values of their schema.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from pathlib import Path
from typing import Any

import yaml

from robo_core.cli.configs import configs_folder
from robo_core.cli.verbs import Verb, nearest
from robo_core.errors import ConfigError


def compose_settings(verb: Verb, words: list[str]) -> Any:
    """Return the verb's ``Config`` filled from its YAML and from the command line's ``key=value`` words.

    Raises:
        ConfigError: a key is misspelt, a value has the wrong type, or a mandatory value is missing; the message
            names the key, the file and the nearest valid key.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    folder = config_folder_of(verb)
    primary = folder / f"{verb.config_name}.yaml"
    groups = verb_groups(verb)
    chosen = chosen_schemas(verb, words)
    overrides = [_as_override(word, verb, groups, primary, chosen) for word in words]
    _register_schema(verb, chosen)
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            name = verb.config_name if primary.exists() else f"{verb.config_name}_schema"
            node = compose(name, overrides=overrides)
        return OmegaConf.to_object(node)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, verb, primary, words, chosen)) from error


def config_folder_of(verb: Verb) -> Path:
    """Return the folder of the verb's YAML; a third party's module may set ``CONFIG_FOLDER``."""
    return Path(getattr(verb.module, "CONFIG_FOLDER", configs_folder())).resolve()


def verb_groups(verb: Verb) -> dict[str, list[str]]:
    """Return the verb's config groups and the choices of each."""
    root = config_folder_of(verb) / verb.config_name
    if not root.is_dir():
        return {}
    further = _further_choices(verb)
    return {
        group.name: sorted({*(path.stem for path in group.glob("*.yaml")), *further.get(group.name, ())})
        for group in sorted(root.iterdir())
        if group.is_dir()
    }


def _further_choices(verb: Verb) -> dict[str, list[str]]:
    found: dict[str, list[str]] = getattr(verb.module, "further_choices", dict)()
    return found


def chosen_schemas(verb: Verb, words: list[str]) -> dict[str, type]:
    """Return the settings class of each group whose choices have different ones.

    A verb's module says so with a function ``group_schema(group, choice)``, which returns a dataclass, or None where
    the class that ``Config`` names holds.
    """
    find = getattr(verb.module, "group_schema", None)
    if find is None:
        return {}
    primary = config_folder_of(verb) / f"{verb.config_name}.yaml"
    defaults = yaml.safe_load(primary.read_text()).get("defaults", []) if primary.exists() else []
    choices = {
        str(key).rpartition("@")[2].rpartition("/")[2]: str(value)
        for entry in defaults
        if isinstance(entry, dict)
        for key, value in entry.items()
    }
    groups = verb_groups(verb)
    choices.update((key, value) for key, _, value in (word.partition("=") for word in words) if key in groups)
    schemas = {group: find(group, choice) for group, choice in choices.items() if choice in groups.get(group, ())}
    return {group: schema for group, schema in schemas.items() if schema is not None}


def flat_fields(schema: type, prefix: str = "", chosen: typing.Mapping[str, type] | None = None) -> dict[str, Any]:
    """Return every key of a dataclass schema with its type, nested ones as ``outer.inner``.

    ``chosen`` is what :func:`chosen_schemas` gave.
    """
    hints = {**typing.get_type_hints(schema), **(chosen or {})}
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(schema):
        kind = hints[field.name]
        flat[prefix + field.name] = kind
        if dataclasses.is_dataclass(kind):
            flat.update(flat_fields(typing.cast(type, kind), f"{prefix}{field.name}."))
    return flat


def _as_override(word: str, verb: Verb, groups: dict[str, list[str]], primary: Path, chosen: dict[str, type]) -> str:
    key, equals, value = word.partition("=")
    if not equals:
        raise ConfigError(f"'{word}' is not a setting; write key=value")
    if key in groups:
        if value not in groups[key]:
            choices = ", ".join(groups[key])
            raise ConfigError(f"{key}={value} is not one of: {choices}{nearest(value, groups[key])}")
        return f"{verb.config_name}/{key}@{key}={value}"
    fields = flat_fields(verb.module.Config, chosen=chosen)
    bare = key.lstrip("+~")
    open_ended = any(_is_mapping(kind) and bare.startswith(f"{name}.") for name, kind in fields.items())
    if bare not in fields and not open_ended:
        raise ConfigError(
            f"there is no setting '{key}' in {_shown(primary)}{nearest(bare, fields)}"
            f" (robo-rm {verb.words} --help lists them)"
        )
    if _is_text(fields.get(bare)) and not re.match(r"^(['\"].*['\"]|null)$", value):
        # A path may hold characters that mean something in Hydra's grammar; a text setting is taken as it is.
        value = _quoted(value)
    # A mapping's own keys are in no schema, so Hydra has to be told to add them.
    whole = _is_mapping(fields.get(bare)) and value.startswith("{")
    new = (whole or (open_ended and bare not in fields)) and key == bare
    return f"{'++' if new else ''}{key}={value}"


def _quoted(value: str) -> str:
    """Quote for Hydra's grammar, in which a backslash is special only before a quote or at the end."""
    value = re.sub(r"(\\*)'", lambda found: found.group(1) * 2 + "\\'", value)
    return "'" + re.sub(r"(\\+)$", lambda found: found.group(1) * 2, value) + "'"


def _is_text(kind: Any) -> bool:
    # A union with str is text; a list or mapping of str keeps Hydra's brackets.
    return kind is str or (typing.get_origin(kind) in (typing.Union, types.UnionType) and str in typing.get_args(kind))


def _is_mapping(kind: Any) -> bool:
    return kind is dict or typing.get_origin(kind) is dict


def _shown(path: Path) -> str:
    return f"configs/{path.name}"


def _register_schema(verb: Verb, chosen: dict[str, type]) -> None:
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    node = OmegaConf.structured(verb.module.Config)
    _writable(node)
    for group, schema in chosen.items():
        node[group] = OmegaConf.structured(schema)
    _writable(node)
    store = ConfigStore.instance()
    store.store(name=f"{verb.config_name}_schema", node=node)
    root = config_folder_of(verb) / verb.config_name
    for group, choices in _further_choices(verb).items():
        for choice in choices:
            if not (root / group / f"{choice}.yaml").exists():
                store.store(name=choice, node={}, group=f"{verb.config_name}/{group}")


def _writable(node: Any) -> None:
    """Lift the read-only flag that OmegaConf sets on frozen dataclasses, so that values can be merged in."""
    from omegaconf import DictConfig, OmegaConf

    OmegaConf.set_readonly(node, None)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            _writable(child)


def _explain(error: Exception, verb: Verb, primary: Path, words: list[str], chosen: dict[str, type]) -> str:
    """One line from a chain of Hydra and OmegaConf errors; what is wrong stands somewhere in the middle."""
    from omegaconf.errors import MissingMandatoryValue

    text = "\n".join(str(part) for part in _chain(error))
    found = re.search(r"full_key: (\S+)", text)
    key = found.group(1) if found else ""
    if any(isinstance(part, MissingMandatoryValue) for part in _chain(error)):
        return f"{key or 'a setting'} is missing; give {key}=... (robo-rm {verb.words} --help says what it is)"
    unknown = re.search(r"Key '([^']+)' (?:is )?not in", text)
    if unknown:
        hint = nearest(unknown.group(1), flat_fields(verb.module.Config, chosen=chosen))
        return f"{_shown(primary)} or a group of it has the unknown key '{unknown.group(1)}'{hint}"
    first = str(_chain(error)[-1]).strip().split("\n")[0]
    typed = next((word for word in words if key and word.split("=")[0] == key), None)
    return f"{typed}: {first}" if typed else f"{_shown(primary)}{f', key {key}' if key else ''}: {first}"


def _chain(error: BaseException) -> list[BaseException]:
    """The error and its causes, outermost first."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain
