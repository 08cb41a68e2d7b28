"""What the baselines train on: a frame keeps its own label under any augmentation; nothing comes from held-out ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moving_square import CAMERA, ENCODER, STATE, make_store

from robo_datasets import DemoStore
from robo_rm.labels.split import split_episodes
from robo_rm.reward_models.baselines import goal_distance, success
from robo_rm.reward_models.baselines.episodes import demonstrations
from robo_rm.reward_models.baselines.frame_index import FrameIndexPlan
from robo_rm.reward_models.registry import FitRequest, reward_kind
from robo_rm.settings import ImageAugmentation, OptimiserSettings

PLANS = {"goal_distance": goal_distance.plan, "success": success.plan}
FRAME_INDEX = {"history": 3, "gap_seconds": 0.4, "width": 16, "layers": 1, "heads": 2, "instruction_mismatch": 0.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("stores") / "square.zarr", episodes=10, failures=4)


def request_of(store, folder, name, **reward) -> FitRequest:
    return FitRequest(
        store=store,
        reward=reward_kind(name).settings(**reward),
        folder=folder,
        encoder=ENCODER,
        optimiser=OptimiserSettings(batch=5),
        device="cpu",
    )


@pytest.fixture(scope="module", params=PLANS)
def trainers(request, store, tmp_path_factory):
    """The same draws without and with changes of appearance."""
    folder, name = tmp_path_factory.mktemp("rm"), request.param
    plain = request_of(store, folder, name, width=8, augmentation=ImageAugmentation(0, 0, 0, 0, 0, 0, 0))
    changed = request_of(store, folder, name, width=8)
    return [PLANS[name](asked, list(store)).objective("cpu") for asked in (plain, changed)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step=st.integers(0, 500))
def test_images_and_states_are_those_of_the_frames_that_are_labelled(trainers, store, step):
    plain, changed = (trainer.batch(step) for trainer in trainers)
    assert np.array_equal(plain.frames, changed.frames)
    assert np.array_equal(plain.episode, changed.episode)
    assert np.array_equal(plain.state, changed.state)
    episodes = list(store)
    images = plain.images[CAMERA].reshape(*plain.frames.shape, 24, 32, 3)
    state = plain.state.reshape(*plain.frames.shape, 2)
    for row, number in enumerate(plain.episode):
        frames = plain.frames[row]
        assert (frames < episodes[number].length).all()
        assert np.array_equal(state[row], episodes[number][STATE][:][frames])
        assert np.array_equal(images[row], np.stack([episodes[number][CAMERA][int(f)] for f in frames]))


@settings(max_examples=25, deadline=None)
@given(step=st.integers(0, 500))
def test_no_frame_of_a_failure_is_ever_positive(step):
    trainer = SUCCESS["trainer"]
    batch = trainer.batch(step)
    truth = trainer._truth(batch.episode, batch.frames)
    good = np.array([trainer.data.success[number] is True for number in batch.episode])
    assert not truth[~good].any()
    late = batch.frames >= (trainer.data.lengths[batch.episode] - trainer._end)[:, None]
    assert np.array_equal(truth[good], late[good])


SUCCESS: dict = {}


@pytest.fixture(autouse=True, scope="module")
def success_trainer(store, tmp_path_factory):
    asked = request_of(store, tmp_path_factory.mktemp("rm"), "success", width=8)
    SUCCESS["trainer"] = success.plan(asked, list(store)).objective("cpu")
    yield
    SUCCESS.clear()


def test_frame_index_labels_are_the_share_of_time_of_the_frame_shown(store, tmp_path):
    plan = FrameIndexPlan(request_of(store, tmp_path, "frame_index", **FRAME_INDEX), demonstrations(list(store)))
    trainer = plan.objective("cpu")
    lengths = [episode.length for episode in demonstrations(list(store))]
    turned = 0
    for step in range(40):
        windows = trainer.batch(step).windows
        expected = windows.frames / np.array([lengths[e] for e in windows.episode])[:, None]
        shown = windows.supervised
        assert windows.progress[shown] == pytest.approx(expected[shown], abs=1e-6)
        turned += int((np.diff(windows.frames[:, 1:], axis=1) < 0).any(axis=1).sum())
    assert turned > 10


@pytest.mark.parametrize("name", ["frame_index", "goal_distance", "success"])
def test_priors_come_from_the_training_split_only(name, tmp_path):
    store = make_store(tmp_path / "s.zarr", episodes=6, frames=10, failures=1)
    plans = {**PLANS, "frame_index": FrameIndexPlan}
    reward = FRAME_INDEX if name == "frame_index" else {}

    def priors(opened):
        train, held = split_episodes(list(opened), 2, seed=0)
        return plans[name](request_of(opened, tmp_path, name, **reward), train).provenance["priors"], train, held

    before, train, held = priors(store)
    for episode in held:
        store.set_stages(episode.uuid, np.zeros(episode.length, dtype=np.int16))
    assert priors(DemoStore.open(store.path))[0] == before
    good = next(episode for episode in train if episode.success)
    store.set_stages(good.uuid, np.zeros(good.length, dtype=np.int16))
    assert priors(DemoStore.open(store.path))[0] != before
