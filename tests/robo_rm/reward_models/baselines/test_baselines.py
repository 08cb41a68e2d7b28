"""Every baseline keeps the contract, learns a small task, and comes back from its folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
from moving_square import CAMERA, ENCODER, STATE, make_store
from tiny_clip import make_clip

from robo_core.errors import ConfigError, LabelError, ModelError
from robo_rm.reward_models.baselines.image_text import ImageTextSettings
from robo_rm.reward_models.baselines.success import platt
from robo_rm.reward_models.checker import check_reward_model
from robo_rm.reward_models.placing import place_in_stages
from robo_rm.reward_models.registry import FitRequest, reward_kind
from robo_rm.reward_models.saving import load_reward_model
from robo_rm.settings import OptimiserSettings
from robo_rm.training.budget import Budget

SMALL = {
    "frame_index": {"history": 3, "gap_seconds": 0.4, "width": 16, "layers": 1, "heads": 2},
    "goal_distance": {"width": 16, "size": 8},
    "success": {"width": 16},
}
STEPS = {"frame_index": 60, "goal_distance": 120, "success": 120}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("stores") / "square.zarr", episodes=12, failures=4)


def request_of(store, folder, name, steps=None, **changes) -> FitRequest:
    kind = reward_kind(name)
    values = {
        "encoder": ENCODER,
        "optimiser": OptimiserSettings(batch=8, warmup=5, learning_rate=3e-3),
        "budget": Budget(steps or STEPS[name], None),
        "holdout": 3,
        "device": "cpu",
    }
    reward = changes.pop("reward", None) or kind.settings(**SMALL[name])
    return FitRequest(store=store, reward=reward, folder=folder, **{**values, **changes})


@pytest.fixture(scope="module", params=list(SMALL))
def fitted(request, store, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "rm"
    kind = reward_kind(request.param)
    return request.param, kind.fit(request_of(store, folder, request.param)), folder


def test_it_keeps_the_contract(fitted, store):
    _, result, _ = fitted
    check_reward_model(result.model, store[0])


def test_it_learns_what_a_success_looks_like(fitted, store):
    _, result, folder = fitted
    model = load_reward_model(folder)
    finals = {True: [], False: []}
    for episode in store:
        finals[episode.success].append(float(model.predict(episode).progress[-1]))
    assert np.mean(finals[True]) > np.mean(finals[False]) + 0.15
    assert result.metrics["holdout_episodes"] == 3
    held = set(model.provenance["holdout_uuids"])
    assert len(held) == 3
    assert not held & set(model.provenance["train_uuids"])
    assert model.stages == store.stages


def test_the_same_command_finds_the_finished_model(fitted, store):
    name, _, folder = fitted
    again = reward_kind(name).fit(request_of(store, folder, name))
    assert again.already
    with pytest.raises(ModelError, match="overwrite=true"):
        reward_kind(name).fit(request_of(store, folder, name, seed=5))


def test_a_state_of_another_length_is_named(fitted, store):
    _, result, _ = fitted
    data = {CAMERA: store[0][CAMERA][:4], STATE: np.zeros((4, 3), np.float32)}
    with pytest.raises(ModelError, match="was trained on 2 values"):
        result.model.predict(data)
    with pytest.raises(ModelError, match="the step lacks"):
        result.model.stream().step({}, state=np.zeros(2, np.float32))


@pytest.mark.parametrize("name", ["goal_distance", "success"])
def test_a_damaged_folder_is_named(name, store, tmp_path):
    folder = tmp_path / "rm"
    reward_kind(name).fit(request_of(store, folder, name, steps=2))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ModelError, match="damaged or half written"):
        load_reward_model(folder)


def test_an_unlabelled_store_will_do_for_models_without_stages(tmp_path):
    store = make_store(tmp_path / "s.zarr", episodes=4, labelled=False, frames=8)
    for name in ("frame_index", "goal_distance"):
        result = reward_kind(name).fit(request_of(store, tmp_path / name, name, steps=2, holdout=1))
        assert result.model.predict(store[0]).stage_probabilities.shape == (8, 2)


def test_failures_teach_frame_index_nothing(store, tmp_path):
    result = reward_kind("frame_index").fit(request_of(store, tmp_path / "rm", "frame_index", steps=2))
    trained = result.model.provenance["train_uuids"]
    assert trained
    assert all(store.episode(uuid).success for uuid in trained)
    assert {store.episode(uuid).success for uuid in result.model.provenance["holdout_uuids"]} == {True, False}


@pytest.mark.parametrize(
    ("name", "reward", "says"),
    [
        ("goal_distance", {"frames": 1}, "reward.frames=1: give 2 or more"),
        ("success", {"calibration": 0.9}, "reward.calibration=0.9"),
        ("frame_index", {"width": 15, "heads": 2}, "reward.width=15 is not a multiple"),
    ],
)
def test_settings_that_make_no_sense_are_named(store, tmp_path, name, reward, says):
    settings = reward_kind(name).settings(**reward)
    with pytest.raises(ConfigError, match=says):
        reward_kind(name).fit(request_of(store, tmp_path / "rm", name, reward=settings))
    assert not (tmp_path / "rm").exists()


def test_a_store_without_successes_is_refused(tmp_path):
    store = make_store(tmp_path / "s.zarr", episodes=3, failures=3, frames=6)
    for name in SMALL:
        with pytest.raises(LabelError, match="success"):
            reward_kind(name).fit(request_of(store, tmp_path / name, name, holdout=0))


def test_progress_is_placed_in_the_stage_it_lies_in():
    chances = place_in_stages([0.0, 0.3, 0.5, 0.99], [0, 0, 0.1, 0], [0.4, 0.6])
    assert chances.argmax(axis=1).tolist() == [0, 0, 1, 1]
    assert chances.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-6)
    assert 0.5 < chances[2, 1] < 0.95


def test_platt_finds_the_scale_and_offset_that_made_the_outcomes():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 4000)
    truth = (rng.random(4000) < 1 / (1 + np.exp(-(2 * logits - 1)))).astype(float)
    assert platt(logits, truth) == pytest.approx((2, -1), abs=0.2)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip"), ["a square on the right", "a picture"])


def test_zero_shot_similarity_keeps_the_contract(store, clip, tmp_path):
    reward = ImageTextSettings(clip=str(clip), goal="a square on the right", baseline="a picture")
    result = reward_kind("image_text").fit(request_of(store, tmp_path / "rm", "image_text", 1, reward=reward))
    check_reward_model(result.model, store[0], frames=20)
    assert result.model.provenance["train_uuids"] == []
    assert json.loads((tmp_path / "rm" / "provenance.json").read_text())["encoder"] == str(clip)


def test_zero_shot_similarity_is_0_at_the_baseline_and_1_at_the_goal():
    import torch

    from robo_rm.reward_models.baselines.image_text import similarity

    goal, baseline = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    for alpha in (0.0, 0.5, 1.0):
        assert float(similarity(goal, goal, baseline, alpha)) == pytest.approx(1)
        assert float(similarity(baseline, goal, baseline, alpha)) == pytest.approx(0)
    aside = torch.tensor([0.6, -0.8])
    # With the whole projection, only the place along the line counts.
    along = float(((aside - baseline) * (goal - baseline)).sum() / 2)
    assert float(similarity(aside, goal, baseline, 1.0)) == pytest.approx(1 - (1 - along) ** 2)


def test_an_encoder_that_cannot_be_had_or_is_another_is_named(store, clip, tmp_path):
    missing = ImageTextSettings(clip=str(tmp_path), goal="a")
    with pytest.raises(ModelError, match="cannot be had"):
        reward_kind("image_text").fit(request_of(store, tmp_path / "rm", "image_text", 1, reward=missing))
    own = make_clip(tmp_path / "clip", ["a picture", "a square"])
    reward = ImageTextSettings(clip=str(own), goal="a square", baseline="a picture")
    reward_kind("image_text").fit(request_of(store, tmp_path / "rm", "image_text", 1, reward=reward))
    make_clip(tmp_path / "clip", ["a picture", "a square"], seed=1)
    with pytest.raises(ModelError, match="is not the encoder"):
        load_reward_model(tmp_path / "rm")
