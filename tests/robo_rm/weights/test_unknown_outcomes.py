"""Imported demonstrations have no outcome: those whose annotation is complete count like successes, and it is said."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from brightness_model import BrightnessModel, make_bright_store

from robo_core.cli.main import main
from robo_core.errors import ConfigError
from robo_datasets import DemoStore
from robo_rm.evaluation.calibrate import _fitted, _observe
from robo_rm.evaluation.evaluate import evaluate_reward_model
from robo_rm.labels.outcomes import HOW_TO_MARK, finished_unknown
from robo_rm.labels.progress import stored_labels
from robo_rm.monitor.fitting import _check_enough
from robo_rm.weights.rabc import store_weights

KEY = "progress_key=simulator.progress"


def episode(stage, success=None, task="sort"):
    return SimpleNamespace(stage=np.array(stage), success=success, task=task, length=len(stage))


def test_an_episode_of_unknown_outcome_is_finished_in_the_last_stage_of_its_task() -> None:
    whole, short, failed = episode([0, 1, 2, -1]), episode([0, 1, 1, -1]), episode([0, 1, 2, 2], success=False)
    assert finished_unknown({"a": whole, "b": short, "c": failed, "d": episode([-1, -1])}, 3) == {"a"}
    assert finished_unknown({"b": short}, 3) == frozenset()
    own = {
        "p": episode([0, 1, 1], task="pour"),
        "q": episode([0, 2, 2], task="wipe"),
        "r": episode([0, 0], task="pour"),
    }
    assert finished_unknown(own, 3) == {"p", "q"}
    assert finished_unknown({**own, "s": episode([0, 1], task="Pour it")}, 3, [["pour", "Pour it"]]) == {"p", "q", "s"}


def test_a_finished_episode_of_unknown_outcome_weighs_as_a_success_does() -> None:
    rise, still = np.linspace(0, 0.9, 30), np.full(8, 0.9)
    progress = {"a": np.r_[rise, still], "b": np.r_[rise, still], "c": np.r_[rise[:20], still * 0]}
    marked = store_weights(progress, 6, success={"a": True, "b": True, "c": False})
    unknown = store_weights(progress, 6, success={"a": None, "b": None, "c": False}, finished={"a", "c"})
    np.testing.assert_array_equal(unknown.weights["a"], marked.weights["a"])
    assert (unknown.weights["a"][-6:] == 1).all()
    assert unknown.weights["b"][-6:].max() < 1
    assert not unknown.weights["c"].any()
    assert unknown.finished == {"a"}
    assert unknown.success["a"] is None


def test_success_only_keeps_to_what_was_marked_and_says_how_many_were_not() -> None:
    progress = {name: np.linspace(0, 1, 20) for name in "abc"}
    kept = store_weights(progress, 5, "success_only", success={"a": True, "b": None, "c": None}, finished={"b"})
    assert [float(kept.weights[name].max()) for name in "abc"] == [1, 0, 0]
    assert not kept.finished
    with pytest.raises(ConfigError, match=r"3 have no outcome: .*success=true relabel=true .*set_success"):
        store_weights(progress, 5, "success_only", success={}, finished={"a"})


@pytest.fixture
def store(tmp_path: Path) -> DemoStore:
    made = make_bright_store(tmp_path / "demos.zarr", ("clean", "clean", "partial", "clean"))
    for uuid in made.uuids[:3]:
        made.set_success(uuid, None)
    return DemoStore.open(made.path)


def test_score_says_what_becomes_of_unknown_outcomes(store: DemoStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", f"store={store.path}", KEY]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "2 episodes of unknown outcome end in the last stage of their task and count like successes" in told
    assert "1 episodes of unknown outcome do not end in the last stage" in told
    derived = DemoStore.open(store.path).derived("weights")
    assert derived.provenance["counted_like_successes"] == sorted(store.uuids[:2])
    assert derived.read(store.uuids[0])["weight"][-6:].min() == 1
    assert main(["score", f"store={store.path}", KEY, "mode=success_only"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"3 of 4 episodes have no outcome (success) and have weight 0; {HOW_TO_MARK}" in told


def test_calibration_says_whom_it_left_out() -> None:
    fitted = SimpleNamespace(temperature=1.0, progress=(0,), success=(0,))
    told = _fitted(fitted, 5, 3, [True, True, False, None, None])
    assert "success from 2 successes and 1 failure" in told
    assert f"2 episodes of unknown outcome left out of the latter, {HOW_TO_MARK}" in told
    assert HOW_TO_MARK not in _fitted(fitted, 3, 3, [True, True, False])


def test_unknown_outcomes_are_evaluated_and_calibrated_by_the_labels_they_train_by(store: DemoStore) -> None:
    uuid = store.uuids[0]
    stage = np.asarray(store.episode(uuid).stage).copy()
    stage[stage == stage.max()] = -1  # a task that ends in an earlier stage than the store's last
    store.set_stages(uuid, stage)
    last, model = int(stage.max()), BrightnessModel()
    priors = np.eye(len(store.stages))[: last + 1].sum(axis=0) / (last + 1)
    model.provenance = {**model.provenance, "priors": priors.tolist()}
    expected = stored_labels(store.episode(uuid), priors)
    assert expected.complete[stage == last].all()
    evaluated = evaluate_reward_model(model, store, which=[uuid], probes=0, resamples=0).episodes[0]
    np.testing.assert_array_equal(np.isfinite(evaluated.label), stage >= 0)
    np.testing.assert_array_equal(_observe(model, store.episode(uuid), priors)[2], evaluated.label)


def test_a_model_that_learns_outcomes_leaves_out_who_has_none_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_bright_store(tmp_path / "many.zarr", ("clean", "clean", "partial", "partial", "clean", "clean"))
    for uuid in made.uuids[4:]:
        made.set_success(uuid, None)
    small = ["reward=success", "encoder.image_size=24", "encoder.channels=[8,8]", "reward.width=8", "steps=2"]
    assert main(["train-reward", f"store={made.path}", f"out={tmp_path / 'rm'}", "holdout=1", *small]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert re.search(r" - \((no|needs) [a-z ]+ held out\)", told)
    assert " nan " not in told
    assert "of 6 episodes have no outcome (success) and are left out, as this model learns from outcomes" in told
    assert HOW_TO_MARK in told
    assert "taken for demonstrations that went well" not in told
    for uuid in made.uuids:
        made.set_success(uuid, None)
    assert main(["train-reward", f"store={made.path}", f"out={tmp_path / 'rm2'}", "holdout=0", *small]) == 2
    assert HOW_TO_MARK in capsys.readouterr().err


def test_where_every_weight_is_zero_no_training_is_proposed(
    store: DemoStore, capsys: pytest.CaptureFixture[str]
) -> None:
    for uuid in store.uuids:
        store.set_success(uuid, False)
    assert main(["score", f"store={store.path}", KEY]) == 0
    told = capsys.readouterr().out
    assert "every weight is 0: all episodes are marked as failures" in told
    assert "next:" not in told


def test_a_monitor_says_how_many_unknown_outcomes_it_cannot_use() -> None:
    with pytest.raises(ConfigError, match=r"here 0 of 0 .*\(4 unseen episodes have no outcome: .*relabel=true"):
        _check_enough(0, [0.05], 0.5, 4)
    with pytest.raises(ConfigError, match=r"or accept rates=\[0\.34\]"):
        _check_enough(4, [0.05], 0.5)
    _check_enough(38, [0.05], 0.5)
