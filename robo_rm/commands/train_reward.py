"""Train a reward model on the episodes of a demo store: reward=stage, or another kind.

Some episodes are held out, by episode, and the model is evaluated on them at the end. The folder written holds
the model (`load_reward_model(out)`), its card, `metrics.json` and the loss curve.

Interrupt it when you like: run the same command again to resume. The settings of a kind are shown by
`robo-rm train-reward reward=KIND --help`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

import robo_datasets
from robo_core.cli.following import beside, say_next
from robo_core.console import say
from robo_core.errors import ConfigError
from robo_core.metric_table import print_metrics
from robo_core.outputs import REWARD_MODEL, OutputFolder
from robo_rm import report, reward_models, training
from robo_rm.settings import ENCODERS, ConvSettings, OptimiserSettings, StageSettings
from robo_rm.training.meanings import MEANINGS, why_missing

GROUP = "reward model"
OUT_HOLDS = REWARD_MODEL


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm train-reward``."""

    store: str = MISSING
    """Demo store to learn from; needs stage labels and at least one camera."""
    out: str = MISSING
    """Folder for the model, its metrics and its loss curve."""
    reward: Any = field(default_factory=StageSettings)
    """Which reward model type, and its shape."""
    encoder: Any = field(default_factory=ConvSettings)
    """Which image encoder; encoder=conv is trained from scratch."""
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    """Batch size, learning rate and the like."""
    holdout: float = 8
    """Labelled episodes held out of training, on which the model is evaluated at the end: a number, or a fraction such
    as 0.1. The same `seed` and `holdout` hold out the same episodes in train-policy."""
    stage_groups: list[list[int]] | None = None
    """Coarser stages to train on, as groups of the store's stages: [[0,1],[2,3]]; [[]] makes the whole task one stage,
    labelled or not."""
    validation: int = 0
    """Episodes cut from the training split, failures among them, that decide when to stop: by auroc and hallucination,
    never by the error on demonstrations. 0: train to the end of the budget."""
    patience: int = 3
    """With validation: checks (one per tenth of the budget) without a better metric before training ends."""
    passes: float | None = 7.0
    """How often each training frame is supervised, on average, with at least 300 steps; more passes overfit to single
    episodes. The same seed gives the same model, on a busy machine and on an idle one."""
    steps: int | None = None
    """Training steps, instead of passes."""
    minutes: float | None = None
    """Time limit. If it ends the run, the screen, metrics.json and the card report it; null for none. To resume, run
    the same command with a higher limit."""
    repeats: str = "error"
    """What to do if a stage recurs in most demonstrations of a task: error, or fall_back, in which progress falls back
    with it, as after a drop."""
    cameras: list[str] | None = None
    """Cameras to use, such as [front,wrist]; all of the store's by default."""
    cache_gb: float = 2.0
    """Memory for decoded training images; what does not fit is decoded again each time."""
    threads: int = 2
    """Processor cores to use."""
    init: str | None = None
    """Folder of a model of the same type to start from, for types that support it."""
    seed: int = 0
    """Seed of the split, the weights and every random draw."""
    device: str = "auto"
    """auto, cpu or cuda."""
    overwrite: bool = False
    """Train again if `out` holds a model with other settings."""


def config_groups() -> dict[str, Mapping[str, type]]:
    """Each reward model and each image encoder has settings of its own."""
    return {"reward": reward_models.RewardSettings(), "encoder": ENCODERS}


def run(config: Config) -> None:
    """Train, then write the model folder, its metrics and the loss curve."""
    import torch

    if not config.out:
        raise ConfigError("out is empty; give the folder to write to, for example out=rm")
    if config.threads < 1:
        raise ConfigError(f"threads={config.threads}: give a number above 0")
    kind = reward_models.kind_of_settings(config.reward)
    budget = training.Budget(config.steps, config.minutes, config.passes)
    torch.set_num_threads(min(config.threads, torch.get_num_threads()))
    request = reward_models.FitRequest(
        store=robo_datasets.DemoStore.open(config.store),
        reward=config.reward,
        folder=Path(config.out),
        encoder=config.encoder,
        optimiser=config.optimiser,
        budget=budget,
        holdout=config.holdout,
        stage_groups=config.stage_groups,
        repeats=config.repeats,
        validation=config.validation,
        patience=config.patience,
        seed=config.seed,
        cameras=config.cameras,
        device=config.device,
        cache_gb=config.cache_gb,
        overwrite=config.overwrite,
        init=None if config.init is None else Path(config.init),
        config=asdict(config),
    )
    fitted = kind.fit(request)
    if training.process_index():
        return
    out = OutputFolder(config.out, holds=OUT_HOLDS)
    if fitted.already:
        say(f"{config.out} already holds this model; nothing was trained")
    else:
        out.write_metrics(fitted.metrics)
    if fitted.curve:
        report.save_image(training.loss_figure(fitted.curve, fitted.losses, fitted.held_out), out.path("curve.png"))
    held_out = fitted.metrics.get("holdout_episodes")
    measured = f", measured after training on all {held_out} held-out episodes" if held_out else ""
    print_metrics(f"Trained model{measured}", fitted.metrics, MEANINGS, why_missing(fitted.metrics))
    out.announce()
    say_next(
        "eval-reward",
        model=config.out,
        store=config.store,
        episodes="" if held_out else "all",
        out=beside(config.out, "report"),
    )
