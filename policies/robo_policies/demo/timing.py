"""A training step of the demo's reward model, timed on this machine."""

from __future__ import annotations

import statistics
import time
from types import SimpleNamespace

import numpy as np
import torch

from robo_datasets.store.decoded_frames import DecodedFrames
from robo_rm.labels.progress import label_frames
from robo_rm.reward_models.stage.model import StageDescription
from robo_rm.reward_models.stage.trainer import StageObjective
from robo_rm.settings import ConvSettings, OptimiserSettings, StageSettings
from robo_rm.training.budget import Budget
from robo_rm.training.data import TrainingData
from robo_rm.training.engine import Engine, Recipe

STEPS_TIMED = 4


def step_seconds(image_size: int) -> float:
    """Median seconds of a training step of the demo's reward model, measured on made-up images."""
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
