"""Ensembles: careful where members differ, one split for all, kept with their members."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from moving_square import ENCODER, make_store

from robo_core.errors import ConfigError, ModelError
from robo_rm.reward_models.baselines.ensemble import EnsembleDescription, EnsembleSettings, combine, with_rule
from robo_rm.reward_models.checker import check_reward_model
from robo_rm.reward_models.prediction import Prediction
from robo_rm.reward_models.registry import FitRequest, reward_kind
from robo_rm.reward_models.saving import load_reward_model
from robo_rm.settings import OptimiserSettings
from robo_rm.training.budget import Budget

SMALL = {"history": 3, "gap_seconds": 0.4, "width": 16, "layers": 1, "heads": 2}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("stores") / "square.zarr", episodes=8, failures=2)


def fit(store, folder, **reward):
    values = {"members": 2, "settings": SMALL, **reward}
    return reward_kind("ensemble").fit(
        FitRequest(
            store=store,
            reward=EnsembleSettings(**values),
            folder=folder,
            encoder=ENCODER,
            optimiser=OptimiserSettings(batch=4, warmup=2),
            budget=Budget(6, None),
            holdout=2,
            device="cpu",
        )
    )


@pytest.fixture(scope="module")
def folder(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble") / "rm"
    fit(store, folder)
    return folder


def guess(progress: list[float], stage: int) -> Prediction:
    chances = np.full((len(progress), 2), 0.1, np.float32)
    chances[:, stage] = 0.9
    return Prediction(np.array(progress, np.float32), chances, np.zeros(len(progress), np.float32))


def test_the_worst_case_is_the_most_doubtful_member():
    said = combine([guess([0.2, 0.9], 0), guess([0.4, 0.5], 1)], EnsembleDescription(2, "worst", 0.0))
    assert said.progress == pytest.approx([0.2, 0.5])
    assert said.stage.tolist() == [0, 1]
    assert said.uncertainty == pytest.approx([0.1, 0.2])


def test_the_mean_is_lowered_by_the_variance():
    said = combine([guess([0.2, 0.9], 0), guess([0.4, 0.5], 1)], EnsembleDescription(2, "lcb", 5.0))
    assert said.progress == pytest.approx([0.3 - 5 * 0.01, 0.7 - 5 * 0.04])
    assert said.stage_probabilities == pytest.approx(np.full((2, 2), 0.5))


def test_it_keeps_the_contract_and_its_members_share_a_split(store, folder):
    model = load_reward_model(folder, "cpu")
    check_reward_model(model, store[0], load=lambda root: load_reward_model(root, "cpu"))
    held = [member.provenance["holdout_uuids"] for member in model.members]
    assert held[0] == held[1] == model.provenance["holdout_uuids"]
    first, second = (member.predict(store[0]).progress for member in model.members)
    assert not np.array_equal(first, second)
    assert model.predict(store[0]).progress == pytest.approx(np.minimum(first, second))


def test_finished_members_are_not_trained_again(store, folder):
    before = (folder / "member-0" / "model.safetensors").stat().st_mtime_ns
    assert fit(store, folder).already
    assert (folder / "member-0" / "model.safetensors").stat().st_mtime_ns == before


def test_a_missing_member_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "rm")
    shutil.rmtree(tmp_path / "rm" / "member-1")
    with pytest.raises(ModelError, match="a member's weights are missing"):
        load_reward_model(tmp_path / "rm")


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        ({"rule": "best"}, "reward.rule=best"),
        ({"members": 1}, "reward.members=1"),
        ({"member": "ensemble"}, "no ensemble"),
        ({"member": "stages"}, "no reward model of the kind 'stages'; known: stage,"),
        ({"settings": {"hight": 3}}, "unexpected keyword argument 'hight'"),
    ],
)
def test_settings_that_make_no_sense_are_named(store, tmp_path, reward, says):
    with pytest.raises(ConfigError, match=says):
        fit(store, tmp_path / "rm", **reward)
    assert not (tmp_path / "rm").exists()


def test_many_episodes_are_followed_as_one_would_be(store, folder):
    model = load_reward_model(folder)
    first, second = store[0], store[1]
    every, length = 2, min(first.length, second.length) // 2 * 2
    keys = list(model.cameras)
    states = [None if model.state_key is None else episode[model.state_key][:] for episode in (first, second)]
    streams = model.streams(2, every=every)
    for t in range(0, length, every):
        frames = {key: np.stack([episode[key][t] for episode in (first, second)]) for key in keys}
        joint = None if model.state_key is None else np.stack([state[t] for state in states])
        said = streams.step(frames, joint)
        if t + every >= length:
            break
    for place, episode in enumerate((first, second)):
        whole = model.predict(episode)
        assert said[0][place] == pytest.approx(whole.progress[t], abs=1e-4)
        assert said[2][place] == pytest.approx(whole.uncertainty[t], abs=1e-4)
    streams.reset([0])
    frames = {key: first[key][0][None] for key in keys}
    joint = None if model.state_key is None else states[0][:1]
    assert streams.step(frames, joint, [0])[0] == pytest.approx(model.predict(first).progress[:1], abs=1e-4)


def test_another_rule_over_the_same_members(store, folder):
    model = load_reward_model(folder)
    members = np.stack([member.predict(store[0]).progress for member in model.members]).astype(np.float64)
    worst = with_rule(model, "worst", 0.0).predict(store[0]).progress
    np.testing.assert_allclose(worst, members.min(axis=0), atol=1e-6)
    careful = with_rule(model, "lcb", 2.0).predict(store[0]).progress
    wanted = np.clip(members.mean(axis=0) - 2.0 * members.var(axis=0), 0, 1)
    np.testing.assert_allclose(careful, wanted, atol=1e-6)
    with pytest.raises(ConfigError, match="a single one"):
        with_rule(model.members[0], "worst", 0.0)
    with pytest.raises(ConfigError, match="'median'"):
        with_rule(model, "median", 0.0)
