"""The contract checker passes a model that keeps the contract and names each way of breaking it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brightness_model import BrightnessModel, BrightnessStream, load_brightness_model

from robo_core.errors import ModelError
from robo_rm.reward_models.checker import check_reward_model
from robo_rm.reward_models.prediction import Estimate, Prediction

FRONT = "observation.images.front"


@pytest.fixture
def episode() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    frames = np.linspace(10, 200, 24)[:, None, None, None] + rng.integers(0, 20, (24, 8, 8, 3))
    return {FRONT: frames.astype(np.uint8)}


def _broken(model: BrightnessModel, episode: dict[str, np.ndarray]) -> dict[str, str]:
    checks = check_reward_model(model, episode, load=load_brightness_model, raise_on_failure=False)
    return {check.name: check.detail for check in checks if not check.passed}


def test_a_model_that_keeps_the_contract_passes_every_clause(episode: dict[str, np.ndarray]) -> None:
    checks = check_reward_model(BrightnessModel(), episode, load=load_brightness_model)
    assert [check.name for check in checks if not check.passed] == []
    assert len(checks) == 8
    assert all(check.detail for check in checks)


class Foresees(BrightnessModel):
    """Knows the end of the episode: normalises by the brightest frame of all."""

    def predict(self, episode: Any, task: str | None = None) -> Prediction:
        seen = super().predict(episode, task)
        return Prediction(seen.progress / seen.progress.max(), seen.stage_probabilities, seen.uncertainty)


class ForeseesALittle(BrightnessModel):
    """Leans on the next frame by a ten-millionth: only a comparison of bits can tell."""

    def predict(self, episode: Any, task: str | None = None) -> Prediction:
        seen = super().predict(episode, task)
        leaning = seen.progress * np.float32(0.5)
        leaning[:-1] += seen.progress[1:] * np.float32(3e-7)
        return Prediction(leaning, seen.stage_probabilities, seen.uncertainty)


class RollsDice(BrightnessModel):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rng = np.random.default_rng(0)

    def estimate(self, levels: list[float]) -> tuple[float, np.ndarray, float]:
        progress, chances, uncertainty = super().estimate(levels)
        return min(1.0, progress + 1e-3 * self.rng.random()), chances, uncertainty


class PassesOne(BrightnessModel):
    def estimate(self, levels: list[float]) -> tuple[float, np.ndarray, float]:
        progress, chances, uncertainty = super().estimate(levels)
        return progress + 0.5, chances, uncertainty


class SaysNothing(BrightnessModel):
    def estimate(self, levels: list[float]) -> tuple[float, np.ndarray, float]:
        progress, chances, uncertainty = super().estimate(levels)
        return progress if len(levels) < 5 else float("nan"), chances, uncertainty


class ForgetsAStage(BrightnessModel):
    def estimate(self, levels: list[float]) -> tuple[float, np.ndarray, float]:
        progress, chances, uncertainty = super().estimate(levels)
        return progress, chances[:-1] / chances[:-1].sum(), uncertainty


class Unsure(BrightnessModel):
    def estimate(self, levels: list[float]) -> tuple[float, np.ndarray, float]:
        progress, chances, uncertainty = super().estimate(levels)
        return progress, chances * 0.5, uncertainty


class PaintsOverItsInput(BrightnessModel):
    def predict(self, episode: Any, task: str | None = None) -> Prediction:
        prediction = super().predict(episode, task)
        if isinstance(episode, dict):
            episode[FRONT][-1] = 0
        return prediction


class _Drifts(BrightnessStream):
    def step(self, frames: Any, state: Any = None) -> Estimate:
        estimate = super().step(frames, state)
        return Estimate(estimate.progress + 1e-4, estimate.stage_probabilities, estimate.uncertainty)


class StreamDrifts(BrightnessModel):
    def stream(self, task: str | None = None) -> BrightnessStream:
        return _Drifts(self)


class _NeverForgets(BrightnessStream):
    def reset(self) -> None:
        pass


class StreamNeverForgets(BrightnessModel):
    def stream(self, task: str | None = None) -> BrightnessStream:
        return _NeverForgets(self)


class _EncodesAgain(BrightnessStream):
    def step(self, frames: Any, state: Any = None) -> Estimate:
        self.model.frames_encoded += len(self.levels)
        return super().step(frames, state)


class StreamEncodesItsWindowAgain(BrightnessModel):
    def stream(self, task: str | None = None) -> BrightnessStream:
        return _EncodesAgain(self)


class LooksAtItsNeighbours(BrightnessModel):
    """Normalises over the batch."""

    def predict_batch(self, episodes: Any, task: str | None = None) -> list[Prediction]:
        parts = [self.predict(episode, task) for episode in episodes]
        highest = max(part.progress.max() for part in parts)
        lowest = min(part.progress.min() for part in parts)
        scale = np.float32(1.0 if len(parts) == 1 else highest - lowest)
        return [Prediction(part.progress * scale, part.stage_probabilities, part.uncertainty) for part in parts]


class ForgetsItsGain(BrightnessModel):
    def save(self, folder: Any) -> None:
        BrightnessModel(self.stages, self.cameras, gain=1.0).save(folder)


class Pickles(BrightnessModel):
    def save(self, folder: Any) -> None:
        super().save(folder)
        (Path(folder) / "weights.pt").write_bytes(b"")


@pytest.mark.parametrize(
    ("model", "clause", "words"),
    [
        (Foresees(), "causality", "from frame"),
        (ForeseesALittle(), "causality", "progress"),
        (RollsDice(), "determinism", "second call"),
        (PassesOne(), "shapes and ranges", r"outside [0, 1]"),
        (SaysNothing(), "shapes and ranges", "not finite at frame 4"),
        (ForgetsAStage(), "shapes and ranges", "(24, 2), expected (24, 3)"),
        (Unsure(), "shapes and ranges", "do not sum to 1"),
        (PaintsOverItsInput(), "inputs untouched", FRONT),
        (StreamDrifts(), "stream equals predict", "0.0001"),
        (StreamNeverForgets(), "stream equals predict", "after reset"),
        (StreamEncodesItsWindowAgain(), "one encode a step", "encoded 2 images for 1 cameras"),
        (LooksAtItsNeighbours(), "batch of one", "row 0"),
        (ForgetsItsGain(gain=0.5), "save and load", "after loading"),
        (Pickles(), "save and load", "weights.pt"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BrightnessModel) else None,
)
def test_each_way_of_breaking_the_contract_is_caught_and_named(
    model: BrightnessModel, clause: str, words: str, episode: dict[str, np.ndarray]
) -> None:
    broken = _broken(model, episode)
    assert clause in broken
    assert words in broken[clause]


def test_broken_clauses_raise_one_error_that_names_them_all(episode: dict[str, np.ndarray]) -> None:
    with pytest.raises(ModelError, match=r"breaks .* clauses: .*causality"):
        check_reward_model(Foresees(), episode, load=load_brightness_model)


def test_a_model_that_raises_is_a_finding(episode: dict[str, np.ndarray]) -> None:
    class Raises(BrightnessModel):
        def predict_batch(self, episodes: Any, task: str | None = None) -> list[Prediction]:
            raise NotImplementedError("later")

    assert _broken(Raises(), episode)["batch of one"] == "raised NotImplementedError: later"


def test_an_episode_the_model_cannot_read_is_an_error_of_the_caller(episode: dict[str, np.ndarray]) -> None:
    with pytest.raises(ModelError, match=r"reads observation\.images\.wrist"):
        check_reward_model(BrightnessModel(cameras=["observation.images.wrist"]), episode)
    with pytest.raises(ModelError, match="at least two frames"):
        check_reward_model(BrightnessModel(), {FRONT: episode[FRONT][:1]})
