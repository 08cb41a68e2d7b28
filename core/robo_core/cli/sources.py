"""What Hydra reads under a command: two config sources, and the settings of Hydra itself.

`ConfigFolder` is a folder of YAML, and `Schemas` the dataclasses of the command, imported when Hydra asks for one: the
primary config ``<command>`` where it has no YAML, ``<command>_schema``, and in each of its groups ``<choice>_schema``
and, where it has no YAML, ``<choice>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.conf import HydraConf, RunDir, SweepDir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import MISSING, DictConfig, OmegaConf

from robo_core.cli.commands import Command, find_commands
from robo_core.cli.configs import configs_folder
from robo_core.cli.experiments import FOLDER, take_command

SCHEMA = "_schema"
# The command that is being composed, and the user's own config folder.
_current: list[tuple[Command, str | None]] = []


@contextmanager
def sources_of(command: Command, config_dir: str | None = None) -> Iterator[None]:
    """Let Hydra read the configs of a command, and those of ``config_dir`` beside them."""
    _current.append((command, config_dir))
    try:
        yield
    finally:
        _current.pop()


class _OfCommand(ConfigSource):
    """A source ``scheme://<command>@<folder>``; another process may know the command by its name alone."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        name, _, self.path = self.path.partition("@")
        self.command = _current[-1][0] if _current else find_commands()[name]


class ConfigFolder(_OfCommand, FileConfigSource):
    """A folder of YAML as one command sees it.

    ``policy`` is a config group of train-policy, and eval-policy's setting for a folder. Hydra takes every name that is
    a folder of configs for a group, so the folders of settings that hold a plain value are out of its sight.
    """

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        hints = get_type_hints(self.command.schema)
        self.plain = {name for name, kind in hints.items() if not is_dataclass(kind)} - set(self.command.groups)

    @staticmethod
    def scheme() -> str:
        """Its name in Hydra's search path."""
        return "robo-rm"

    def is_group(self, config_path: str) -> bool:
        """Whether it is a folder of choices."""
        return config_path not in self.plain and super().is_group(config_path)

    def load_config(self, config_path: str) -> ConfigResult:
        """The content of a file; of a recipe, without the key that says which command it is for."""
        loaded = super().load_config(config_path)
        if config_path.startswith(FOLDER) and isinstance(loaded.config, DictConfig):
            name = config_path.removeprefix(FOLDER).removesuffix(".yaml")
            take_command(loaded.config, name, f"{self.path}/{FOLDER}{name}.yaml", self.command)
        return loaded


class Schemas(_OfCommand):
    """The dataclasses of a command as configs."""

    @staticmethod
    def scheme() -> str:
        """Its name in Hydra's search path."""
        return "robo-rm-schema"

    def load_config(self, config_path: str) -> ConfigResult:
        """The dataclass, or a primary config that has no YAML."""
        node = self._node(config_path.removesuffix(".yaml"))
        if node is None:
            raise ConfigLoadError(f"Config not found : {config_path}")
        return ConfigResult(self.provider, f"{self.scheme()}://{self.command.name}", node, {"package": None})

    def _node(self, path: str) -> DictConfig | None:
        group, _, choice = path.removesuffix(SCHEMA).rpartition("/")
        if group:
            return _structured(self.command.groups[group][choice]) if self.is_config(path) else None
        if choice != self.command.config_name:
            return None
        if path == choice:
            return OmegaConf.create({"defaults": [path + SCHEMA, "_self_", {"experiment": None}]})
        node = _structured(self.command.schema)
        for name in self.command.groups:
            node[name] = MISSING  # the choice brings it whole
        return node

    def available(self) -> bool:
        """It always is."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether choices of this group have a dataclass."""
        return config_path == "" or config_path in self.command.groups

    def is_config(self, config_path: str) -> bool:
        """Whether there is such a dataclass."""
        path = config_path.removesuffix(".yaml").removesuffix(SCHEMA)
        group, _, choice = path.rpartition("/")
        return choice in self.command.groups.get(group, ()) if group else choice == self.command.config_name

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The choices of a group; of a command, its groups."""
        found = self.command.groups if config_path == "" else self.command.groups.get(config_path, ())
        wanted = ObjectType.GROUP if config_path == "" else ObjectType.CONFIG
        return sorted(found) if results_filter in (None, wanted) else []


class CommandSearchPath(SearchPathPlugin):
    """The search path of a command: its folder, ours, the user's, its dataclasses."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add them; nothing outside of a command."""
        if not _current:
            return
        command, config_dir = _current[-1]
        path = search_path.get_path()
        path[:] = [entry for entry in path if entry.provider != "main"]  # Hydra's guess: the package around the task
        folders = [("main", command.folder)]
        if command.folder != configs_folder():
            folders.append(("robo-rm", configs_folder()))
        if config_dir is not None:
            folders.append(("command-line", Path(config_dir).absolute()))
        for provider, folder in folders:
            search_path.append(provider, f"{ConfigFolder.scheme()}://{command.name}@{folder}")
        search_path.append("robo-rm-schema", f"{Schemas.scheme()}://{command.name}@")


def _structured(schema: type) -> DictConfig:
    node = OmegaConf.structured(schema)
    _open(node)
    return node


def _open(node: DictConfig) -> None:
    """Lift what OmegaConf sets on frozen dataclasses, so that values can be merged; mappings take keys of any name."""
    kind = OmegaConf.get_type(node)
    OmegaConf.set_readonly(node, None)
    if not is_dataclass(kind):
        OmegaConf.set_struct(node, False)
        return
    for field in fields(kind):
        child = node._get_node(field.name)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            _open(child)


def _sweep_folder(otherwise: str, *, _root_: DictConfig) -> str:
    return OmegaConf.select(_root_, "out") or otherwise


def _job_folder(name: str) -> str:
    """A folder's name for the settings that were swept; none where ``out`` itself is one of them."""
    return "" if re.search(r"(^|,)out=", name) else re.sub(r"[^\w=.,+-]", "_", name)


# Hydra leaves the working folder and the logging alone. A job of a multirun has the folder out/<what was swept>.
_HYDRA = HydraConf(
    run=RunDir(dir="."),
    sweep=SweepDir(
        dir="${robo_rm_sweep_folder:multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}}",
        subdir="${robo_rm_job_folder:${hydra.job.override_dirname}}",
    ),
    output_subdir=None,
)
_HYDRA.defaults = [{**entry, **{key: "none" for key in entry if key.endswith("logging")}} for entry in _HYDRA.defaults]
ConfigStore.instance().store(group="hydra", name="config", node=_HYDRA, provider="hydra")
OmegaConf.register_new_resolver("robo_rm_sweep_folder", _sweep_folder, replace=True)
OmegaConf.register_new_resolver("robo_rm_job_folder", _job_folder, replace=True)
for plugin in (ConfigFolder, Schemas, CommandSearchPath):
    Plugins.instance().register(plugin)
