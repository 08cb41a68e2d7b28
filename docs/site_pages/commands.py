"""A page for each command: what it does, every setting, the choices of every config group, and its recipes.

Everything comes from where ``robo-rm COMMAND --help`` takes it: the module's docstring, the sentences under the fields
of its dataclass, and the values that Hydra composes.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import yaml

from robo_core.cli.commands import HEADINGS, Command, find_commands
from robo_core.cli.composed import Composed, Setting, compose_command
from robo_core.cli.configs import configs_folder
from robo_core.cli.help import field_sentences
from site_pages.project import write

OVERVIEW = """# Commands

Every command takes settings as `key=value`. The same text is printed by `robo-rm COMMAND --help`.
[The command line](../../command_line.md) says how to sweep settings and use recipes.
"""


def write_commands(folder: Path) -> None:
    """Write ``index.md`` and one page for each command into ``folder``."""
    commands = find_commands()
    write(folder / "index.md", overview(commands.values()))
    for command in commands.values():
        write(folder / f"{command.config_name}.md", page(command))


def overview(commands: Iterable[Command]) -> str:
    """The list of all commands under the headings of the help."""
    rows: dict[str, list[Command]] = {heading: [] for heading in HEADINGS}
    for command in commands:
        rows.setdefault(command.heading, []).append(command)
    text = [OVERVIEW]
    for heading, found in rows.items():
        text.append(f"## {heading.capitalize()}\n\n| command | what it does |\n|---|---|")
        text += [f"| [`{one.words}`]({one.config_name}.md) | {_cell(one.summary)} |" for one in found]
        text.append("")
    names = "\n".join(command.config_name for found in rows.values() for command in found)
    text.append(f"```{{toctree}}\n:hidden:\n\n{names}\n```")
    return "\n".join(text)


def page(command: Command) -> str:
    """The page of one command."""
    composed = compose_command(command)
    values = _values(composed)
    text = [f"# {command.words}\n", _prose(inspect.cleandoc(command.module.__doc__ or "")), ""]
    text.append(f"```text\nrobo-rm {command.words} key=value ...\n```\n\n## Settings\n")
    groups = [name for name in composed.groups if name != "experiment" and composed.groups[name]]
    groups.sort(key=lambda group: group == "run")  # it has no settings of its own
    for setting in composed.settings():
        if setting.key.partition(".")[0] in groups:
            continue
        if dataclasses.is_dataclass(setting.kind):
            text.append(f"### `{setting.key}`\n\n{_sentence(setting)}\n")
        else:
            text.append(_entry(setting))
    for group in groups:
        text += _group(command, group, composed, values)
    recipes = composed.groups.get("experiment", [])
    if recipes:
        text += ["## Recipes\n", "`experiment=NAME` takes all settings of a recipe; what you add overrides it.\n"]
        text += _choices(command, "experiment", recipes, values)
    return "\n".join(text)


def _group(command: Command, group: str, composed: Composed, values: dict[str, object]) -> list[str]:
    """One config group: its choices and, once for each dataclass, its settings."""
    own = [setting for setting in composed.settings() if setting.key == group]
    default = _default_choices(command)[group]
    text = [f"## `{group}`\n", *(f"{_sentence(setting)}\n" for setting in own)]
    if own:
        text.append(f"Default: `{group}={default}`.\n")
    text += _choices(command, group, composed.groups[group], values)
    schemas: dict[type, list[str]] = {}
    found: dict[type, list[Setting]] = {}
    for choice in sorted(composed.groups[group], key=lambda choice: choice != default) if own else ():
        settings = _composed(command, group, choice).settings()
        inner = [setting for setting in settings if setting.key.startswith(f"{group}.")]
        if inner:
            schemas.setdefault(inner[0].owner, []).append(choice)
            found.setdefault(inner[0].owner, inner)
    for schema, choices in schemas.items():
        names = "Settings" if len(schemas) == 1 else ", ".join(f"`{group}={choice}`" for choice in choices)
        text += [f"### {names}\n", *(_nested(setting) for setting in found[schema])]
    return text


def _choices(command: Command, group: str, choices: list[str], values: dict[str, object]) -> list[str]:
    """A table of choices, each with its comment and with what it sets that differs from the defaults."""
    rows = ["| choice | what it is | differs from the defaults in |", "|---|---|---|"]
    for choice in choices:
        own = _values(_composed(command, group, choice))
        differing = [f"`{key}={_shown(value)}`" for key, value in own.items() if key in values and values[key] != value]
        rows.append(f"| `{choice}` | {_cell(comment(command, group, choice))} | {_cell(', '.join(differing))} |")
    return [*rows, ""]


def comment(command: Command, group: str, choice: str) -> str:
    """What the first comment of a choice's YAML says; the docstring of its dataclass where it has no YAML."""
    for folder in (command.folder, configs_folder()):
        path = folder / group / f"{choice}.yaml"
        if path.is_file():
            lines = [line[1:].strip() for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#"]
            said = next((line for line in lines if not line.startswith(("@package", "robo-rm "))), "")
            return re.sub(r"; the schema is \S+ in \S+\.py", "", said)
    schema = command.groups.get(group, {}).get(choice)
    return (schema.__doc__ or "").split("\n")[0] if schema else ""


def _default_choices(command: Command) -> dict[str, str]:
    """The choice of each group that the defaults list of the command's YAML takes."""
    path = command.folder / f"{command.config_name}.yaml"
    defaults = yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"] if path.is_file() else []
    return {group: choice for one in defaults if isinstance(one, dict) for group, choice in one.items()}


@cache
def _composed(command: Command, group: str, choice: str) -> Composed:
    return compose_command(command, [f"{group}={choice}"])


def _values(composed: Composed) -> dict[str, object]:
    return {one.key: one.value for one in composed.settings() if not dataclasses.is_dataclass(one.kind)}


def _nested(setting: Setting) -> str:
    if dataclasses.is_dataclass(setting.kind):
        return f"#### `{setting.key}`\n\n{_sentence(setting)}\n"
    return _entry(setting)


def _entry(setting: Setting) -> str:
    """One setting as an entry of a definition list."""
    given = "mandatory" if setting.value == "???" else f"default `{_shown(setting.value)}`"
    return f"`{setting.key}`\n: {inspect.formatannotation(setting.kind)}, {given}.\n  {_sentence(setting)}\n"


def _sentence(setting: Setting) -> str:
    return _prose(field_sentences(setting.owner).get(setting.key.rpartition(".")[2], ""))


def _prose(text: str) -> str:
    """A docstring as Markdown: outside of code, characters that Markdown would take for its own are escaped."""
    parts = re.split(r"(``.+?``|`[^`]+`)", text, flags=re.DOTALL)
    return "".join(part if index % 2 else re.sub(r"([<*\[\]])", r"\\\1", part) for index, part in enumerate(parts))


def _shown(value: object) -> str:
    """A value as one writes it on the command line, in YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
