"""Both pairs of heads: labels of the same frames, one set of weights, either head through the whole product."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from moving_square import CAMERA, ENCODER, HEIGHT, REWARD, STATE, WIDTH, arrays

from robo_core.errors import ConfigError, ModelError
from robo_datasets import DemoStore
from robo_rm.evaluation.evaluate import evaluate_reward_model
from robo_rm.labels.mismatch import nothing_done
from robo_rm.labels.plan import WindowShape, draw_windows, relabelled
from robo_rm.reward_models.baselines.frame_index import FrameIndexSettings
from robo_rm.reward_models.checker import check_reward_model
from robo_rm.reward_models.registry import FitRequest, reward_kind
from robo_rm.reward_models.saving import load_reward_model
from robo_rm.reward_models.stage.model_type import fit
from robo_rm.reward_models.stage.sparse import model_with_head, sparse_episodes, sparse_store
from robo_rm.scoring import score_progress
from robo_rm.settings import OptimiserSettings, PlanSettings
from robo_rm.training.budget import Budget
from robo_rm.training.data import frame_labels

STAGES = ["red, left", "red, middle", "blue"]
GROUPS = [[0, 1], [2]]
NAMES = ["red, left + red, middle", "blue"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    features = {
        CAMERA: {"shape": (HEIGHT, WIDTH, 3), "dtype": "uint8"},
        STATE: {"shape": (2,), "dtype": "float32"},
    }
    made = DemoStore.create(tmp_path_factory.mktemp("s") / "three.zarr", features=features, fps=10, stages=STAGES)
    for number in range(6):
        data = arrays(24 + number, number, until=0.3 if number == 5 else 1.0)
        place = data[STATE][:, 0]
        stage = np.where(data["stage"] == 1, 2, np.where(place < 0.2, 0, 1))
        with made.writer(task="move the square", success=number != 5) as writer:
            for t in range(len(stage)):
                frame = {CAMERA: data[CAMERA][t], STATE: data[STATE][t]}
                writer.add(frame, timestamp=t / 10, stage=int(stage[t]))
    return made


def request(store, folder, sparse, **changes) -> FitRequest:
    values = {
        "reward": replace(REWARD, sparse=sparse),
        "encoder": ENCODER,
        "optimiser": OptimiserSettings(batch=8, warmup=2),
        "budget": Budget(150, None),
        "holdout": 2,
        "device": "cpu",
    }
    return FitRequest(store=store, folder=folder, **{**values, **changes})


@pytest.fixture(scope="module")
def folder(store, tmp_path_factory):
    """A trained model with both pairs of heads."""
    where = tmp_path_factory.mktemp("rm") / "both"
    result = fit(request(store, where, GROUPS))
    assert result.losses[-1] == "sparse"
    first, last = (np.mean(rows, axis=0)[-1] for rows in (result.curve[:3], result.curve[-3:]))
    assert last < 0.8 * first, "the sparse pair learns"
    return where


def test_sparse_labels_are_of_the_same_frames_and_what_is_not_supervised_stays_so(store):
    view, episodes = sparse_store(store, GROUPS), list(store)
    dense = frame_labels(episodes, [0.2, 0.3, 0.5], {})
    sparse = frame_labels(sparse_episodes(view, episodes), [0.4, 0.6], {})
    rng = np.random.default_rng(0)
    windows = draw_windows(rng, dense, rng.integers(6, size=200), WindowShape(3, 4), PlanSettings())
    coarse = relabelled(windows, sparse)
    assert (coarse.frames == windows.frames).all()
    assert (coarse.supervised == windows.supervised).all()
    assert (coarse.stage == np.array([0, 0, 1])[windows.stage]).all(), "by the groups, frame by frame"
    for row, episode in enumerate(windows.episode):
        assert (coarse.progress[row] == sparse[episode].progress[windows.frames[row]]).all()
    told = coarse.complete & (coarse.stage == 0) & (coarse.within > 0)
    assert np.allclose(coarse.progress[told], 0.4 * coarse.within[told]), "even over the whole sparse stage"
    wrong = np.arange(200) % 2 == 0
    mended = nothing_done(coarse, wrong)
    assert (mended.progress[wrong] == 0).all()
    assert (mended.stage[wrong][coarse.supervised[wrong]] == 0).all()
    assert (mended.progress[~wrong] == coarse.progress[~wrong]).all()


def test_both_heads_keep_the_contract_and_share_the_weights(store, folder, tmp_path):
    model = load_reward_model(folder, "cpu")
    sparse = model.with_head("sparse")
    assert (model.stages, sparse.stages) == (STAGES, NAMES)
    assert sparse.network is model.network
    assert np.isclose(sparse.priors, [model.priors[:2].sum(), model.priors[2]]).all()
    for one in (model, sparse):
        check_reward_model(one, store[0], load=lambda where: load_reward_model(where, "cpu"))
    ours, theirs = model.predict(store[0]), sparse.predict(store[0])
    assert ours.stage_probabilities.shape[1] == 3
    assert theirs.stage_probabilities.shape[1] == 2
    assert not np.array_equal(ours.progress, theirs.progress)
    back = sparse.with_head("dense")
    assert np.array_equal(back.predict(store[0]).progress, ours.progress)
    assert back.provenance == {k: v for k, v in model.provenance.items() if k != "figures"}
    sparse.save(tmp_path / "sparse")
    kept = load_reward_model(tmp_path / "sparse", "cpu")
    assert kept.stages == NAMES
    assert np.array_equal(kept.predict(store[0]).progress, theirs.progress)
    assert "second head for: red, left; red, middle; blue" in (tmp_path / "sparse" / "card.md").read_text()


def test_either_head_is_judged_and_scored_on_its_own_stages(store, folder):
    model = load_reward_model(folder, "cpu")
    for head, names in (("dense", STAGES), ("sparse", NAMES)):
        shown = model_with_head(model, head)
        evaluation = evaluate_reward_model(shown, store, which="all", resamples=10, probes=1)
        assert evaluation.stages == names
        assert max(episode.stage.max() for episode in evaluation.episodes) == len(names) - 1
        scores = score_progress(shown, "model", store)
        assert scores.read(store[0].uuid)["stage_probabilities"].shape == (store[0].length, len(names))
    assert model_with_head(model, None) is model


def test_a_folder_of_before_has_one_head(store, tmp_path):
    fit(request(store, tmp_path / "one", None, budget=Budget(2, None)))
    path = tmp_path / "one" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for key in ("sparse", "head"):
        del config["model"][key]
    del config["model"]["reward"]["sparse"]
    path.write_text(yaml.safe_dump(config))
    model = load_reward_model(tmp_path / "one", "cpu")
    assert model.stages == STAGES
    with pytest.raises(ModelError, match=r"no head 'sparse'.*reward\.sparse"):
        model_with_head(model, "sparse")
    with pytest.raises(ConfigError, match="dense or sparse"):
        model_with_head(model, "coarse")


def test_settings_that_make_no_sense_are_refused_before_anything_is_written(store, tmp_path):
    with pytest.raises(ConfigError, match=r"reward\.sparse=.* must list the store's stages.*0 'red, left'"):
        fit(request(store, tmp_path / "rm", [[0], [2]]))
    with pytest.raises(ConfigError, match="stage_groups, to train on coarser stages alone"):
        fit(request(store, tmp_path / "rm", [[0], [1]], stage_groups=GROUPS))
    settings = FrameIndexSettings(sparse=GROUPS)
    with pytest.raises(ConfigError, match="knows one stage only"):
        reward_kind("frame_index").fit(request(store, tmp_path / "rm", None, reward=settings))
    assert not (tmp_path / "rm").exists()


def test_the_dense_head_begins_the_same_with_and_without_a_second_one(store, tmp_path):
    from robo_rm.reward_models.stage.model_type import describe

    networks = []
    for sparse in (None, GROUPS):
        torch.manual_seed(0)
        networks.append(describe(request(store, tmp_path, sparse), list(store)).network().state_dict())
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())
