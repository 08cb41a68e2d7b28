"""Evaluate several reward models on the same episodes, best first, and say which differences are more than chance.

Prints the table and writes metrics.json and report.html. The episodes are those that none of the models was trained or
calibrated on: held out by all, where there are such.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

import robo_datasets
from robo_core.cli.following import beside, next_command, say_then
from robo_core.console import print_table, say
from robo_core.errors import ConfigError
from robo_core.outputs import OutputFolder
from robo_rm import evaluation, reward_models

GROUP = "reward model"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm leaderboard``."""

    models: list[str] = field(default_factory=list)
    """Reward model folders, such as [rm_a,rm_b]; their last names stand in the table."""
    store: str = MISSING
    """Demo store with stage labels."""
    out: str = MISSING
    """Folder for report.html and metrics.json."""
    probes: int = 36
    """From how many of the episodes that did not fail probe clips are made."""
    probe_store: str | None = None
    """Store of episodes that were recorded to probe with, such as an empty scene."""
    resamples: int = 1000
    """Bootstrap draws of the intervals."""
    seed: int = 0
    """Seed of the bootstrap."""
    device: str = "auto"
    """auto, cpu or cuda."""


def run(config: Config) -> None:
    """Evaluate the models and write the page."""
    if config.resamples < 10 or config.probes < 0:
        raise ConfigError(f"resamples={config.resamples} must be at least 10 and probes={config.probes} at least 0")
    names = distinct_names(config.models)
    store = robo_datasets.DemoStore.open(config.store)
    probe_store = None if config.probe_store is None else robo_datasets.DemoStore.open(config.probe_store)
    models = {
        name: reward_models.load_reward_model(folder, config.device)
        for name, folder in zip(names, config.models, strict=True)
    }
    board = evaluation.compare(
        models,
        store,
        probes=config.probes,
        probe_store=probe_store,
        resamples=config.resamples,
        seed=config.seed,
    )
    print_table(f"Reward models on {board.scope}", ["metric", *board.names, "over"], evaluation.board_rows(board))
    for _, text in evaluation.verdicts(board):
        say(text)
    out = OutputFolder(config.out, config)
    out.write_metrics(evaluation.flat_board(board))
    cameras = models[board.best].cameras
    best = config.models[names.index(board.best)]
    following = next_command("eval-reward", model=best, store=config.store, out=beside(best, "report"))
    evaluation.write_board(board, store, cameras[0] if cameras else None, out.path("report.html"), following)
    out.announce()
    say_then(following)


def distinct_names(folders: list[str]) -> list[str]:
    """The folders' last names, with as much of the path before them as tells them apart.

    Raises:
        ConfigError: fewer than two folders, or one given twice.
    """
    if len(folders) < 2 or len({Path(folder).resolve() for folder in folders}) < len(folders):
        raise ConfigError(f"models={folders}: give two different model folders at least, models=[rm_a,rm_b]")
    parts = [Path(folder).resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f"models={folders}: give two different model folders at least, models=[rm_a,rm_b]")
