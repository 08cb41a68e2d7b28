"""One line for each mistake in a command line or a config: Hydra and OmegaConf say it in many."""

from __future__ import annotations

import argparse
import re
import shlex

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from robo_core.cli.commands import Command, nearest
from robo_core.cli.composed import Setting, compose_command
from robo_core.cli.experiments import recipes_of


def explain(error: Exception, command: Command, options: argparse.Namespace) -> str:
    """Return one line that says what is wrong, where, and what was probably meant.

    Args:
        error: what Hydra or OmegaConf raised.
        command: of which the settings were to be composed.
        options: the command line, as `robo_core.cli.overrides.parse_flags` reads it.
    """
    chain = _chain(error)
    text = "\n".join(str(part) for part in chain)
    see = f"robo-rm {command.words} --help"
    for part in chain:
        if isinstance(part, OverrideParseException) and "=" not in part.override:
            return f"'{part.override}' is not a setting; write key=value"
        if isinstance(part, MissingConfigException) and part.missing_cfg_file:
            return _no_config(part, command, options)
    key = _found(r"full_key: (\S+)", text)
    if any(isinstance(part, MissingMandatoryValue) for part in chain):
        return f"{key or 'a setting'} is missing; give {key}=... ({see} says what it is)"
    several = _found(r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)'", text)
    if several:
        if several.partition("=")[0] in _lists(command, options):
            return _as_list(several)
        return f"{several} holds several values; --multirun runs one job for each, quotes make it text"
    present = _found(r"An item is already at '([^']+)'", text)
    if present:
        return f"+{present}=... adds a key, and {present} is there already; give {present}=..."
    unknown = _found(r"Could not override '([^']+)'", text)
    if unknown:
        hint = nearest(unknown, _known(command, options, but=unknown))
        return f"there is no setting '{unknown}'{hint} ({see} lists them)"
    stray = _found(r"Key '([^']+)' (?:is )?not in", text)
    if stray:
        where = _found(r"In '([^']+)'", text)
        name = f"{where}.yaml" if where else f"{command.config_name}.yaml or a config of it"
        return f"{name} has the unknown key '{key or stray}'{nearest(key or stray, _known(command, options))}"
    first = str(chain[-1]).strip().split("\n")[0]
    typed = _found(r"Error (?:merging|parsing) override '?([^'\n]+)", text)
    if typed and "is not a ListConfig" in first:
        return _as_list(typed)
    return f"{typed}: {first}" if typed and not first.startswith("Error") else " ".join(first.split())


def _no_config(error: MissingConfigException, command: Command, options: argparse.Namespace) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    if not group:
        return f"there is no config {choice}.yaml in {command.folder} or in --config-dir"
    choices = [one for one in error.options or () if not one.endswith("_schema")]
    if group == "experiment":
        choices = recipes_of(choices, command, options.config_dir)
    return f"{group}={choice} is not one of: {', '.join(choices)}{nearest(choice, choices)}"


def _as_list(typed: str) -> str:
    """The answer to ``cameras=front``; quoted, because brackets mean something in a shell."""
    key, _, value = typed.partition("=")
    written = shlex.quote(f"{key}=[{value}]")
    return f"{key} is a list; write {written}"


def _lists(command: Command, options: argparse.Namespace) -> set[str]:
    """The settings that are lists, with the groups that the command line chooses."""
    return {setting.key for setting in _settings(command, options)[0] if "list[" in str(setting.kind)}


def _known(command: Command, options: argparse.Namespace, but: str = "") -> list[str]:
    """All settings of the command with the groups that the command line chooses."""
    settings, groups = _settings(command, options)
    return [setting.key for setting in settings if setting.key != but] + groups


def _settings(command: Command, options: argparse.Namespace) -> tuple[list[Setting], list[str]]:
    """The settings and groups of what the command line chooses; of the command alone where that does not compose."""
    chosen = [word for word in options.overrides if re.match(r"[\w/]+=[\w/.-]+$", word)]
    for words in (chosen, []):
        try:
            composed = compose_command(command, _groups_only(command, words), options.config_dir)
        except (HydraException, OmegaConfBaseException, ValueError):
            continue
        return composed.settings(), list(composed.groups)
    return [], []


def _groups_only(command: Command, words: list[str]) -> list[str]:
    groups = compose_command(command).groups
    return [word for word in words if word.partition("=")[0] in groups]


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text, flags=re.DOTALL)
    return found.group(1) if found else ""


def _chain(error: BaseException) -> list[BaseException]:
    """The error and its causes, outermost first."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain
