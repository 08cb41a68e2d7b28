"""A reward model and a policy of one seed hold out the same episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robo_datasets import DemoStore
from robo_policies.cloning.holdout import hold_out
from robo_policies.cloning.windows import load_demonstrations
from robo_rm.reward_models.registry import FitRequest
from robo_rm.reward_models.stage.model_type import StagePlan
from robo_rm.settings import StageSettings
from robo_rm.training.fit import Fit

CAMERA = "observation.images.front"


@pytest.fixture
def store(tmp_path: Path) -> DemoStore:
    features = {
        CAMERA: {"shape": (24, 32, 3), "dtype": "uint8"},
        "observation.state": {"shape": (2,), "dtype": "float32"},
        "action": {"shape": (2,), "dtype": "float32"},
    }
    store = DemoStore.create(tmp_path / "demos.zarr", features=features, fps=10, stages=["reach", "place"])
    rng = np.random.default_rng(0)
    for number in range(12):
        with store.writer(task="ab"[number % 2], success=number % 3 > 0) as writer:
            for t in range(8):
                numbers = rng.random((2, 2)).astype(np.float32)
                frame = rng.integers(0, 255, (24, 32, 3)).astype(np.uint8)
                writer.add(
                    {CAMERA: frame, "observation.state": numbers[0], "action": numbers[1]},
                    timestamp=t / 10,
                    stage=t // 4 if number != 5 else -1,
                )
    return DemoStore.open(store.path)


@pytest.mark.parametrize("holdout", [3, 0.25])
@pytest.mark.parametrize("seed", [0, 7])
def test_train_reward_and_train_policy_hold_out_the_same_episodes(store, tmp_path, holdout, seed):
    request = FitRequest(store, StageSettings(), tmp_path / "rm", holdout=holdout, seed=seed, device="cpu")
    by_reward = [episode.uuid for episode in Fit(request, StagePlan).held_out]
    demonstrations = load_demonstrations(store)
    frames = hold_out(store, demonstrations, holdout, seed)
    by_policy = [
        uuid for uuid, first in zip(demonstrations.uuids, demonstrations.starts, strict=False) if frames[first]
    ]
    assert len(by_policy) == 3
    assert by_reward == by_policy
