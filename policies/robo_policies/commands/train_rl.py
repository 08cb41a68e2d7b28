"""Learn a policy by reinforcement in simulation, from demonstrations and a policy-invariant shaped reward.

The reward is the task reward, 1 on the environment's success, plus `g^k Phi(h') - Phi(h)`, with Phi the progress that a
reward model predicts from the camera images: progress is rewarded at once, and the optimal policy stays optimal.
`shaping=pbrs_centred` uses Phi - 1 instead of Phi, `shaping=sparse` leaves Phi out; the other choices of `shaping` are
there for comparison. The demonstrations fill half of each batch, and a behaviour prior cloned from them acts from the
start.

`learner=iql` learns from the store alone, without a step in the environment. `learner=sb3_sac` and `learner=sb3_ppo`
are Stable-Baselines3's, as baselines. `robo-rm train-rl learner=NAME --help` shows the settings of each.

Interrupt it at any time, and run the same command again to resume.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from robo_core.cli.following import beside, next_command, say_then
from robo_core.console import print_table, progress_bar, say
from robo_core.errors import ConfigError
from robo_core.metric_table import print_metrics
from robo_core.outputs import RL_POLICY, OutputFolder
from robo_policies.rl import algorithms, runners
from robo_policies.rl import logging as rl_logging
from robo_policies.rl.logging.meanings import MEANINGS, WHY_MISSING
from robo_policies.rl.settings import LEARNERS, LearnerSettings, LearningSettings, RunSettings, SacSettings
from robo_rm import report, shaping, training
from robo_rm.shaping.settings import ShapingSettings

GROUP = "policies"
OUT_HOLDS = RL_POLICY


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm train-rl``."""

    env: str = "tidy_drawer"
    """Environment to learn in."""
    out: str = MISSING
    """Folder for the policy, its metrics, its learning curve and the TensorBoard log."""
    store: str | None = None
    """Demo store of demonstrations in this environment; null to learn without any."""
    demonstrations: int | None = None
    """Maximum number of demonstrations, drawn by `seed`; null for all."""
    reward_model: str | None = None
    """Folder of the reward model whose progress is the potential."""
    potential: str | None = None
    """model, true (the simulator's own progress) or none; null for the reward model where there is one."""
    policy: str | None = None
    """Folder of a policy (train-policy) that is the behaviour prior; null for a small one cloned here."""
    shaping: ShapingSettings = field(default_factory=ShapingSettings)
    """How the learning reward is composed; shaping=pbrs and pbrs_centred preserve the optimal policies."""
    steps: int = 50_000
    """Control steps to learn for; updates for learner=iql, which takes none."""
    minutes: float | None = None
    """Cap on this call, which is reported on the screen, in metrics.json and in the policy's folder where it ends the
    call; null for none. Run the same command again to resume."""
    learning: LearningSettings = field(default_factory=LearningSettings)
    """The loop: macro-actions, batches, evaluations."""
    learner: LearnerSettings = field(default_factory=SacSettings)
    """Which learner, its networks and their training; learner=sac, iql, sb3_sac or sb3_ppo."""
    max_steps: int | None = None
    """Control steps of an episode; null for the environment's own limit."""
    seed: int = 0
    """Seed of weights, exploration, initial states and batches."""
    device: str = "auto"
    """auto, cpu or cuda."""
    overwrite: bool = False
    """Start again where `out` holds a run of other settings."""


def config_groups() -> dict[str, Mapping[str, type]]:
    """Each learner has settings of its own."""
    return {"learner": LEARNERS}


def run(config: Config) -> None:
    """Learn, then write the policy, its metrics and its curve."""
    import torch

    if not config.out:
        raise ConfigError("out is empty; give the folder to write to, for example out=rl")
    if config.steps < 1:
        raise ConfigError(f"steps={config.steps}: give 1 or more")
    torch.set_num_threads(min(2, torch.get_num_threads()))
    device = training.pick_device(config.device)
    chosen = config.potential or ("model" if config.reward_model else "none")
    settings = RunSettings(
        env=config.env,
        store=config.store,
        demonstrations=config.demonstrations,
        reward_model=config.reward_model,
        potential=chosen,
        policy=config.policy,
        shaping=config.shaping,
        learning=config.learning,
        learner=algorithms.decide_compiling(config.learner, config.steps, device),
        seed=config.seed,
        max_steps=config.max_steps,
    )
    if config.overwrite:
        shutil.rmtree(Path(config.out) / "training", ignore_errors=True)
    experiment = runners.Experiment(settings, Path(config.out), device)
    runner = experiment.runner
    terms = [*shaping.describe_terms(config.shaping, config.learning.discount), *experiment.described_potential()]
    print_table("the reward", ["term", "what it is"], terms)
    if runner.load():
        say(f"resuming at {runner.state.steps} of {config.steps} control steps")
    out = OutputFolder(config.out, config, OUT_HOLDS)
    log = rl_logging.RunLogger(out.path("tensorboard"), runner)
    done = min(runner.state.steps, config.steps)
    with closing(runner.envs), progress_bar("train-rl", total=config.steps, unit="steps", done=done) as bar:
        curve = runner.run(config.steps, lambda state, losses: log.on_step(bar, state, losses), config.minutes)
    log.close()
    warnings = runner.monitor.warnings()
    for warning in warnings:
        say(f"warning: {warning}")
    ended_by = "minutes" if runner.cut_off else "steps"
    if runner.cut_off and config.minutes is not None:
        say(f"warning: {training.cut_off_warning(config.minutes, runner.state.steps, config.steps)}")
    numbers = log.metrics(curve)
    metrics = {**numbers, "ended_by": ended_by, "planned_steps": config.steps}
    ended = {"steps": runner.state.steps, "planned_steps": config.steps, "ended_by": ended_by}
    experiment.save_policy({**ended, "seed": config.seed, "warnings": warnings})
    out.write_metrics(metrics)
    report.save_image(log.figure(curve), out.path("curve.png"))
    following = next_command("eval-policy", policy=config.out, env=config.env, out=beside(config.out, "evaluation"))
    page = out.path("report.html")
    rl_logging.write_report(page, runner, config.env, terms, numbers, log.figure(curve), following)
    print_metrics("Learned policy", metrics, MEANINGS, WHY_MISSING)
    out.announce()
    say_then(following)
