"""The penalty on steep rewards: free below its bound, right above it, and it can be trained against."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from moving_square import CAMERA, REWARD, STATE, arrays, description, stored

from robo_rm.reward_models.stage.trainer import StageObjective
from robo_rm.settings import LossSettings, OptimiserSettings
from robo_rm.training.budget import Budget
from robo_rm.training.data import TrainingData
from robo_rm.training.engine import Engine, Recipe
from robo_rm.training.lipschitz import between, lipschitz_penalty


def test_only_slopes_above_the_bound_cost():
    points = torch.randn(5, 3)
    weights = torch.tensor([0.0, 3.0, 4.0], requires_grad=True)
    steep = lipschitz_penalty(lambda x: (x * weights).sum(dim=1), points, 2.0)
    assert float(steep.detach()) == pytest.approx(9.0, abs=1e-4)
    steep.backward()
    assert weights.grad is not None
    assert weights.grad[1:].min() > 0
    assert float(lipschitz_penalty(lambda x: (x * weights).sum(dim=1), points, 6.0).detach()) == 0


def test_points_lie_between_two_samples():
    torch.manual_seed(0)
    samples = torch.arange(6.0)[:, None].expand(6, 4)
    points = between(samples)
    assert (points >= 0).all()
    assert (points <= 5).all()
    assert torch.equal(points, points[:, :1].expand(6, 4))


def test_training_with_the_penalty_lowers_the_slope():
    data = TrainingData.load([stored(arrays(30, 0)), stored(arrays(25, 1))], [0.4, 0.6], {CAMERA: (24, 32)}, STATE, 1e9)

    def slope(weight: float) -> float:
        loss = LossSettings(lipschitz=weight, slope=0.0)
        made = description(reward=dataclasses.replace(REWARD, loss=loss))
        trainer = StageObjective(made, data, OptimiserSettings(batch=6, warmup=2, learning_rate=3e-3), seed=0)
        engine = Engine(trainer, Recipe(Budget(25), trainer.settings.average), "cpu")
        for step in range(25):
            assert math.isfinite(engine.step(trainer.batch(step)))
        batch = trainer.batch(99)
        torch.manual_seed(1)
        with torch.no_grad(), trainer.half():
            tokens = trainer._tokens(batch).float()
        return float(lipschitz_penalty(lambda x: trainer._last_progress(x, batch), tokens, 0.0).detach())

    assert slope(3.0) < 0.5 * slope(0.0)
