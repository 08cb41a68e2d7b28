"""Learn a policy by reinforcement in a simulated world, from demonstrations and a policy-invariant shaped reward.

The reward is the world's own success (gold) plus `g^k F(h') - F(h)`, with F the progress that a reward model sees in
the camera images: learning is led towards progress, and what is best stays what it is. `shaping=pbrs_centred` takes
F - 1 for F, `shaping=sparse` leaves F out; the other choices of `shaping` are there to be compared with. The
demonstrations fill half of each batch, and a policy cloned from them proposes actions from the start.

`learner=iql` learns from the store alone, without a step in the world. `learner=sb3_sac` and `learner=sb3_ppo` are
Stable-Baselines3's, to compare with. The settings of each are shown by `robo-rm train-rl learner=NAME --help`.

Interrupt it when you like: the same command goes on where it stood.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from robo_core.outputs import RL_POLICY
from robo_policies.rl.settings import LEARNERS, LearnerSettings, LearningSettings, SacSettings
from robo_rm.shaping.settings import ShapingSettings

GROUP = "policies"
OUT_HOLDS = RL_POLICY


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm train-rl``."""

    env: str = "tidy_drawer"
    """World to learn in."""
    out: str = MISSING
    """Folder for the policy, its metrics, its learning curve and the TensorBoard log."""
    store: str | None = None
    """Demo store of demonstrations in this world; null to learn without any."""
    demonstrations: int | None = None
    """Most demonstrations used, drawn by `seed`; null for all."""
    reward_model: str | None = None
    """Folder of the reward model whose progress is the potential."""
    potential: str | None = None
    """model, true (the simulator's own progress) or none; null for the reward model where there is one."""
    policy: str | None = None
    """Folder of a cloned policy (train-policy) that proposes actions; null for a small one cloned here."""
    shaping: ShapingSettings = field(default_factory=ShapingSettings)
    """How gold and potential make the learning reward; shaping=pbrs and pbrs_centred keep the best policy."""
    steps: int = 50_000
    """Control steps to learn for; updates for learner=iql, which takes none."""
    minutes: float | None = None
    """A cap on this call, which is said on the screen, in metrics.json and in the policy's folder where it ends the
    call; null for none. The same command goes on afterwards."""
    learning: LearningSettings = field(default_factory=LearningSettings)
    """The loop: decisions, batches, evaluations."""
    learner: LearnerSettings = field(default_factory=SacSettings)
    """Which learner, its networks and their training; learner=sac, iql, sb3_sac or sb3_ppo."""
    max_steps: int | None = None
    """Control steps of an episode; null for the world's own limit."""
    seed: int = 0
    """Seed of weights, exploration, starts and batches."""
    device: str = "auto"
    """auto, cpu or cuda."""
    overwrite: bool = False
    """Learn anew where `out` holds a run of other settings."""


def group_schema(group: str, choice: str) -> type | None:
    """Each learner has settings of its own."""
    return LEARNERS.get(choice) if group == "learner" else None


def run(config: Config) -> None:
    """Learn, then write the policy, its metrics and its curve."""
    import shutil
    from pathlib import Path

    import torch

    from robo_core.console import print_table, progress_bar, say
    from robo_core.errors import ConfigError
    from robo_core.outputs import OutputFolder
    from robo_policies.cloning.checkpoint import pick_device
    from robo_policies.rl.compiling import decide_compiling
    from robo_policies.rl.log import RunLog
    from robo_policies.rl.report import write_report
    from robo_policies.rl.training import RlTraining, RunSettings
    from robo_rm.report.style import save_image
    from robo_rm.shaping.modes import describe_terms
    from robo_rm.training.budget import cut_off_warning

    if not config.out:
        raise ConfigError("out is empty; give the folder to write to, for example out=rl")
    if config.steps < 1:
        raise ConfigError(f"steps={config.steps}: give 1 or more")
    torch.set_num_threads(min(2, torch.get_num_threads()))
    device = pick_device(config.device)
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
        learner=decide_compiling(config.learner, config.steps, device),
        seed=config.seed,
        max_steps=config.max_steps,
    )
    if config.overwrite:
        shutil.rmtree(Path(config.out) / "training", ignore_errors=True)
    training = RlTraining(settings, Path(config.out), device)
    learning = training.learning
    terms = [*describe_terms(config.shaping, config.learning.discount), *training.described_potential()]
    print_table("the reward", ["term", "what it is"], terms)
    if learning.load():
        say(f"going on at {learning.note.steps} of {config.steps} control steps")
    out = OutputFolder(config.out, config, OUT_HOLDS)
    log = RunLog(out.path("tensorboard"), learning)
    with progress_bar("train-rl", total=config.steps, unit="steps", done=min(learning.note.steps, config.steps)) as bar:
        curve = learning.run(config.steps, lambda note, losses: log.tell(bar, note, losses), config.minutes)
    log.close()
    warnings = learning.monitor.warnings()
    for warning in warnings:
        say(f"warning: {warning}")
    ended_by = "minutes" if learning.cut_off else "steps"
    if learning.cut_off and config.minutes is not None:
        say(f"warning: {cut_off_warning(config.minutes, learning.note.steps, config.steps)}")
    metrics: dict[str, Any] = {**log.metrics(curve), "ended_by": ended_by, "planned_steps": config.steps}
    ended = {"steps": learning.note.steps, "planned_steps": config.steps, "ended_by": ended_by}
    training.save_policy({**ended, "seed": config.seed, "warnings": warnings})
    out.write_metrics(metrics)
    save_image(log.figure(curve), out.path("curve.png"))
    write_report(out.path("report.html"), learning, config.env, terms, metrics, log.figure(curve))
    print_table("train-rl", ["figure", "value"], [[name, value] for name, value in metrics.items()])
    out.announce()
