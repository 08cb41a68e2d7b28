"""How long the demo will take on this machine as it is now: from a few training steps, before anything is done.

A step of the reward model's training is timed. The other parts are known in such steps: each was timed between two of
them on two cores. Other work on the machine slows both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robo_policies import demo
from robo_policies.demo.pipeline import Step
from robo_rm.settings import OptimiserSettings, StageSettings
from robo_rm.training.budget import Budget

if TYPE_CHECKING:
    from robo_policies.demo.settings import Config

FRAMES_OF_AN_EPISODE = 375
"""Mean length of the demo's demonstrations."""
SHARE_TRAINED = 0.92
"""Of the demonstrations; the others are held out."""
PASSES = 7.0

# Steps of the reward model's training that each takes as long as, measured in turn with such steps.
COMMAND = 50.0
"""Starting any command."""
RECORD_EPISODE = 1.3
JUDGE = 60.0
"""Probe clips and the page, whatever the number of episodes."""
SCORE_EPISODE = 1.25
POLICY_STEP = 0.3
ROLLOUT = 1.5


def part_units(config: Config) -> dict[str, float]:
    """Length of each part, by its name, in steps of the reward model's training."""
    reward = Budget(config.reward_steps, passes=PASSES)
    frames = round(config.episodes * FRAMES_OF_AN_EPISODE * SHARE_TRAINED)
    work = {
        "record": config.episodes * RECORD_EPISODE,
        "record_held_out": config.held_out * RECORD_EPISODE,
        "train_reward": float(reward.over(frames, _frames_per_step()).total),
        "eval_reward": JUDGE + config.held_out * SCORE_EPISODE,
        "score": config.episodes * SCORE_EPISODE,
        "train_policies": config.policy_steps * POLICY_STEP,
        "evaluate_none": config.rollouts * ROLLOUT,
        "evaluate_rabc": config.rollouts * ROLLOUT,
    }
    return {name: COMMAND + units for name, units in work.items()}


def describe_time(config: Config, parts: list[Step]) -> str:
    """How long the parts that have not finished will take, in words; empty where all have.

    Args:
        config: of the demo.
        parts: that are left.
    """
    if not parts:
        return ""
    units = part_units(config)
    step = demo.step_seconds(config.image_size)
    minutes = sum(units[part.name] for part in parts) * step / 60
    return (
        f"this takes about {max(1, round(minutes))} minutes on this machine as busy as it is now (a training step of "
        f"the reward model: {step:.2f} s)"
    )


def _frames_per_step() -> int:
    return OptimiserSettings().batch * (StageSettings().history + 1)
