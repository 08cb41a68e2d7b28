"""A command as a Hydra application: ``hydra.main`` composes its settings, its errors reach the caller."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from robo_core.cli.commands import Command
from robo_core.cli.mistakes import explain
from robo_core.cli.outcome import outcome
from robo_core.cli.overrides import as_overrides, parse_flags, unswept_keys
from robo_core.cli.sources import sources_of
from robo_core.errors import ConfigError
from robo_core.outputs import check_output

FULL_ERROR = "HYDRA_FULL_ERROR"


class CommandFailed(BaseException):
    """Carries what a command raised past Hydra, which would report an Exception itself."""


class JobFailed(Exception):
    """A job of a multirun failed and has said why; carries its exit code."""


@dataclass
class Task:
    """What ``hydra.main`` runs; a launcher may send it to another process."""

    command: Command
    options: argparse.Namespace

    def __post_init__(self) -> None:
        self.__module__ = f"robo_rm.{self.command.config_name}"  # Hydra takes the last word for hydra.job.name

    def __call__(self, config: DictConfig) -> None:
        """Run the command with the composed settings, a job of a multirun in a folder of its own."""
        job = HydraConfig.get()
        if job.mode == RunMode.MULTIRUN:
            name = f"robo-rm {self.command.words}, job {job.job.num} ({job.job.override_dirname})"
            print(f"{name}:", flush=True)
            if OmegaConf.select(config, "out"):
                folder = job.runtime.output_dir
                if getattr(self.command.module, "OUT_IS_A_FILE", False):
                    folder = os.path.join(folder, Path(config.out).name)
                config.out = folder if Path(config.out).is_absolute() else os.path.relpath(folder)
        try:
            self._run(config)
        except Exception as error:
            if job.mode != RunMode.MULTIRUN or isinstance(error, BrokenPipeError):
                raise CommandFailed(error) from error
            code, line = outcome(error)
            if line is None:
                traceback.print_exception(error)
            else:
                print(f"{name}: {line}", file=sys.stderr, flush=True)
            raise JobFailed(code) from None
        except SystemExit as error:
            if job.mode != RunMode.MULTIRUN:
                raise
            raise JobFailed(outcome(error)[0]) from None

    def _run(self, config: DictConfig) -> None:
        module = self.command.module
        try:
            settings = settings_of(self.command, config)
        except OmegaConfBaseException as error:
            raise ConfigError(explain(error, self.command, self.options)) from error
        out = getattr(settings, "out", None)
        # An empty one is the command's own matter.
        if isinstance(out, str) and out and not getattr(module, "OUT_IS_A_FILE", False):
            check_output(out, getattr(module, "OUT_HOLDS", ""))
        module.run(settings)


def run_app(command: Command, words: Sequence[str]) -> int:
    """Run a command with the rest of its command line, Hydra's flags included, and return its exit code.

    Raises:
        ConfigError: a flag or a setting is wrong; says which, and what was probably meant.
    """
    options = parse_flags(words, command)
    try:
        with _hydra_argv(command, options, words), sources_of(command, options.config_dir):
            hydra.main(version_base="1.3", config_path=None, config_name=command.config_name)(Task(command, options))()
    except CommandFailed as failed:
        raise failed.args[0] from None
    except JobFailed as failed:
        return int(failed.args[0])
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if FULL_ERROR in os.environ or isinstance(error, ConfigError):
            raise
        raise ConfigError(explain(error, command, options)) from error
    return 0


def settings_of(command: Command, config: DictConfig) -> object:
    """The command's ``Config`` from what Hydra composed.

    What ``+key=value`` added to the settings serves interpolations; it is left out.

    Raises:
        ConfigError: the config was not built on the command's own.
        OmegaConfBaseException: a mandatory value is missing, or an interpolation is wrong.
    """
    if OmegaConf.get_type(config) is not command.schema:
        name = command.config_name
        raise ConfigError(f"the config does not build on {name}; begin its defaults list with {name}")
    OmegaConf.resolve(config)
    for key in _remove_added(config):
        print(f"robo-rm {command.words}: no setting is called {key}; interpolations alone see it", file=sys.stderr)
    return OmegaConf.to_object(config)


def _remove_added(node: DictConfig) -> list[str]:
    kind = OmegaConf.get_type(node)
    if not is_dataclass(kind) or node._is_none() or node._is_missing():
        return []
    children = [child for name in node if isinstance(child := node._get_node(name), DictConfig)]
    added = [key for child in children for key in _remove_added(child)]
    for key in set(node) - {field.name for field in fields(kind)}:
        added.append(str(node._get_full_key(key)))
        with open_dict(node):
            del node[key]
    return added


@contextmanager
def _hydra_argv(command: Command, options: argparse.Namespace, words: Sequence[str]) -> Iterator[None]:
    """Give Hydra its command line, flags first, and have it raise its errors instead of printing them.

    A command may run others (demo does), so what Hydra holds for the process is put back.
    """
    flags = [word for word in words if word not in options.overrides]
    if options.config_dir is not None:  # our own sources read it
        if not os.path.isdir(options.config_dir):
            raise ConfigError(f"--config-dir {options.config_dir} is not a folder")
        place = next(index for index, flag in enumerate(flags) if flag.startswith(("--config-d", "-cd")))
        del flags[place : place + (1 if flags[place].endswith(options.config_dir) else 2)]
    settings = as_overrides(command, options.overrides, options.multirun)
    if not (options.cfg or options.info or options.shell_completion):
        # The folder of a job is named by what was swept; one that is given as well comes later and holds.
        keys = ",".join(unswept_keys(settings))
        settings = [f"hydra.job.config.override_dirname.exclude_keys=[{keys}]", *settings]
    argv, wanted, outer = sys.argv, os.environ.get(FULL_ERROR), GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    os.environ[FULL_ERROR] = "1"
    sys.argv = [argv[0], *flags, *settings]
    try:
        yield
    finally:
        sys.argv = argv
        GlobalHydra.instance().hydra = outer
        if wanted is None:
            del os.environ[FULL_ERROR]
