"""A command's settings without running it: for its help, for suggestions, and for tests of command lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from typing import get_type_hints

from hydra import compose, initialize
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from robo_core.cli.commands import Command
from robo_core.cli.experiments import recipes_of
from robo_core.cli.overrides import as_overrides
from robo_core.cli.sources import SCHEMA, sources_of


@dataclass(frozen=True)
class Setting:
    """One setting as composed."""

    key: str
    """Nested ones as ``outer.inner``."""
    kind: object
    """Its type."""
    owner: type
    """The dataclass that it is a field of."""
    value: object
    """As composed; ``???`` where it is mandatory."""


@dataclass(frozen=True)
class Composed:
    """A command's config, and the groups of which it is made."""

    config: DictConfig
    groups: dict[str, list[str]]
    """Choices of each config group."""

    def settings(self) -> list[Setting]:
        """Every setting, in the order of the dataclasses."""
        return _settings(self.config)


def compose_command(command: Command, words: Sequence[str] = (), config_dir: str | None = None) -> Composed:
    """Compose a command's config with the overrides ``words``.

    Raises:
        HydraException: they do not compose.
        OmegaConfBaseException: a value is not of its setting's type.
    """
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with sources_of(command, config_dir), initialize(config_path=None, version_base="1.3"):
            config = compose(
                command.config_name, as_overrides(command, words, multirun=False), return_hydra_config=True
            )
            chosen = [group.partition("@")[0] for group in config.hydra.runtime.choices]
            loader = GlobalHydra.instance().config_loader()
            groups = {group: loader.get_group_options(group) for group in chosen if not group.startswith("hydra/")}
    finally:
        GlobalHydra.instance().hydra = outer
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    choices = {group: [one for one in found if not one.endswith(SCHEMA)] for group, found in groups.items()}
    choices["experiment"] = recipes_of(choices.get("experiment", ()), command, config_dir)
    return Composed(config, choices)


def _settings(node: DictConfig, prefix: str = "") -> list[Setting]:
    owner = OmegaConf.get_type(node)
    found: list[Setting] = []
    if not is_dataclass(owner) or node._is_none() or node._is_missing():
        return found
    hints, values = get_type_hints(owner), OmegaConf.to_container(node)
    assert isinstance(values, dict)
    for name in map(str, node):  # one deleted with ~ is not there
        child = node._get_node(name)
        nested = _settings(child, f"{prefix}{name}.") if isinstance(child, DictConfig) else []
        kind = OmegaConf.get_type(node, name) if nested else hints.get(name, str)
        found += [Setting(f"{prefix}{name}", kind, owner, values[name]), *nested]
    return found
