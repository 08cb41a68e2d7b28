"""How long the demo will take on this machine as it is now: from a few training steps, before anything is done.

A step of the reward model's training is timed. The other parts are known in such steps: each was timed between two of
them on two cores. Other work on the machine slows both.
"""

from __future__ import annotations

import statistics
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

from robo_policies.demo.pipeline import Step
from robo_rm.training.budget import Budget

if TYPE_CHECKING:
    from robo_policies.demo.settings import Config

FRAMES_OF_AN_EPISODE = 375
"""Mean length of the demo's demonstrations."""
SHARE_TRAINED = 0.92
"""Of the demonstrations; the others are held out."""
PASSES = 7.0
STEPS_TIMED = 4

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
    step = step_seconds(config.image_size)
    minutes = sum(units[part.name] for part in parts) * step / 60
    return (
        f"this takes about {max(1, round(minutes))} minutes on this machine as busy as it is now (a training step of "
        f"the reward model: {step:.2f} s)"
    )


def step_seconds(image_size: int) -> float:
    """Median seconds of a training step of the demo's reward model, measured on made-up images."""
    import numpy as np
    import torch

    from robo_datasets.store.decoded_frames import DecodedFrames
    from robo_rm.labels.progress import label_frames
    from robo_rm.reward_models.stage.model import StageDescription
    from robo_rm.reward_models.stage.trainer import StageObjective
    from robo_rm.settings import ConvSettings, OptimiserSettings, StageSettings
    from robo_rm.training.data import TrainingData
    from robo_rm.training.engine import Engine, Recipe

    side = min(image_size, ConvSettings().image_size)
    cameras = dict.fromkeys(("observation.images.front", "observation.images.wrist"), (side, side))
    random, frames, stages = np.random.default_rng(0), 120, 5
    images = {key: random.integers(0, 256, (frames, *size, 3), dtype=np.uint8) for key, size in cameras.items()}
    ends = np.linspace(0, frames, stages + 1).astype(int)
    priors = [1 / stages] * stages
    labels = label_frames(list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)), priors, frames)
    states = [random.normal(size=(frames, 7)).astype(np.float32)]
    episode = SimpleNamespace(length=frames, frames=lambda key, indices, size: images[key][indices])
    reader = DecodedFrames([episode], cameras, float("inf"))
    reader.load()
    data = TrainingData([labels], states, ["demo"], cameras, reader)
    description = StageDescription(
        stages=[str(number) for number in range(stages)],
        priors=priors,
        cameras=cameras,
        state_key="observation.state",
        state_size=7,
        fps=10.0,
        task="demo",
        reward=StageSettings(),
        encoder=ConvSettings(),
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    times = []
    with torch.random.fork_rng(devices=[]):
        objective = StageObjective(description, data, OptimiserSettings(), 0, device)
        engine = Engine(objective, Recipe(Budget(STEPS_TIMED + 1), OptimiserSettings().average), device)
        for number in range(STEPS_TIMED + 1):
            started = time.monotonic()
            engine.step(objective.batch(number))
            times.append(time.monotonic() - started)
    # The first one warms up.
    return statistics.median(times[1:])


def _frames_per_step() -> int:
    from robo_rm.settings import OptimiserSettings, StageSettings

    return OptimiserSettings().batch * (StageSettings().history + 1)
