"""Early stopping: on failures, never on the error on demonstrations, and not on the episodes held out."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from moving_square import ENCODER, REWARD, make_store

from robo_core.errors import ConfigError
from robo_rm.reward_models.registry import FitRequest
from robo_rm.reward_models.stage.model_type import fit
from robo_rm.settings import OptimiserSettings
from robo_rm.training import stopping
from robo_rm.training.budget import Budget
from robo_rm.training.stopping import BEST, EarlyStopping, check_validation, rollout_score

NAN = math.nan


def request(store, folder, **changes) -> FitRequest:
    values = {
        "store": store,
        "reward": REWARD,
        "folder": folder,
        "encoder": ENCODER,
        "optimiser": OptimiserSettings(batch=4, warmup=2),
        "budget": Budget(60, None),
        "holdout": 2,
        "validation": 4,
        "device": "cpu",
    }
    return FitRequest(**{**values, **changes})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("stores") / "square.zarr", episodes=12, failures=5)


def test_the_error_on_demonstrations_has_no_say():
    figures = {"auroc": 0.9, "hallucination": 0.2, "mse": 0.5, "voc": 0.1}
    assert rollout_score(figures) == pytest.approx(0.85)
    assert rollout_score({**figures, "mse": 0.0, "voc": 1.0}) == rollout_score(figures)
    assert rollout_score({**figures, "auroc": NAN}) == pytest.approx(0.8)
    assert rollout_score({"auroc": NAN, "hallucination": NAN}) == -math.inf


def test_validation_without_failures_is_refused():
    whole = [SimpleNamespace(success=True)] * 3
    with pytest.raises(ConfigError, match="holds no failure"):
        check_validation(whole, 3)
    with pytest.raises(ConfigError, match="patience=0"):
        check_validation([*whole, SimpleNamespace(success=False)], 0)


def test_the_best_model_is_kept_and_training_ends_when_it_gets_no_better(store, tmp_path, monkeypatch):
    scores = iter([0.5, 0.9, 0.4, 0.8, 0.1, 0.95])
    monkeypatch.setattr(stopping, "rollout_score", lambda figures: next(scores))
    fitted = fit(request(store, tmp_path / "rm", patience=2))
    # Looks at 20, 30, 40 and 50 steps (every tenth, where a point of the curve ends); the second was the best.
    assert fitted.metrics["best_step"] == 30
    assert fitted.metrics["ended_by"] == "early_stopping"
    assert (fitted.metrics["steps"], fitted.metrics["planned_steps"]) == (50, 60)
    assert fitted.curve[-1][0] == 50
    assert not (tmp_path / "rm" / BEST).exists()


def test_validation_episodes_are_neither_trained_on_nor_held_out(store, tmp_path):
    provenance = fit(request(store, tmp_path / "rm")).model.provenance
    parts = [set(provenance[f"{name}_uuids"]) for name in ("train", "validation", "holdout")]
    assert [len(part) for part in parts] == [6, 4, 2]
    assert len(parts[0] | parts[1] | parts[2]) == 12
    assert {store.episode(uuid).success for uuid in parts[1]} == {True, False}


def test_a_training_goes_on_with_what_it_knew_of_the_best(tmp_path):
    kept = EarlyStopping(dict, 3, tmp_path)
    kept.best, kept.waited, kept.evaluated = 0.7, 2, 0.5
    other = EarlyStopping(dict, 3, tmp_path)
    other.restore(kept.state())
    assert (other.best, other.waited, other.evaluated) == (0.7, 2, 0.5)
    other.restore(EarlyStopping(dict, 3, tmp_path).state())
    assert other.best == -math.inf
    assert not other.due(0.2)
    assert other.due(0.3)
