"""Finding the commands: modules named by the entry-point group ``robo_rm.commands``.

The group keeps layers apart (nothing here imports upward) and lets a third party add a command. Its module has a frozen
dataclass ``Config``, a function ``run(config)``, and where needed ``config_groups()`` (see `Command.groups`),
``CONFIG_FOLDER`` (its YAML), ``GROUP`` (its heading in the help), ``OUT_HOLDS`` and ``OUT_IS_A_FILE``.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib import metadata
from pathlib import Path
from types import ModuleType

from robo_core.cli.configs import configs_folder
from robo_core.errors import ConfigError

ENTRY_POINT_GROUP = "robo_rm.commands"

# The order in which a user needs them; commands and headings that are not named here follow, by name.
HEADINGS = ("whole line", "datasets", "reward model", "policies", "robot")
ORDER = (
    "demo info "
    "import.lerobot import.keyframes import.rosbag import.robomimic import.umi import.diffusion-policy "
    "record record-probes doctor instructions cache export.lerobot export.diffusion-policy "
    "train-reward eval-reward leaderboard calibrate score calibrate-monitor "
    "train-policy eval-policy train-rl "
    "make-contract deploy-check make-certificates serve-policy run-policy"
).split()


@dataclasses.dataclass(frozen=True)
class Command:
    """One command; its module is imported only when something of it is asked for."""

    name: str
    """Entry-point name; a dot stands for a space: ``import.lerobot``."""
    entry_point: metadata.EntryPoint

    def __getstate__(self) -> dict[str, object]:
        """A launcher sends commands to other processes; a module cannot be pickled."""
        return {"name": self.name, "entry_point": self.entry_point}

    def __deepcopy__(self, _memo: object) -> Command:
        """Hydra copies what it holds; a command does not change."""
        return self

    @property
    def words(self) -> str:
        """The command as the user types it."""
        return self.name.replace(".", " ")

    @property
    def config_name(self) -> str:
        """Name of the primary config, without ``.yaml``."""
        return self.name.replace(".", "_").replace("-", "_")

    @cached_property
    def module(self) -> ModuleType:
        """The command's module."""
        return self.entry_point.load()

    @property
    def schema(self) -> type:
        """The dataclass of its settings."""
        return self.module.Config

    @cached_property
    def groups(self) -> Mapping[str, Mapping[str, type]]:
        """Config groups whose choices have settings of their own: the dataclass of each choice."""
        return getattr(self.module, "config_groups", dict)()

    @property
    def folder(self) -> Path:
        """Where its YAML stands."""
        return Path(getattr(self.module, "CONFIG_FOLDER", configs_folder())).resolve()

    @property
    def heading(self) -> str:
        """The heading in the help under which the command stands."""
        return getattr(self.module, "GROUP", "other")

    @property
    def summary(self) -> str:
        """The first line of the module's docstring."""
        return (self.module.__doc__ or "").strip().split("\n")[0]


def find_commands() -> dict[str, Command]:
    """Return every installed command by name, in the order of the help."""
    found = {point.name: Command(point.name, point) for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}
    rank = {name: index for index, name in enumerate(ORDER)}
    return dict(sorted(found.items(), key=lambda item: (rank.get(item[0], len(rank)), item[0])))


def pick_command(words: list[str], commands: Mapping[str, Command]) -> tuple[Command, list[str]]:
    """Split a command line into its command (one word or two) and the rest.

    Raises:
        ConfigError: there is no such command; the message names the nearest.
    """
    for count in (2, 1):
        name = ".".join(words[:count])
        if len(words) >= count and name in commands:
            return commands[name], words[count:]
    members = family(words[0], commands)
    if members:
        formats = [command.words.split(" ", 1)[1] for command in members]
        given = "none was given"
        if len(words) > 1 and "=" not in words[1]:
            given = f"'{words[1]}' is not one of them{nearest(words[1], formats)}"
        raise ConfigError(f"'{words[0]}' needs one of: {', '.join(formats)}; {given}")
    typed, hint = _nearest_command(words, commands)
    raise ConfigError(f"there is no command '{typed}'{hint} (robo-rm --help lists them)")


def family(word: str, commands: Mapping[str, Command]) -> list[Command]:
    """Return the commands of two words whose first one is ``word``, such as ``import``."""
    return [command for name, command in commands.items() if name.startswith(f"{word}.")]


def _nearest_command(words: list[str], commands: Mapping[str, Command]) -> tuple[str, str]:
    """What was typed as the command, and ``; did you mean 'x'?`` or nothing; two words may be one with a dash."""
    plain = {command.words.replace("-", " "): command.words for command in commands.values()}
    typed = [" ".join(words[:count]) for count in (2, 1) if "=" not in words[min(count, len(words)) - 1]]
    for text in typed:
        close = difflib.get_close_matches(re.sub(r"[-_. ]+", " ", text), plain, n=1, cutoff=0.8)
        if close:
            return text, f"; did you mean '{plain[close[0]]}'?"
    return words[0], nearest(words[0], plain.values())


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` where ``valid`` holds something like ``word``, else an empty string."""
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
