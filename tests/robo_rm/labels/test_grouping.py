"""Coarser stages: one view for training, scoring and evaluating, and errors that show the store's stages."""

from __future__ import annotations

import numpy as np
import pytest
from moving_square import ENCODER, REWARD, STAGES, make_store

from robo_core.errors import ConfigError, StoreError
from robo_rm.evaluation.evaluate import evaluate_reward_model
from robo_rm.labels.grouping import GroupedStore
from robo_rm.reward_models.registry import FitRequest
from robo_rm.reward_models.saving import load_reward_model
from robo_rm.reward_models.stage.model_type import fit
from robo_rm.scoring import score_progress
from robo_rm.settings import OptimiserSettings
from robo_rm.training.budget import Budget


def trained(store, folder, groups):
    return fit(
        FitRequest(
            store=store,
            reward=REWARD,
            folder=folder,
            encoder=ENCODER,
            optimiser=OptimiserSettings(batch=4, warmup=2),
            budget=Budget(4, None),
            holdout=2,
            device="cpu",
            stage_groups=groups,
        )
    )


def test_stages_are_put_together_and_everything_else_stays(tmp_path):
    store = make_store(tmp_path / "square.zarr", episodes=3)
    view = GroupedStore(store, {"all of it": [0, 1]})
    assert view.stages == ["all of it"]
    assert len(view) == 3
    for ours, theirs in zip(view, store, strict=True):
        assert (ours.stage == 0).all()
        assert ours.stage.dtype == np.int16
        assert (ours.uuid, ours.length, ours.task, ours.success) == (
            theirs.uuid,
            theirs.length,
            theirs.task,
            theirs.success,
        )
        assert list(ours) == list(theirs)
    assert view.content_hash() == store.content_hash()
    store.set_stages(store[0].uuid, [-1, *store[0].stage[1:]])
    assert view[0].stage[0] == -1, "unlabelled stays unlabelled"
    with pytest.raises(StoreError, match="view of coarser"):
        view.set_stages(store[0].uuid, store[0].stage)


@pytest.mark.parametrize("groups", [{"a": [1], "b": [0]}, {"a": [0]}, {"a": [0, 1, 2]}, {"a": [0, 0], "b": [1]}])
def test_groups_that_are_not_the_task_in_order_are_refused(tmp_path, groups):
    with pytest.raises(ConfigError, match=f"0 '{STAGES[0]}', 1 '{STAGES[1]}'"):
        GroupedStore(make_store(tmp_path / "square.zarr", episodes=1), groups)


def test_a_model_of_one_stage_learns_from_a_store_without_labels_and_is_scored_and_evaluated(tmp_path):
    store = make_store(tmp_path / "square.zarr", episodes=5, labelled=False)
    model = trained(store, tmp_path / "rm", [[]]).model
    assert model.stages == ["task"]
    again = load_reward_model(tmp_path / "rm", "cpu")
    scores = score_progress(again, "model", store)
    assert scores.read(store[0].uuid)["stage_probabilities"].shape == (store[0].length, 1)
    evaluation = evaluate_reward_model(again, store, resamples=10, probes=1)
    assert evaluation.stages == ["task"]
    assert again.provenance["priors"] == [1.0]


def test_a_model_of_coarser_stages_is_scored_on_the_finer_store(tmp_path):
    store = make_store(tmp_path / "square.zarr", episodes=5)
    trained(store, tmp_path / "rm", [[0, 1]])
    again = load_reward_model(tmp_path / "rm", "cpu")
    assert again.stages == [" + ".join(STAGES)]
    score_progress(again, "model", store)
    with pytest.raises(ConfigError, match="must list the store's stages"):
        GroupedStore(store, {"the whole": [0, 2]})
