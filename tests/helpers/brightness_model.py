"""A reward model small enough to reason about: a test double that keeps the contract, and parts to break it with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robo_rm.prediction import Estimate, Prediction


class BrightnessModel:
    """Progress is the brightest any frame has been so far: causal, deterministic, and easy to feed."""

    def __init__(
        self,
        stages: Sequence[str] = ("reach", "lift", "place"),
        cameras: Sequence[str] = ("observation.images.front",),
        provenance: Mapping[str, Any] | None = None,
        gain: float = 1.0,
    ) -> None:
        self.stages = list(stages)
        self.cameras = list(cameras)
        self.state_key: str | None = None
        self.provenance: Mapping[str, Any] = dict(provenance or {})
        self.priors = np.full(len(self.stages), 1 / len(self.stages))
        self.frames_encoded = 0
        self.gain = gain

    def encode(self, frame: np.ndarray) -> float:
        self.frames_encoded += 1
        return min(1.0, self.gain * float(frame.mean()) / 255)

    def estimate(self, levels: list[float]) -> tuple[float, np.ndarray, float]:
        progress = max(levels)
        stage = min(int(progress * len(self.stages)), len(self.stages) - 1)
        chances = np.full(len(self.stages), 0.1 / max(len(self.stages) - 1, 1), np.float32)
        chances[stage] = 0.9
        return progress, chances / chances.sum(), 0.05

    def predict(self, episode: Any, task: str | None = None) -> Prediction:
        images = {key: np.asarray(episode[key][:]) for key in self.cameras}
        count = len(next(iter(images.values())))
        levels = [float(np.mean([self.encode(images[key][t]) for key in self.cameras])) for t in range(count)]
        parts = [self.estimate(levels[: t + 1]) for t in range(count)]
        return Prediction(
            np.array([p for p, _, _ in parts], np.float32),
            np.stack([c for _, c, _ in parts]),
            np.array([u for _, _, u in parts], np.float32),
        )

    def predict_batch(self, episodes: Sequence[Any], task: str | None = None) -> list[Prediction]:
        return [self.predict(episode, task) for episode in episodes]

    def stream(self, task: str | None = None) -> BrightnessStream:
        return BrightnessStream(self)

    def save(self, folder: Any) -> None:
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        described = {"stages": self.stages, "cameras": self.cameras, "gain": self.gain, "provenance": self.provenance}
        (root / "config.json").write_text(json.dumps(described))


class BrightnessStream:
    def __init__(self, model: BrightnessModel) -> None:
        self.model = model
        self.levels: list[float] = []

    def step(self, frames: Mapping[str, np.ndarray], state: Any = None) -> Estimate:
        self.levels.append(float(np.mean([self.model.encode(frames[key]) for key in self.model.cameras])))
        progress, chances, uncertainty = self.model.estimate(self.levels)
        return Estimate(progress, chances, uncertainty)

    def reset(self) -> None:
        self.levels = []


def load_brightness_model(folder: Any) -> BrightnessModel:
    return BrightnessModel(**json.loads((Path(folder) / "config.json").read_text()))
