"""Train a policy from demonstrations by behaviour cloning, with or without the weights of a reward model.

`weights=none` clones every frame alike. `weights=rabc` reads the weights that `robo-rm score` put into the store, so
that frames that made progress count and frames that wasted or undid it do not. `weights=success_only` keeps successful
episodes only. `policy=act` and `policy=diffusion` look at the state, the environment state and cameras; the settings
of each are shown by `robo-rm train-policy policy=NAME --help`. The folder written is a LeRobot checkpoint:
`ACTPolicy.from_pretrained(out)` or `DiffusionPolicy.from_pretrained(out)` loads it.

Interrupt it when you like: run the same command again to resume.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

import robo_datasets
from robo_core.cli.following import beside, say_next, say_then
from robo_core.console import say
from robo_core.errors import ConfigError
from robo_core.metric_table import print_metrics
from robo_core.outputs import POLICY, OutputFolder
from robo_policies import cloning
from robo_policies.cloning.meanings import MEANINGS
from robo_policies.cloning.settings import POLICIES, ActSettings, CloningSettings, PolicySettings, WeightSettings
from robo_rm import report, training

GROUP = "policies"
OUT_HOLDS = POLICY


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm train-policy``."""

    store: str = MISSING
    """Demo store to learn from; needs action, and observation.environment_state or a camera. observation.state is read
    where it is there; policy=diffusion needs it."""
    out: str = MISSING
    """Folder for the policy, its metrics and its loss curve."""
    policy: PolicySettings = field(default_factory=ActSettings)
    """Which policy, its cameras and its shape; policy=act or policy=diffusion."""
    weights: WeightSettings = field(default_factory=WeightSettings)
    """The weight of each frame: weights=none, weights=rabc or weights=success_only."""
    steps: int = 2000
    """Training steps."""
    minutes: float | None = None
    """Time limit. If it ends the run, the screen, metrics.json and the card report it; null for none. To resume, run
    the same command with a higher limit."""
    training: CloningSettings = field(default_factory=CloningSettings)
    """Batch size, learning rate and the like."""
    holdout: float = 0
    """Episodes to hold out, a number or a fraction such as 0.1; their action error goes into metrics.json. The same
    `seed` and `holdout` hold out the same episodes in train-reward."""
    contract: str = ""
    """Robot contract of the policy; demonstrations of another contract are refused."""
    seed: int = 0
    """Seed of initial weights, order of samples and noise."""
    device: str = "auto"
    """auto, cpu or cuda."""
    overwrite: bool = False
    """Start again if `out` holds a policy that was trained with other settings."""


def config_groups() -> dict[str, Mapping[str, type]]:
    """Each policy has settings of its own."""
    return {"policy": POLICIES}


def run(config: Config) -> None:
    """Train, then write metrics and the loss curve beside the policy."""
    if not config.out:
        raise ConfigError("out is empty; give the folder to write to, for example out=policy")
    store = robo_datasets.DemoStore.open(config.store)
    if config.contract:
        cloning.check_store_contract(store, config.contract)
    trained = cloning.train_policy(
        store,
        Path(config.out),
        training.Budget(config.steps, config.minutes),
        config.policy,
        config.weights,
        config.training,
        config.seed,
        config.device,
        config.overwrite,
        config.holdout,
    )
    if training.process_index():
        return
    if trained.resumed:
        say(f"{config.out} already holds this policy; nothing was trained")
    out = OutputFolder(config.out, config, OUT_HOLDS)
    out.write_metrics(trained.metrics)
    steps = range(1, len(trained.losses) + 1)
    lines = {"weighted loss": trained.losses}
    figure = training.curve_figure(steps, lines, "Training loss", trained.held_out, "held-out loss")
    report.save_image(figure, out.path("curve.png"))
    print_metrics("Trained policy, measured after training", trained.metrics, MEANINGS)
    out.announce()
    env = next((one.attributes.get("env") for one in store), None)
    if env:
        say_next("eval-policy", policy=config.out, env=str(env), out=beside(config.out, "evaluation"))
    elif config.contract:
        say_next("deploy-check", policy=config.out, store=config.store, contract=config.contract)
    else:
        say_then(
            "an arm takes this policy with a robot contract only; robo-rm make-contract --help says how to write "
            f"one, robo-rm deploy-check policy={config.out} store={config.store} then takes it as contract="
        )
