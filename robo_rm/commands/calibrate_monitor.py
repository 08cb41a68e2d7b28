"""Calibrate the progress monitor: is the run done, stalled, failing, or unknown, with a bound on false alarms.

Uses successful episodes that the model has not seen. A new successful run raises an alarm with a probability of at most
the rate you choose (conformal prediction); a rate of 5 % needs 19 such episodes, 1 % needs 99. The promise, and what
was measured on the episodes left over, are written into the model folder (monitor.json, card.md). serve-policy and
run-policy read them there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

import robo_datasets
from robo_core.cli.following import say_next
from robo_core.console import say
from robo_rm import monitor, reward_models

GROUP = "reward model"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm calibrate-monitor``."""

    model: str = MISSING
    """Reward model folder, as train-reward wrote it."""
    store: str = MISSING
    """Demo store with the outcome of each episode; episodes that trained the model are left out."""
    training_store: str | None = None
    """Demo store that the model was trained on, to compare images with; null: what `store` holds of it."""
    rates: list[float] = field(default_factory=lambda: [0.01, 0.05])
    """Rates of false alarms to offer, each between 0 and 1."""
    fraction: float = 0.5
    """Fraction of the unseen episodes that calibrates; the others measure what the monitor is worth."""
    images: bool = True
    """Compare images with those of training: detects a moved camera, other light, another scene."""
    seed: int = 0
    """Seed of the choice."""
    remove: bool = False
    """Take the monitor's calibration away instead."""
    device: str = "auto"
    """auto, cpu or cuda."""


def run(config: Config) -> None:
    """Fit the monitor, print what it promises and what was measured, and write both into the model folder."""
    folder = Path(config.model)
    if config.remove:
        reward_models.load_reward_model(folder, config.device)
        monitor.remove_monitor(folder)
        monitor.write_card_section(folder, None)
        say(f"{folder} has no calibrated monitor any more")
        say_next("calibrate-monitor", model=config.model, store=config.store)
        return
    store = robo_datasets.DemoStore.open(config.store)
    training = robo_datasets.DemoStore.open(config.training_store) if config.training_store else store
    model = reward_models.load_reward_model(folder, config.device)
    found = monitor.fit_monitor(model, store, config.rates, config.fraction, config.seed, config.images, training)
    monitor.write_monitor(folder, found)
    monitor.write_card_section(folder, found)
    monitor.print_promise(found)
    say(f"wrote {folder / monitor.MONITOR}")
    say_next("serve-policy", reward_model=config.model, contract="YOUR_ROBOT.yaml")
