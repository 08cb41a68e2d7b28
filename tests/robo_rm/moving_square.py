"""A tiny task for tests: a square crosses the picture, turns from red to blue half-way, and its place is the state."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from robo_datasets import DemoStore
from robo_rm.reward_models.stage.model import StageDescription
from robo_rm.settings import ConvSettings, StageSettings

CAMERA = "observation.images.front"
STATE = "observation.state"
HEIGHT, WIDTH = 24, 32
STAGES = ["move the red square", "move the blue square"]
REWARD = StageSettings(history=3, gap_seconds=0.4, width=16, layers=1, heads=2, dropout=0.0, state_dropout=0.2)
ENCODER = ConvSettings(image_size=24, channels=[8, 8, 16], stem=2, dropout=0.0)


def picture(share: float, row: int, second: bool) -> np.ndarray:
    """The square at a share of the way, (H, W, 3) uint8."""
    image = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
    left = round(share * (WIDTH - 6))
    image[row : row + 6, left : left + 6] = (30, 60, 220) if second else (220, 40, 30)
    return image


def arrays(length: int = 30, seed: int = 0, until: float = 1.0) -> dict[str, np.ndarray]:
    """Observations of one episode that stops at a share ``until`` of the way."""
    rng = np.random.default_rng(seed)
    row = int(rng.integers(2, HEIGHT - 8))
    switch = rng.uniform(0.45, 0.55)
    shares = np.arange(length) / length * until
    return {
        CAMERA: np.stack([picture(share, row, share >= switch) for share in shares]),
        STATE: np.stack([shares, rng.normal(size=length)], axis=1).astype(np.float32),
        "stage": (shares >= switch).astype(np.int16),
    }


def make_store(path: Path, episodes: int = 8, failures: int = 0, labelled: bool = True, frames: int = 30) -> Any:
    """A store of such episodes; the last ``failures`` of them stop part-way."""
    features = {
        CAMERA: {"shape": (HEIGHT, WIDTH, 3), "dtype": "uint8"},
        STATE: {"shape": (2,), "dtype": "float32"},
    }
    store = DemoStore.create(path, features=features, fps=10, stages=STAGES)
    for number in range(episodes):
        failed = number >= episodes - failures
        data = arrays(frames + number, number, until=0.3 if failed else 1.0)
        with store.writer(task="move the square", success=not failed) as writer:
            for t in range(len(data[STATE])):
                stage = int(data["stage"][t]) if labelled else -1
                writer.add({CAMERA: data[CAMERA][t], STATE: data[STATE][t]}, timestamp=t / 10, stage=stage)
    return store


INPUTS: dict[str, Any] = {
    "stages": STAGES,
    "priors": [0.4, 0.6],
    "cameras": {CAMERA: (HEIGHT, WIDTH)},
    "state_key": STATE,
    "state_size": 2,
    "fps": 10.0,
}
"""What models of the task read and say."""


def description(**changes: Any) -> StageDescription:
    """A tiny model of the task."""
    values: dict[str, Any] = {
        **INPUTS,
        "task": "move the square",
        "reward": REWARD,
        "encoder": ENCODER,
    }
    return StageDescription(**{**values, **changes})


def stored(data: dict[str, np.ndarray], success: bool | None = True, uuid: str = "e") -> Any:
    """Arrays in the form of a stored episode, as far as training reads it."""

    class Stored(SimpleNamespace):
        def __getitem__(self, key: str) -> np.ndarray:
            return data[key]

        def __contains__(self, key: str) -> bool:
            return key in data

        def frames(self, key: str, indices: Any, size: Any = None) -> np.ndarray:
            return data[key][np.asarray(list(indices))]

    return Stored(uuid=uuid, stage=data["stage"], success=success, length=len(data["stage"]), task="move the square")
