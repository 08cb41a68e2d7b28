"""Tasks with stages of their own in one store: each runs from 0 to 1."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from moving_square import CAMERA, ENCODER, HEIGHT, REWARD, STATE, WIDTH, arrays

from robo_core.errors import LabelError
from robo_datasets import DemoStore
from robo_rm.evaluation.evaluate import evaluate_reward_model
from robo_rm.labels.progress import training_priors
from robo_rm.labels.tasks import priors_of, task_priors
from robo_rm.reward_models.checker import check_reward_model
from robo_rm.reward_models.registry import FitRequest
from robo_rm.reward_models.saving import load_reward_model
from robo_rm.reward_models.stage.model_type import fit
from robo_rm.settings import OptimiserSettings
from robo_rm.training.budget import Budget


def episode(task: str, stage: list[int], success: bool = True) -> SimpleNamespace:
    return SimpleNamespace(task=task, stage=np.array(stage), success=success, uuid=task, length=len(stage))


def test_tasks_that_share_their_stages_share_their_priors():
    shared = [episode("a", [0, 0, 1, 1]), episode("b", [0, 1, 1, 1]), episode("b", [0, 0, 0], success=False)]
    assert task_priors(shared, 2) == {}
    assert task_priors([episode("a", [0, 1]), episode("b", [0])], 2) == {}, "a stage may be left out"


def test_tasks_with_stages_of_their_own_have_priors_of_their_own():
    found = task_priors([episode("a", [0, 0, 0, 1]), episode("b", [2, 2, 3, 3])], 4)
    assert found == {"a": [0.75, 0.25, 0.0, 0.0], "b": [0.0, 0.0, 0.5, 0.5]}
    provenance = {"priors": [0.25] * 4, "task_priors": found}
    assert priors_of(provenance, "b").tolist() == found["b"]
    assert priors_of(provenance, "c").tolist() == [0.25] * 4
    assert priors_of({"priors": [1.0]}, "b").tolist() == [1.0]


def test_a_task_of_failures_alone_is_told_the_truth_and_never_credited_with_the_end(capsys):
    episodes = [episode("a", [0, 0, 1, 1]), episode("b", [2, 2], success=False)]
    assert task_priors(episodes, 4) == {"a": [0.5, 0.5, 0, 0], "b": [0, 0, 0.5, 0.5]}
    told = capsys.readouterr().out
    assert "no episode of the task 'b' finished a stage" in told
    assert "label" not in told


def test_failures_alone_are_not_told_to_label_stages():
    with pytest.raises(LabelError, match=r"none of the 2 labelled episodes finished a stage \(2 marked as failures\)"):
        training_priors([episode("a", [0, 0], success=False), episode("a", [0, 0, 0], success=False)], 2)
    with pytest.raises(LabelError, match="label stages"):
        training_priors([episode("a", [-1, -1])], 2)


def test_one_model_of_two_tasks_is_trained_saved_and_evaluated(tmp_path):
    features = {
        CAMERA: {"shape": (HEIGHT, WIDTH, 3), "dtype": "uint8"},
        STATE: {"shape": (2,), "dtype": "float32"},
    }
    store = DemoStore.create(tmp_path / "two.zarr", features=features, fps=10, stages=["a", "b", "c", "d"])
    for number in range(10):
        data, task = arrays(24, number), number % 2
        with store.writer(task=["move right", "move back"][task], success=True) as writer:
            for t in range(24):
                at = 23 - t if task else t
                frame = {CAMERA: data[CAMERA][at], STATE: data[STATE][at]}
                writer.add(frame, timestamp=t / 10, stage=2 * task + (t >= 12))
    fitted = fit(
        FitRequest(
            store=store,
            reward=REWARD,
            folder=tmp_path / "rm",
            encoder=ENCODER,
            optimiser=OptimiserSettings(batch=8, warmup=5, learning_rate=4e-3, average=0.9),
            budget=Budget(150, None),
            holdout=2,
            device="cpu",
        )
    )
    model = load_reward_model(tmp_path / "rm", "cpu")
    assert set(model.provenance["task_priors"]) == {"move right", "move back"}
    ends = {e.task: model.predict(e).progress for e in store}
    for task, progress in ends.items():
        # By priors of all stages together, the first task would end at a half.
        assert progress[-1] > 0.55, f"{task} ends at {progress[-1]:.2f} of its own stages"
        assert progress[0] < 0.3
    wrong = model.predict(store[0], task="move back").progress
    assert wrong.mean() < ends["move right"].mean(), "what was not asked for counts less"
    assert fitted.metrics["mse"] < 0.06
    assert evaluate_reward_model(model, store, resamples=10, probes=1).stages == ["a", "b", "c", "d"]
    check_reward_model(model, store[1])
