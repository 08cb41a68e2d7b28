"""A reward model small enough to reason about: a test double that keeps the contract, and parts to break it with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robo_rm.reward_models.prediction import Estimate, Prediction


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


FRONT = "observation.images.front"
STAGES = ("reach", "lift", "place")


def make_bright_store(path: Path, kinds: Sequence[str], length: int = 60, stages: Sequence[str] = STAGES) -> Any:
    """A store in which the brightness of a frame is the true progress, so that `BrightnessModel` is nearly right.

    Kinds: ``clean`` runs through; ``pause`` stands still for a third of the time; ``partial`` fails half-way;
    ``dazzle`` fails at once, under a light that makes the model believe in success.
    """
    from robo_datasets import DemoStore

    features = {
        FRONT: {"shape": (16, 16, 3), "dtype": "uint8"},
        "observation.state": {"shape": (2,), "dtype": "float32"},
        "action": {"shape": (2,), "dtype": "float32"},
        "simulator.progress": {"shape": (1,), "dtype": "float32"},
    }
    store = DemoStore.create(path, features=features, fps=10, stages=list(stages), codec="lossless")
    for number, kind in enumerate(kinds):
        progress = true_progress(kind, length + number)
        shown = np.full_like(progress, 0.97) if kind == "dazzle" else progress
        failed = kind in ("partial", "dazzle")
        with store.writer(task="place it", success=not failed, attributes={"quality": kind}) as episode:
            for t, (real, seen) in enumerate(zip(progress, shown, strict=True)):
                episode.add(
                    {
                        FRONT: np.full((16, 16, 3), round(255 * seen), np.uint8),
                        "observation.state": np.array([real, 0], np.float32),
                        "action": np.zeros(2, np.float32),
                        "simulator.progress": np.array([real], np.float32),
                    },
                    timestamp=t / 10,
                    stage=min(int(real * len(stages)), len(stages) - 1),
                )
    return store


def true_progress(kind: str, length: int) -> np.ndarray:
    third = length // 3
    if kind == "clean":
        return np.linspace(0, 1, length)
    if kind == "pause":
        rest = length - third
        moving = np.linspace(0, 1, rest)
        return np.insert(moving, rest // 2, np.full(third, moving[rest // 2]))
    if kind == "partial":
        return np.concatenate([np.linspace(0, 0.5, length - third), np.full(third, 0.5)])
    if kind == "dazzle":
        return np.zeros(length)
    raise ValueError(kind)


def load_it_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands load folders as this model: where they take the function, and where it stands."""
    from robo_rm import reward_models
    from robo_rm.reward_models import saving

    def load(folder: str | os.PathLike[str], device: str = "auto") -> BrightnessModel:
        return load_brightness_model(folder)

    for place in (reward_models, saving):
        monkeypatch.setattr(place, "load_reward_model", load)
