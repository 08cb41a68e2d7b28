from __future__ import annotations

import shutil

import numpy as np
import pytest

from robo_core.errors import ConfigError, StoreError
from robo_datasets import DemoStore
from robo_policies.cloning.sample_weights import sample_weights
from robo_policies.cloning.settings import WeightSettings
from robo_policies.cloning.windows import load_demonstrations
from robo_rm.scoring import model_hash, score_weights
from robo_rm.weights.options import Calibration

RABC = WeightSettings(mode="rabc")


def write(store, weight_of, uuids=None, provenance=None):
    derived = store.derive("weights", provenance=provenance or {"mode": "paper", "horizon": 5})
    for uuid in uuids or store.uuids:
        derived.write(uuid, {"weight": weight_of(store.episode(uuid))})


def read(store, settings=RABC):
    return sample_weights(store, load_demonstrations(store), settings)


def test_none_weighs_every_frame_alike(point_store):
    weights = read(point_store, WeightSettings())
    assert (weights.values == 1).all()
    assert weights.effective_samples == pytest.approx(len(weights.values))


def test_success_only_drops_failures(new_store):
    store = new_store(good=2, bad=2)
    lengths = [episode.length for episode in store]
    expected = np.repeat([float(episode.success is True) for episode in store], lengths)
    assert 0 < expected.sum() < len(expected)
    np.testing.assert_array_equal(read(store, WeightSettings("success_only")).values, expected)


def test_success_only_without_a_success_is_refused(new_store):
    store = new_store(good=0, bad=1)
    with pytest.raises(StoreError, match="no episode is marked a success"):
        read(store, WeightSettings("success_only"))


def test_rabc_reads_the_weights_of_each_episode_with_their_provenance(new_store):
    store = new_store(good=3)
    write(store, lambda episode: np.linspace(0, 1, episode.length, dtype=np.float32))
    weights = read(store)
    expected = [np.linspace(0, 1, episode.length, dtype=np.float32) for episode in store]
    np.testing.assert_array_equal(weights.values, np.concatenate(expected))
    assert weights.provenance["derived"] == {"mode": "paper", "horizon": 5}
    assert weights.effective_samples < len(weights.values)


def test_missing_weights_name_the_command_that_makes_them(new_store):
    with pytest.raises(StoreError, match="robo-rm score"):
        read(new_store(good=1))


def test_weights_of_another_store_are_refused(new_store):
    one, other = new_store(good=2, name="one.zarr"), new_store(good=2, name="other.zarr")
    write(one, lambda episode: np.ones(episode.length, np.float32))
    shutil.copytree(one.path / "derived", other.path / "derived", dirs_exist_ok=True)
    with pytest.raises(StoreError, match="another store"):
        read(DemoStore.open(other.path))


def test_weights_that_lack_an_episode_are_refused(new_store):
    store = new_store(good=3)
    write(store, lambda episode: np.ones(episode.length, np.float32), uuids=store.uuids[:2])
    with pytest.raises(StoreError, match=f"1 of 3 episodes have no 'weights', the first is {store.uuids[2]}"):
        read(store)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1])
def test_a_weight_that_cannot_be_names_episode_and_frame(new_store, bad):
    store = new_store(good=1)

    def weight(episode):
        values = np.ones(episode.length, np.float32)
        values[2] = bad
        return values

    write(store, weight)
    with pytest.raises(StoreError, match=f"{store.uuids[0]}, frame 2"):
        read(store)


def test_weights_that_are_all_zero_are_refused(new_store):
    store = new_store(good=1)
    write(store, lambda episode: np.zeros(episode.length, np.float32))
    with pytest.raises(StoreError, match="are zero"):
        read(store)


def scored(store, **options):
    """Weights from progress that a stranger's feature holds, as robo-rm score makes them."""
    progress = {uuid: np.linspace(0, 1, store.lengths[uuid], dtype=np.float32) for uuid in store.uuids}
    source = {"source": "feature", "key": "observation.environment_state"}
    settings = {"mode": "calibrated", "horizon": 3, "kappa": 0.01, "calibration": Calibration(), **options}
    return score_weights(store, progress, source, **settings)


def test_weights_that_are_still_of_the_store_are_read(new_store):
    store = new_store(good=3, bad=1)
    scored(store)
    assert read(DemoStore.open(store.path)).values.max() == 1


@pytest.mark.parametrize("edit", ["outcome", "stages", "removed", "added"])
def test_weights_made_before_an_edit_are_refused_with_the_command_that_makes_them_again(new_store, edit):
    store = new_store(good=3, bad=1)
    scored(store, calibration=Calibration(dead_zone=0.5))
    uuid = store.uuids[0]
    if edit == "outcome":
        store.set_success(uuid, False)
    elif edit == "stages":
        store.name_stages(["reach"]) if not store.stages else None
        store.set_stages(uuid, np.zeros(store.lengths[uuid], np.int16))
    elif edit == "removed":
        store.remove([uuid])
    else:
        source = store.episode(uuid)
        with store.writer(task="again", success=True) as writer:
            writer.extend({key: source[key][:] for key in store.features})
    with pytest.raises(StoreError) as refused:
        read(DemoStore.open(store.path))
    said = {"outcome": f"the outcome of 1 episode(s) changed, the first {uuid}", "stages": "the stage labels of 1",
            "removed": "1 episode(s) were removed", "added": "1 episode(s) were added"}[edit]  # fmt: skip
    assert said in str(refused.value)
    assert "robo-rm score progress_key=observation.environment_state" in str(refused.value)
    assert "horizon=3 calibration.dead_zone=0.5" in str(refused.value)


def test_an_edit_that_was_taken_back_changes_nothing(new_store):
    store = new_store(good=2)
    scored(store)
    store.set_success(store.uuids[0], False)
    store.set_success(store.uuids[0], True)
    read(DemoStore.open(store.path))


def test_weights_of_a_model_that_was_trained_again_are_refused(new_store, tmp_path):
    store = new_store(good=2)
    (tmp_path / "rm").mkdir()
    (tmp_path / "rm" / "config.yaml").write_text("a: 1\n")
    model = {"folder": str(tmp_path / "rm"), "head": None, "sha256": model_hash(tmp_path / "rm")}
    scored(store, model=model)
    read(store)
    (tmp_path / "rm" / "config.yaml").write_text("a: 2\n")
    with pytest.raises(StoreError, match=r"the model in .*rm was trained or calibrated again"):
        read(store)
    shutil.rmtree(tmp_path / "rm")
    read(store)


def test_asked_to_it_scores_again(new_store, monkeypatch):
    store = new_store(good=3)
    progress = {uuid: np.linspace(0, 1, store.lengths[uuid], dtype=np.float32) for uuid in store.uuids}
    monkeypatch.setattr("robo_rm.scoring.progress_from_feature", lambda *_: progress)
    scored(store, horizon=4)
    store.set_success(store.uuids[1], False)
    weights = read(DemoStore.open(store.path), WeightSettings("rabc", rescore=True))
    assert weights.provenance["derived"]["horizon"] == 4
    failed = np.repeat([n == 1 for n in range(3)], [store.lengths[uuid] for uuid in store.uuids])
    assert weights.values[failed].max() == 0
    assert weights.values[~failed].max() == 1
    read(DemoStore.open(store.path))


def test_an_unknown_mode_is_refused(point_store):
    with pytest.raises(ConfigError, match="choose one of none, rabc, success_only"):
        read(point_store, WeightSettings("rapc"))
