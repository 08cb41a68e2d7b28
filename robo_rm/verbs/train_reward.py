"""Train a stage-aware progress reward model on the labelled episodes of a demo store.

Some episodes are held out, by episode, and the model is judged on them at the end. The folder written holds
the model (`load_reward_model(out)`), its card, `metrics.json` and the loss curve.

Interrupt it when you like: the same command goes on where it stood.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from robo_rm.settings import ConvSettings, OptimiserSettings, StageSettings

GROUP = "reward model"

# Fewer steps than this teach little on any data set tried so far; a run cut off by time before them is worth a warning.
FEW_STEPS = 200


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm train-reward``."""

    store: str = MISSING
    """Demo store to learn from; needs stage labels and at least one camera."""
    out: str = MISSING
    """Folder for the model, its metrics and its loss curve."""
    reward: StageSettings = field(default_factory=StageSettings)
    """Which reward model and its shape; reward=stage."""
    encoder: ConvSettings = field(default_factory=ConvSettings)
    """Which image encoder; encoder=conv is trained from scratch."""
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    """Batch size, learning rate and the like."""
    holdout: int = 8
    """Labelled episodes that are not trained on and judge the model at the end."""
    passes: float | None = 7.0
    """How often each training frame is supervised, on average, 300 steps at least; more learns single episodes
    by heart. Where passes or steps end the training, the same seed gives the same model."""
    steps: int | None = None
    """Training steps, instead of passes."""
    minutes: float | None = 8.0
    """Most minutes of reading and training; null for no bound. Where they end it, speed decides what comes
    out."""
    cameras: list[str] | None = None
    """Cameras to look at, such as [front,wrist]; all of the store's if not given."""
    cache_gb: float = 2.0
    """Memory for decoded training images; what does not fit is decoded again each time."""
    threads: int = 2
    """Processor cores to use."""
    seed: int = 0
    """Seed of the split, the weights and every random draw."""
    device: str = "auto"
    """auto, cpu or cuda."""
    overwrite: bool = False
    """Train anew where `out` holds a model of other settings."""


def run(config: Config) -> None:
    """Train, then write the model folder, its metrics and the loss curve."""
    from dataclasses import asdict
    from pathlib import Path

    import torch

    from robo_datasets import DemoStore
    from robo_datasets.console import print_table, say
    from robo_datasets.errors import ConfigError
    from robo_datasets.outputs import OutputFolder
    from robo_rm.report.style import save_picture
    from robo_rm.training.curves import loss_figure
    from robo_rm.training.fit import Budget, Fit, FitSettings

    if not config.out:
        raise ConfigError("out is empty; give the folder to write to, for example out=rm")
    if config.threads < 1:
        raise ConfigError(f"threads={config.threads}: give a number above 0")
    settings = FitSettings(
        reward=config.reward,
        encoder=config.encoder,
        optimiser=config.optimiser,
        budget=Budget(config.steps, config.minutes, config.passes),
        holdout=config.holdout,
        seed=config.seed,
        cameras=config.cameras,
    )
    torch.set_num_threads(min(config.threads, torch.get_num_threads()))
    store = DemoStore.open(config.store)
    fit = Fit(store, settings, Path(config.out), config.device, config.cache_gb, config.overwrite)
    out = OutputFolder(config.out)
    fitted = fit.run()
    if fitted.already:
        say(f"{config.out} already holds this model; nothing was trained")
    else:
        fit.finish(fitted, asdict(config))
        out.write_metrics(fitted.metrics)
        save_picture(loss_figure(fitted.curve), out.path("curve.png"))
    if fitted.metrics["steps"] < min(FEW_STEPS, config.steps or FEW_STEPS):
        say(
            f"warning: minutes={config.minutes:g} were enough for {fitted.metrics['steps']:.0f} steps only, and the "
            "model has learned little; give more minutes, or keep other work off the machine"
        )
    print_table("train-reward", ["figure", "value"], [[name, value] for name, value in fitted.metrics.items()])
    out.announce()
