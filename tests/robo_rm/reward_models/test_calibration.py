"""Calibration: monotone, better on other episodes, kept in the folder, and never evaluated on what it was fitted to."""

from __future__ import annotations

import json

import numpy as np
import pytest
from brightness_model import BrightnessModel
from hypothesis import given, settings
from hypothesis import strategies as st
from moving_square import ENCODER, REWARD, make_store

from robo_core.errors import ModelError
from robo_rm.evaluation.calibrate import calibrate
from robo_rm.evaluation.evaluate import choose_episodes
from robo_rm.reward_models.baselines.ensemble import EnsembleDescription, EnsembleModel, with_rule
from robo_rm.reward_models.calibration import (
    CALIBRATION,
    CalibratedModel,
    Calibration,
    apply,
    fit_calibration,
    fit_temperature,
    gentle,
    isotonic,
    write_calibration,
)
from robo_rm.reward_models.capabilities import capability
from robo_rm.reward_models.checker import check_reward_model
from robo_rm.reward_models.prediction import Prediction
from robo_rm.reward_models.protocol import StreamsMany
from robo_rm.reward_models.registry import FitRequest, reward_kind
from robo_rm.reward_models.saving import load_reward_model
from robo_rm.scoring import model_hash
from robo_rm.settings import OptimiserSettings
from robo_rm.shaping.potential import VideoPotential
from robo_rm.training.budget import Budget


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("stores") / "square.zarr", episodes=14, failures=5)


@pytest.fixture(scope="module")
def folder(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "rm"
    optimiser = OptimiserSettings(batch=8, warmup=5, learning_rate=3e-3)
    request = FitRequest(
        store, REWARD, folder, encoder=ENCODER, optimiser=optimiser, budget=Budget(40, None), holdout=10, device="cpu"
    )
    reward_kind("stage").fit(request)
    return folder


def test_a_temperature_is_found_again():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    stage = np.array([rng.choice(3, p=row) for row in true])
    sharp = np.exp(2.5 * logits) / np.exp(2.5 * logits).sum(1, keepdims=True)
    assert fit_temperature(sharp, stage) == pytest.approx(2.5, rel=0.08)
    assert fit_temperature(np.ones((4, 1)), np.zeros(4, np.int64)) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=40))
def test_a_map_is_monotone_and_stays_in_range(pairs):
    x, y = isotonic([p[0] for p in pairs], [p[1] for p in pairs])
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) >= 0).all()
    assert min(y) >= 0
    assert max(y) <= 1


def test_a_map_mends_a_bent_progress():
    rng = np.random.default_rng(0)
    label = rng.random(3000)
    x, y = isotonic(label**2, label)
    other = rng.random(500)
    assert np.abs(np.interp(other**2, x, y) - other).mean() < 0.03


def test_equal_scores_share_their_mean_whatever_the_order_of_episodes():
    good = [0.0] * 4 + [1.0] * 6
    for outcomes in (good, good[::-1], [good[i] for i in np.random.default_rng(0).permutation(10)]):
        assert np.interp(0.98, *isotonic([0.98] * 10, outcomes)) == pytest.approx(0.6)


def test_a_perfect_ranking_keeps_its_upper_end():
    fails, wins = np.linspace(0.96, 0.9749, 10), np.linspace(0.98, 0.99, 10)
    curve = isotonic(np.r_[fails, wins], np.r_[np.zeros(10), np.ones(10)])
    np.testing.assert_allclose(np.interp([0.5, 0.97, 0.98, 0.99, 1.0], *curve), [0, 0, 1, 1, 1])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=40), st.randoms())
def test_no_order_of_episodes_changes_a_map(pairs, random):
    x, y = isotonic([p[0] for p in pairs], [float(p[1]) for p in pairs])
    random.shuffle(pairs)
    assert isotonic([p[0] for p in pairs], [float(p[1]) for p in pairs]) == (x, y)
    assert (x[0], x[-1]) == pytest.approx((min(p[0] for p in pairs), max(p[0] for p in pairs)), abs=1e-6)


def test_the_map_of_progress_has_no_jump_and_keeps_its_ends():
    x, y = gentle(([0.1, 0.5, 0.500001, 0.93], [0.0, 0.2, 0.9, 1.0]))
    assert (x[0], y[0], x[-1], y[-1]) == pytest.approx((0.1, 0.0, 0.93, 1.0))
    assert np.diff(x).min() >= 0.02 - 1e-12
    assert gentle(([0.4], [0.3])) == ([0.4], [0.3])


def test_a_success_is_likely_where_only_successes_end(store, folder):
    def ending(value):
        return Prediction(np.array([0.5, value], np.float32), np.ones((2, 1), np.float32), np.zeros(2, np.float32))

    ends = np.r_[np.linspace(0.96, 0.9749, 10), np.linspace(0.98, 0.99, 10)]
    unlabelled = [np.full(2, -1)] * 20
    nothing = [np.full(2, np.nan, np.float32)] * 20
    outcomes = [False] * 10 + [True] * 10
    fitted = fit_calibration([ending(e) for e in ends], unlabelled, nothing, outcomes, [str(i) for i in range(20)])
    said = CalibratedModel(load_reward_model(folder, "cpu"), fitted).success([0.5, 0.97, 0.985, 1.0])
    np.testing.assert_allclose(said, [0, 0, 1, 1])


def test_order_of_frames_is_kept_and_probabilities_stay_probabilities():
    calibration = Calibration(2.0, ([0.1, 0.5, 0.9], [0.0, 0.6, 1.0]), None, [])
    guess = Prediction(
        np.linspace(0, 1, 9, dtype=np.float32), np.full((9, 2), (0.2, 0.8), np.float32), np.full(9, 0.1, np.float32)
    )
    said = apply(calibration, guess)
    assert (np.diff(said.progress) >= 0).all()
    assert said.stage_probabilities.sum(axis=1) == pytest.approx(np.ones(9))
    assert said.stage_probabilities[0, 1] == pytest.approx(2 / 3, abs=1e-5)
    assert (said.uncertainty >= 0).all()


def test_a_calibrated_folder_keeps_the_contract_and_is_not_judged_on_what_it_was_fitted_to(folder, store, run_command):
    before = model_hash(folder)
    code, text, errors = run_command("calibrate", f"model={folder}", f"store={store.path}", "device=cpu")
    assert code == 0, errors
    assert "calibrated with 5 episodes" in text
    model = load_reward_model(folder, "cpu")
    assert isinstance(model, CalibratedModel)
    check_reward_model(model, store[0], load=lambda root: load_reward_model(root, "cpu"))
    held = set(model.provenance["holdout_uuids"])
    used = set(model.provenance["calibration_uuids"])
    assert used < held
    assert set(choose_episodes(model, store)[0]) == held - used
    assert model_hash(folder) != before
    assert ((model.success([0.0, 1.0]) >= 0) & (model.success([0.0, 1.0]) <= 1)).all()
    code, _, _ = run_command("calibrate", f"model={folder}", f"store={store.path}", "remove=true")
    assert code == 0
    assert model_hash(folder) == before


BENT = Calibration(2.0, ([0.0, 0.4, 1.0], [0.0, 0.9, 1.0]), None, [])


def test_episodes_followed_at_once_are_calibrated_as_predictions_are(store, folder):
    model = CalibratedModel(load_reward_model(folder, "cpu"), BENT)
    episodes = [store[0], store[1]]
    expected = [model.predict(episode) for episode in episodes]
    streams = model.streams(2)
    potential = VideoPotential(model, 2)
    both = np.arange(2)
    for t in range(min(len(one) for one in expected)):
        frames = {key: np.stack([episode[key][t] for episode in episodes]) for key in model.cameras}
        if model.state_key is not None:
            frames[model.state_key] = np.stack([episode[model.state_key][t] for episode in episodes])
        progress, chances, spread = streams.step(frames, frames.get(model.state_key))
        for row, one in enumerate(expected):
            assert progress[row] == pytest.approx(one.progress[t], abs=1e-4)
            assert spread[row] == pytest.approx(one.uncertainty[t], abs=1e-4)
            np.testing.assert_allclose(chances[row], one.stage_probabilities[t], atol=1e-4)
        np.testing.assert_allclose(potential.score(frames, both), progress, atol=1e-6)
    streams.reset([1])
    assert streams.step({key: value[:0] for key, value in frames.items()}, None, [])[0].shape == (0,)


def test_a_calibrated_model_follows_many_episodes_only_where_the_one_inside_can(store):
    plain = CalibratedModel(BrightnessModel(provenance={}), BENT)
    assert capability(plain, StreamsMany) is None
    with pytest.raises(ModelError, match="one episode at a time"):
        plain.streams(2)
    potential = VideoPotential(plain, 1)
    dim = {key: np.full((1, 8, 8, 3), 100, np.uint8) for key in plain.cameras}
    assert potential.score(dim, np.arange(1))[0] > 0.5


def test_a_calibrated_ensemble_keeps_the_rule_it_was_calibrated_for(folder):
    members = [load_reward_model(folder, "cpu") for _ in range(2)]
    ensemble = EnsembleModel(members, EnsembleDescription(2, "worst", 0.0), members[0].provenance)
    with pytest.raises(ModelError, match="calibrated for its own rule"):
        with_rule(CalibratedModel(ensemble, BENT), "lcb", 2.0)


def test_without_failures_success_is_not_calibrated_and_said_to_be(store, folder, tmp_path):
    good = make_store(tmp_path / "good.zarr", episodes=4)
    done = calibrate(load_reward_model(folder, "cpu"), good, fraction=1.0)
    assert "success not calibrated" in done.summary
    model = CalibratedModel(load_reward_model(folder, "cpu"), done.calibration)
    with pytest.raises(ModelError, match="successes and failures"):
        model.success([0.5])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 9}, "newer robo-rm"),
        ({"version": 1}, "older robo-rm .* run robo-rm calibrate"),
        ({"temperature": -1}, "damaged"),
        ({"progress": [[0.5, 0.2], [0, 1]]}, "not monotone"),
        ({"weights_sha256": "0"}, "of another model"),
        ({"colour": "red"}, "damaged"),
    ],
)
def test_a_broken_calibration_is_named(folder, tmp_path, change, says):
    import shutil

    shutil.copytree(folder, tmp_path / "rm")
    write_calibration(tmp_path / "rm", Calibration(1.0, None, None, []))
    path = tmp_path / "rm" / CALIBRATION
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=says):
        load_reward_model(tmp_path / "rm")
    path.write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        load_reward_model(tmp_path / "rm")
