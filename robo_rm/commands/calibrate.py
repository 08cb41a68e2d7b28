"""Calibrate a reward model: how sure it is of stages, and what its progress means, in measured fractions.

Uses a fraction of the episodes that it has not seen, keeps the rest for evaluation, and writes calibration.json
into the model folder, which then loads as the calibrated model. `remove=true` takes the calibration away.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

import robo_datasets
from robo_core.cli.following import beside, say_next
from robo_core.console import say
from robo_core.errors import ConfigError
from robo_rm import evaluation, reward_models

GROUP = "reward model"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm calibrate``."""

    model: str = MISSING
    """Reward model folder, as train-reward wrote it."""
    store: str = MISSING
    """Demo store with stage labels that the model was not trained on, or the one that holds its held-out episodes."""
    fraction: float = 0.5
    """Fraction of the unseen episodes to calibrate with; the others stay for evaluation."""
    seed: int = 0
    """Seed of the choice."""
    remove: bool = False
    """Take the calibration away instead."""
    device: str = "auto"
    """auto, cpu or cuda."""


def run(config: Config) -> None:
    """Fit the calibration and write it into the model folder."""
    folder = Path(config.model)
    if config.remove:
        (folder / reward_models.CALIBRATION).unlink(missing_ok=True)
        say(f"{folder} is not calibrated any more")
        say_next("eval-reward", model=config.model, store=config.store, out=beside(config.model, "report"))
        return
    if not 0 < config.fraction <= 1:
        raise ConfigError(f"fraction={config.fraction}: give a fraction above 0 and up to 1")
    store = robo_datasets.DemoStore.open(config.store)
    model = reward_models.load_reward_model(folder, config.device)
    reward_models.check_can_keep(folder)
    done = evaluation.calibrate.calibrate(model, store, config.fraction, config.seed)
    reward_models.write_calibration(folder, done.calibration)
    say(f"calibrated with {len(done.calibration.uuids)} episodes that eval-reward will leave out: {done.summary}")
    say(f"wrote {folder / reward_models.CALIBRATION}")
    say_next("eval-reward", model=config.model, store=config.store, out=beside(config.model, "report"))
