"""Copies of an episode are known by what they hold; what merely looks alike is not one."""

from __future__ import annotations

import numpy as np
import pytest

from robo_datasets import DemoStore
from robo_datasets.store.fingerprint import Known, fingerprint

CAMERA, STATE, ACTION = "observation.images.front", "observation.state", "action"


def write(path, episodes, **options):
    features = {
        CAMERA: {"shape": (16, 24, 3), "dtype": "uint8"},
        STATE: {"shape": (2,), "dtype": "float32"},
        ACTION: {"shape": (2,), "dtype": "float32"},
    }
    store = DemoStore.create(path, features=features, fps=10, stages=["a", "b"], **options)
    for number, (frames, numbers) in enumerate(episodes):
        with store.writer(task=f"task {number}", success=bool(number % 2)) as writer:
            for t, (frame, row) in enumerate(zip(frames, numbers, strict=True)):
                writer.add({CAMERA: frame, STATE: row[:2], ACTION: row[2:]}, timestamp=t / 10, stage=number % 2)
    return DemoStore.open(path)


def recording(seed, length=40):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (length, 16, 24, 3)).astype(np.uint8), rng.random((length, 4)).astype(np.float32)


def likeness(store, other):
    known = Known({uuid: fingerprint(store, uuid) for uuid in store.uuids})
    return [known.find(fingerprint(other, uuid)) for uuid in other.uuids]


@pytest.fixture
def store(tmp_path):
    return write(tmp_path / "a.zarr", [recording(seed) for seed in range(4)])


def test_copies_are_found_under_other_names_outcomes_and_stages(store, tmp_path):
    other = write(tmp_path / "b.zarr", [recording(seed) for seed in (9, 2, 1)])
    other.set_success(other.uuids[1], True)
    other.set_stages(other.uuids[1], np.ones(40, np.int16))
    fresh, second, first = likeness(store, other)
    assert fresh is None
    assert (second.name, second.images) == (store.uuids[2], True)
    assert (first.name, first.images) == (store.uuids[1], True)


@pytest.mark.parametrize("cut", [slice(0, 30), slice(13, 40), slice(10, 32)])
def test_a_copy_that_was_cut_is_found(store, tmp_path, cut):
    frames, numbers = recording(3)
    (found,) = likeness(store, write(tmp_path / "b.zarr", [(frames[cut], numbers[cut])]))
    assert (found.name, found.images) == (store.uuids[3], True)


def test_two_recordings_joined_are_found(store, tmp_path):
    (a, b), (c, d) = recording(0), recording(9)
    (found,) = likeness(store, write(tmp_path / "b.zarr", [(np.concatenate([c, a]), np.concatenate([d, b]))]))
    assert (found.name, found.images) == (store.uuids[0], True)


def test_the_same_numbers_under_encoded_again_images_are_told_apart_from_copies(store, tmp_path):
    again = write(tmp_path / "b.zarr", [recording(1)], quality=60)
    (found,) = likeness(store, again)
    assert (found.name, found.images) == (store.uuids[1], False)


def test_a_dead_camera_and_a_still_arm_make_no_copies(tmp_path):
    black, still = np.zeros((20, 16, 24, 3), np.uint8), np.ones((20, 4), np.float32)
    one = write(tmp_path / "a.zarr", [(black, still)])
    assert likeness(one, write(tmp_path / "b.zarr", [(black, still)])) == [None]
    (found,) = likeness(one, write(tmp_path / "c.zarr", [(black, recording(1, 20)[1])]))
    assert found is None


def test_a_common_beginning_makes_no_copy(store, tmp_path):
    # A simulator that starts every episode alike.
    frames, numbers = recording(9)
    frames[:6] = recording(0)[0][:6]
    assert likeness(store, write(tmp_path / "b.zarr", [(frames, numbers)])) == [None]


def test_images_that_come_again_with_other_motions_make_no_copy(store, tmp_path):
    frames, numbers = recording(9)
    frames[5:] = recording(0)[0][5:]
    assert likeness(store, write(tmp_path / "b.zarr", [(frames, numbers)])) == [None]


def test_short_episodes_are_known_whole(tmp_path):
    short = [recording(seed, length) for seed, length in ((0, 1), (1, 2), (2, 5))]
    store = write(tmp_path / "a.zarr", short)
    found = likeness(store, write(tmp_path / "b.zarr", short))
    assert [one.name for one in found] == store.uuids
