from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.factory import make_pre_post_processors

from robo_core.errors import ConfigError, ModelError, StoreError
from robo_datasets import DemoStore
from robo_policies import train_policy
from robo_policies.cloning.images import Pictures, pick_cameras, shifted
from robo_policies.cloning.settings import CloningSettings
from robo_policies.cloning.windows import Span, Windows, load_demonstrations, normalisation
from robo_rm.training.budget import Budget

FRONT, WRIST = "observation.images.front", "observation.images.wrist"
CLASSES = {"act": ACTPolicy, "diffusion": DiffusionPolicy}
FEW = CloningSettings(batch_size=4, precision="fp32")


@pytest.fixture(scope="module")
def demonstrations(picture_store):
    return load_demonstrations(picture_store)


def open_pictures(store, demonstrations, size=(36, 48), cache_gb=1.0):
    return Pictures(store, demonstrations.uuids, demonstrations.starts, {FRONT: size}, cache_gb)


def windows_of(demonstrations, pictures, span=None, shift=0):
    weights = np.ones(demonstrations.frames, np.float32)
    statistics = normalisation(demonstrations, weights, pictures)
    return Windows(demonstrations, weights, span or Span(3), statistics, "cpu", pictures, shift), statistics


def test_frames_come_by_their_number_over_all_episodes_kept_or_not(picture_store, demonstrations):
    numbers = np.array([0, 40, 3, 3, demonstrations.frames - 1])
    expected = []
    for number in numbers:
        episode = int(np.searchsorted(demonstrations.starts, number, side="right")) - 1
        place = number - demonstrations.starts[episode]
        expected.append(picture_store[episode].frames(FRONT, [int(place)], (36, 48))[0])
    for cache in (0.0, 1.0):
        pictures = open_pictures(picture_store, demonstrations, cache_gb=cache)
        for _ in range(2):
            np.testing.assert_array_equal(pictures.read(numbers)[FRONT], expected)


def test_a_picture_goes_with_the_state_of_its_frame(picture_store, demonstrations):
    pictures = open_pictures(picture_store, demonstrations)
    windows, statistics = windows_of(demonstrations, pictures)
    frames = np.array([5, 60, 61])
    batch = windows.gather(frames)
    colours = batch[FRONT] * torch.from_numpy(statistics[FRONT]["std"]) + torch.from_numpy(statistics[FRONT]["mean"])
    read = pictures.read(frames)[FRONT]
    np.testing.assert_allclose(colours.permute(0, 2, 3, 1).numpy() * 255, read, atol=1e-3)
    states = batch["observation.state"] * torch.from_numpy(statistics["observation.state"]["std"])
    states = states.numpy() + statistics["observation.state"]["mean"]
    np.testing.assert_allclose(states, demonstrations.arrays["observation.state"][frames], atol=1e-5)


def test_past_observations_stop_at_the_start_of_the_episode(picture_store, demonstrations):
    pictures = open_pictures(picture_store, demonstrations)
    windows, _ = windows_of(demonstrations, pictures, Span(4, past=2, stacked=True, bounded=True))
    second = int(demonstrations.starts[1])
    batch = windows.gather(np.array([second, second + 1, second + 5]))
    assert batch[FRONT].shape == (3, 3, 3, 36, 48)
    assert batch["action"].shape == (3, 6, 2)
    assert batch["action_is_pad"].tolist() == [[True, True, *[False] * 4], [True, *[False] * 5], [False] * 6]
    for key in (FRONT, "observation.state"):
        assert torch.equal(batch[key][0, 0], batch[key][0, 2])
        assert torch.equal(batch[key][1, 1], batch[key][0, 2])
        assert not torch.equal(batch[key][2, 1], batch[key][2, 2])
    assert float(batch["action"].abs().max()) <= 1 + 1e-6


def test_reading_ahead_gives_the_batches_that_reading_in_turn_gives(picture_store, demonstrations):
    windows, _ = windows_of(demonstrations, open_pictures(picture_store, demonstrations), shift=4)
    with ThreadPoolExecutor(1) as thread:
        drawn = [thread.submit(windows.draw, number, 5, 1) for number in range(2, 6)]
        for number, coming in enumerate(drawn, start=2):
            ahead, alone = windows.join(coming.result()), windows.batch(number, 5, seed=1)
            assert all(torch.equal(ahead[key], alone[key]) for key in alone)


def test_a_shift_moves_a_picture_and_repeats_its_border():
    frames = np.arange(2 * 2 * 6 * 7 * 3, dtype=np.uint8).reshape(2, 2, 6, 7, 3)
    np.testing.assert_array_equal(shifted(frames, 0, np.random.default_rng(0)), frames)
    moved, found = shifted(frames, 2, np.random.default_rng(0)), set()
    for sample in range(2):
        padded = np.pad(frames[sample], ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
        places = [(r, c) for r in range(5) for c in range(5)
                  if np.array_equal(padded[:, r : r + 6, c : c + 7], moved[sample])]  # fmt: skip
        assert len(places) == 1
        found.add(places[0])
    assert len(found) == 2


@pytest.mark.parametrize("kind", ["act", "diffusion"])
@pytest.mark.parametrize("cameras", [["front"], None])
def test_lerobot_loads_a_policy_with_cameras_and_gives_the_same_actions(
    picture_store, small_pictures, tmp_path, kind, cameras
):
    import dataclasses

    settings = dataclasses.replace(small_pictures[kind], cameras=cameras)
    trained = train_policy(picture_store, tmp_path / "policy", Budget(2), settings, training=FEW, holdout=2)
    policy = trained.policy
    assert policy.cameras == dict.fromkeys([FRONT] if cameras else [FRONT, WRIST], (64, 96))
    assert trained.metrics["holdout_action_l1"] > 0
    assert len(policy.card["store"]["held_out"]) == 2
    episode = picture_store[0]
    seen = {key: episode.frames(key, [0, 5], (64, 96)) for key in policy.cameras}
    seen["observation.state"] = episode["observation.state"][[0, 5]]
    noise = np.random.default_rng(0).normal(size=(2, 4, 2)).astype(np.float32) if kind == "diffusion" else None
    chunks = policy.act(seen, noise)

    theirs = CLASSES[kind].from_pretrained(policy.folder)
    pre, post = make_pre_post_processors(
        theirs.config, str(policy.folder), preprocessor_overrides={"device_processor": {"device": "cpu"}}
    )
    for index in range(2):
        one = {key: torch.from_numpy(value[index]) for key, value in seen.items()}
        one = {key: value.permute(2, 0, 1) / 255 if value.ndim == 3 else value for key, value in one.items()}
        theirs.reset()
        given = {} if noise is None else {"noise": torch.from_numpy(noise[index : index + 1])}
        for number in range(policy.execution_horizon):
            action = post(theirs.select_action(pre(dict(one)), **given))[0].numpy()
            np.testing.assert_allclose(chunks[index, number], action, atol=1e-5)


def test_a_picture_of_another_size_is_brought_to_the_size_trained_with(picture_store, small_pictures, tmp_path):
    trained = train_policy(picture_store, tmp_path / "policy", Budget(1), small_pictures["act"], training=FEW)
    episode = picture_store[0]
    state = episode["observation.state"][3]
    whole = {key: episode[key][3] for key in (FRONT, WRIST)}
    small = {key: episode.frames(key, [3], (64, 96))[0] for key in (FRONT, WRIST)}
    one = trained.policy.act({**whole, "observation.state": state})
    np.testing.assert_allclose(one, trained.policy.act({**small, "observation.state": state}), atol=0.02)
    with pytest.raises(ModelError, match=rf"needs the camera '{WRIST}'; the observation has"):
        trained.policy.act({FRONT: whole[FRONT], "observation.state": state})
    with pytest.raises(ModelError, match="takes uint8 RGB pictures"):
        trained.policy.act({**whole, FRONT: whole[FRONT] / 255, "observation.state": state})


def test_cameras_are_picked_by_what_the_store_holds(picture_store, point_store):
    assert pick_cameras(picture_store, None, None, False) == {FRONT: (72, 96), WRIST: (72, 96)}
    assert pick_cameras(picture_store, ["wrist"], [64, 80], False) == {WRIST: (64, 80)}
    assert pick_cameras(point_store, None, None, True) == {}
    with pytest.raises(StoreError, match=r"no camera 'top', .* it has front, wrist"):
        pick_cameras(picture_store, ["top"], None, False)
    with pytest.raises(StoreError, match=r"has no camera .front., .* it has none"):
        pick_cameras(point_store, ["front"], None, True)
    with pytest.raises(StoreError, match=r"neither observation\.environment_state nor a camera"):
        pick_cameras(picture_store, [], None, False)
    with pytest.raises(ConfigError, match="names a camera twice"):
        pick_cameras(picture_store, ["front", FRONT], None, False)


def test_a_camera_that_is_not_rgb_is_refused(tmp_path):
    features = {
        FRONT: {"shape": (8, 8, 1), "dtype": "uint16"},
        "observation.state": {"shape": (1,), "dtype": "float32"},
    }
    store = DemoStore.create(tmp_path / "depth.zarr", features, fps=10)
    with pytest.raises(StoreError, match="RGB pictures are needed"):
        pick_cameras(store, [FRONT], None, False)
    with pytest.raises(StoreError, match="nor a camera to look at"):
        pick_cameras(store, None, None, False)


def test_normalisation_of_colours_leaves_out_frames_of_weight_zero(picture_store, demonstrations):
    pictures = open_pictures(picture_store, demonstrations)
    weights = np.zeros(demonstrations.frames, np.float32)
    weights[7] = 1
    mean = normalisation(demonstrations, weights, pictures)[FRONT]["mean"]
    expected = pictures.read(np.array([7]))[FRONT].reshape(-1, 3).mean(0) / 255
    np.testing.assert_allclose(mean.ravel(), expected, atol=1e-6)
