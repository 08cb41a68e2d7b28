"""First and last step of every export command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from robo_core.cli.following import say_then
from robo_core.console import say
from robo_core.errors import ConfigError
from robo_core.outputs import OutputFolder
from robo_datasets.store.demo_store import DemoStore


class ExportSettings(Protocol):
    """Settings that all export commands have."""

    @property
    def store(self) -> str: ...  # noqa: D102
    @property
    def target(self) -> str: ...  # noqa: D102
    @property
    def out(self) -> str: ...  # noqa: D102


def open_store(config: ExportSettings) -> DemoStore:
    """Open the store to export.

    Raises:
        ConfigError: store or target is not named.
        StoreError: there is no store.
    """
    if not config.store or not config.target:
        raise ConfigError("give store=PATH and target=PATH")
    return DemoStore.open(config.store)


def finish(config: ExportSettings, written: Mapping[str, int], following: str) -> None:
    """Say what was written and what to type next, and write metrics.json where ``out`` is given."""
    counts = ", ".join(f"{count} {name}".replace("_", " ") for name, count in written.items())
    say(f"{config.target}: {counts}")
    if config.out:
        output = OutputFolder(config.out, config)
        output.write_metrics(dict(written))
        output.announce()
    say_then(following)
