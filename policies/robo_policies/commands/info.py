"""Show what this machine has for the job, or what a demo store holds (store=).

Without settings: Python, device, rendering and the optional parts, each with the fix for what is missing.
With ``store=DIR``: episodes, hours, cameras, sizes, tasks, stages and successes of a demo store.
"""

from __future__ import annotations

from dataclasses import dataclass

import robo_datasets
from robo_core.cli.following import say_next
from robo_core.console import print_table
from robo_core.outputs import OutputFolder
from robo_datasets import store
from robo_datasets.commands.following import say_training
from robo_policies import system

GROUP = "whole line"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm info``."""

    store: str | None = None
    """Demo store to describe; without it the machine is described."""
    out: str | None = None
    """Folder to write metrics.json to; nothing is written without it."""


def run(config: Config) -> None:
    """Print the table."""
    if config.store is not None:
        rows = store.summarise(robo_datasets.DemoStore.open(config.store))
        print_table(config.store, ["what", "found"], rows)
        metrics = {name: "; ".join(value for other, value in rows if other == name) for name, _ in rows}
    else:
        findings = system.examine_machine()
        print_table("robo-rm info", ["part", "found", "fix"], [(f.part, f.found, f.fix) for f in findings])
        metrics = {finding.part: finding.found for finding in findings}
    if config.out is not None:
        out = OutputFolder(config.out, config)
        out.write_metrics(metrics)
        out.announce()
    if config.store is not None:
        say_training(config.store)
    else:
        say_next("demo", out="demo")
