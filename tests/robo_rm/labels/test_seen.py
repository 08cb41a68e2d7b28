"""What a model knows is known by content: copies under other names are not evaluated as unseen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from brightness_model import BrightnessModel, make_bright_store
from moving_square import ENCODER, REWARD, make_store

from robo_core.errors import StoreError
from robo_datasets import DemoStore
from robo_rm.evaluation.calibrate import calibrate
from robo_rm.evaluation.evaluate import choose_episodes, evaluate_reward_model, left_out
from robo_rm.evaluation.leaderboard import common_episodes
from robo_rm.labels.training_overlap import CALIBRATED, STOPPED, TRAINED, TrainingOverlap, contents, training_overlap
from robo_rm.reward_models.calibration import CalibratedModel
from robo_rm.reward_models.registry import FitRequest
from robo_rm.reward_models.stage.model_type import StagePlan
from robo_rm.training.budget import Budget
from robo_rm.training.fit import Fit

KINDS = ("clean", "pause", "partial", "clean", "clean", "partial")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> DemoStore:
    return make_bright_store(tmp_path_factory.mktemp("a") / "demos.zarr", KINDS)


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> DemoStore:
    """The same episodes in another store: other names, and outcomes that somebody changed."""
    other = make_bright_store(tmp_path_factory.mktemp("b") / "copies.zarr", (*KINDS, "clean", "partial"))
    other.set_success(other.uuids[0], False)
    other.set_stages(other.uuids[1], np.zeros(other[1].length, np.int16))
    return DemoStore.open(other.path)


def model(store, **uuids) -> BrightnessModel:
    named = [uuid for part in uuids.values() for uuid in part]
    kept = contents(store, [store.episode(uuid) for uuid in named])
    return BrightnessModel(provenance={"priors": [1 / 3] * 3, **uuids, **kept})


def test_copies_in_another_store_are_left_out_and_said_to_be(store, copies):
    trained = model(store, train_uuids=store.uuids[:2], validation_uuids=store.uuids[2:3])
    chosen, words, overlaps = choose_episodes(trained, copies)
    assert chosen == copies.uuids[3:]
    assert not overlaps
    assert "5 episodes the model has not seen" in words
    assert "3 left out as copies, under other names" in words
    assert evaluate_reward_model(trained, copies, probes=0, resamples=20).scope == words
    everything = choose_episodes(trained, copies, "all")
    assert everything[2]
    assert "2 of them trained on, 1 of them chose its checkpoint, 3 as copies" in everything[1]


def test_each_part_is_known(store, copies):
    known = training_overlap(
        model(
            store,
            train_uuids=store.uuids[:1],
            validation_uuids=store.uuids[1:2],
            calibration_uuids=store.uuids[2:3],
        ).provenance,
        copies,
    )
    assert list(known.roles.values()) == [TRAINED, STOPPED, CALIBRATED]
    assert list(known.copies) == copies.uuids[:3]


def test_episodes_that_chose_the_checkpoint_do_not_evaluate_it(store):
    stopped = model(store, train_uuids=store.uuids[:2], validation_uuids=store.uuids[2:4])
    chosen, words, _ = choose_episodes(stopped, store)
    assert chosen == store.uuids[4:]
    assert "2 of them chose its checkpoint" in words
    assert common_episodes({"a": stopped, "b": model(store)}, store)[0] == store.uuids[4:]


def test_training_keeps_what_its_episodes_hold(tmp_path):
    store = make_store(tmp_path / "s.zarr", episodes=12, failures=4, frames=12)
    request = FitRequest(
        store, REWARD, tmp_path / "rm", encoder=ENCODER, budget=Budget(2, None), holdout=3, validation=4, device="cpu"
    )
    provenance = Fit(request, StagePlan).provenance
    assert set(provenance["contents"]) == {*provenance["train_uuids"], *provenance["validation_uuids"]}
    assert len(provenance["validation_uuids"]) == 4
    again = make_store(tmp_path / "again.zarr", episodes=13, failures=0, frames=12)
    known = training_overlap(provenance, again)
    places = {store.uuids.index(uuid) for uuid in provenance["contents"]}
    # Failures are other pictures than the successes that have their places in the second store.
    assert set(known.copies) == {again.uuids[place] for place in places if place < 8}


def test_an_adapted_model_knows_what_its_beginning_was_trained_on(store, copies):
    first = model(store, train_uuids=store.uuids[:2]).provenance
    adapted = {"priors": [1 / 3] * 3, "train_uuids": [], "init": {"folder": "rm", **first}}
    assert list(training_overlap(adapted, copies).copies) == copies.uuids[:2]


def test_a_model_that_kept_no_contents_is_known_by_its_episodes_in_the_store(store, tmp_path):
    twice = make_bright_store(tmp_path / "twice.zarr", KINDS[:2])
    old = BrightnessModel(provenance={"priors": [1 / 3] * 3, "train_uuids": twice.uuids[:1]})
    assert choose_episodes(old, twice)[0] == twice.uuids[1:]


def test_what_calibrated_it_is_known_in_another_store(store, copies):
    done = calibrate(model(store), store, fraction=0.5)
    calibrated = CalibratedModel(model(store), done.calibration)
    used = [store.uuids.index(uuid) for uuid in done.calibration.uuids]
    assert len(used) == 3
    assert choose_episodes(calibrated, copies)[0] == [u for n, u in enumerate(copies.uuids) if n not in used]


def test_an_episode_that_is_there_twice_is_evaluated_once(copies, tmp_path):
    import shutil

    shutil.copytree(copies.path, tmp_path / "twice.zarr")
    twice = DemoStore.open(tmp_path / "twice.zarr")
    first = twice[0]
    with twice.writer(task="place it", success=True) as writer:
        for t in range(first.length):
            writer.add({key: first[key][t] for key in twice.features}, timestamp=t / 10, stage=0)
    twice = DemoStore.open(twice.path)
    chosen, words, _ = choose_episodes(BrightnessModel(provenance={"priors": [1 / 3] * 3}), twice)
    assert len(chosen) == len(twice) - 1
    assert "1 there twice counted once" in words


def test_a_store_of_copies_alone_is_refused(store, tmp_path):
    same = make_bright_store(tmp_path / "same.zarr", KINDS)
    with pytest.raises(StoreError, match=r"6 as copies under other names.*holdout=8"):
        choose_episodes(model(store, train_uuids=store.uuids), same)
    with pytest.raises(StoreError, match="known to it otherwise"):
        common_episodes({"a": model(store, train_uuids=store.uuids), "b": model(store)}, same)


def test_nothing_is_known_of_other_episodes(store, tmp_path):
    other = make_bright_store(tmp_path / "other.zarr", KINDS, length=90)
    assert not training_overlap(model(store, train_uuids=store.uuids).provenance, other).roles
    assert replace(training_overlap({}, other), prints={}).roles == {}


def test_only_evaluated_episodes_count_as_looking_known():
    overlap = TrainingOverlap(roles={"a": TRAINED}, alike={"a": "x", "b": "y", "c": "z"})
    assert left_out(overlap, {}, ["c", "d"]).startswith(" (1 have states and actions of episodes that it knows")
    assert left_out(overlap, {}, ["d"]) == ""
