"""Finding the verbs: modules named by the entry-point group ``robo_rm.commands``.

The group keeps floors apart (nothing here imports upward) and lets a third party add a verb.
"""

from __future__ import annotations

import dataclasses
import difflib
from functools import cached_property
from importlib import metadata
from types import ModuleType

from robo_core.errors import ConfigError

ENTRY_POINT_GROUP = "robo_rm.commands"

# The order in which a user needs them; verbs and headings that are not named here follow, by name.
HEADINGS = ("whole line", "datasets", "reward model", "policies", "robot")
ORDER = (
    "demo info bench "
    "record import.lerobot import.keyframes export.lerobot doctor cache "
    "annotate train-reward eval-reward leaderboard calibrate score inspect "
    "train-policy train-rl eval-policy "
    "serve-policy deploy-check"
).split()


@dataclasses.dataclass(frozen=True)
class Verb:
    """One verb; its module is imported only when something of it is asked for."""

    name: str
    """Entry-point name; a dot stands for a space: ``import.lerobot``."""
    entry_point: metadata.EntryPoint

    @property
    def words(self) -> str:
        """The verb as the user types it."""
        return self.name.replace(".", " ")

    @property
    def config_name(self) -> str:
        """Name of the primary config, without ``.yaml``."""
        return self.name.replace(".", "_").replace("-", "_")

    @cached_property
    def module(self) -> ModuleType:
        """The verb's module."""
        return self.entry_point.load()

    @property
    def heading(self) -> str:
        """The heading in the help under which the verb stands."""
        return getattr(self.module, "GROUP", "other")

    @property
    def summary(self) -> str:
        """The first line of the module's docstring."""
        return (self.module.__doc__ or "").strip().split("\n")[0]


def find_verbs() -> dict[str, Verb]:
    """Return every installed verb by name, in the order of the help."""
    found = {point.name: Verb(point.name, point) for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}
    rank = {name: index for index, name in enumerate(ORDER)}
    return dict(sorted(found.items(), key=lambda item: (rank.get(item[0], len(rank)), item[0])))


def pick_verb(words: list[str], verbs: dict[str, Verb]) -> tuple[Verb, list[str]]:
    """Split a command line into its verb (one word or two) and the rest.

    Raises:
        ConfigError: there is no such verb; the message names the nearest.
    """
    for count in (2, 1):
        name = ".".join(words[:count])
        if len(words) >= count and name in verbs:
            return verbs[name], words[count:]
    family = [name.split(".", 1)[1] for name in verbs if name.startswith(f"{words[0]}.")]
    if family:
        given = f"'{words[1]}' is not one of them" if len(words) > 1 else "none was given"
        raise ConfigError(f"robo-rm {words[0]} needs one of: {', '.join(sorted(family))}; {given}")
    raise ConfigError(f"there is no verb '{words[0]}'{nearest(words[0], verbs)}; robo-rm --help lists them")


def nearest(word: str, valid: object) -> str:
    """Return ``; did you mean 'x'?`` where ``valid`` holds something like ``word``, else an empty string."""
    close = difflib.get_close_matches(word, [str(item) for item in valid], n=1, cutoff=0.5)  # type: ignore[attr-defined]
    return f"; did you mean '{close[0]}'?" if close else ""
