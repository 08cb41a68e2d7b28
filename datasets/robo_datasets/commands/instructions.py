"""Say which instructions mean the same task, so that no phrasing counts as a wrong one.

Without `groups` it shows the store's instructions and its groups. `groups=FILE` replaces the groups by those of a YAML
file, a list of lists:

    - [pick up the cube, lift the cube, take the cube]
    - [open the drawer, pull the drawer open]

A group may list phrasings that no episode has. train-reward reads the groups, and the trained model keeps them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from omegaconf import MISSING

import robo_datasets
from robo_core.cli.following import say_next
from robo_core.console import print_table, say
from robo_core.errors import ConfigError
from robo_datasets import store as stores
from robo_datasets.commands.following import say_training

GROUP = "datasets"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm instructions``."""

    store: str = MISSING
    """Demo store whose instructions to show or to group."""
    groups: str = ""
    """YAML file with a list of lists of instructions that mean the same; it replaces the groups of the store."""
    remove: bool = False
    """Remove the groups of the store."""


def run(config: Config) -> None:
    """Replace the groups where asked to, and show instructions and groups."""
    if config.groups and config.remove:
        raise ConfigError("give groups=FILE or remove=true, not both")
    store = robo_datasets.DemoStore.open(config.store)
    if config.groups:
        stores.set_instruction_groups(store, _read(config.groups))
    elif config.remove:
        stores.set_instruction_groups(store, [])
    known = stores.Phrasings(stores.instruction_groups(store))
    numbers = {stores.words_of(text): number for number, group in enumerate(known.groups, start=1) for text in group}
    count = Counter(episode.task or "" for episode in store)
    said = {stores.words_of(text) for text in count}
    spoken = sorted(count) + [text for group in known.groups for text in group if stores.words_of(text) not in said]
    rows = [[text or "(no instruction)", count[text], numbers.get(stores.words_of(text), "-")] for text in spoken]
    print_table("Instructions", ["instruction", "episodes", "group"], rows)
    if not known.groups:
        say("no groups: every other phrasing counts as another task")
    if known.groups or len(spoken) < 2:
        say_training(config.store)
    else:
        say_next("instructions", store=config.store, groups="GROUPS.yaml")


def _read(path: str) -> object:
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            found = yaml.safe_load(file)
    except OSError as error:
        raise ConfigError(f"groups={path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"groups={path} is not YAML: {str(error).splitlines()[0]}") from error
    return found if found is not None else []
