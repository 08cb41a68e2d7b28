"""HDF5 files of one episode each (ALOHA, RoboTwin), and images that stand in HDF5 as JPEG or PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from small_demos import smooth_frames

ENV = '{"env_name": "Lift", "env_kwargs": {"control_freq": 20}}'


def encoded(frames: np.ndarray, ending: str) -> list[np.ndarray]:
    """Frames, RGB, as files of their own."""
    return [cv2.imencode(ending, frame[..., ::-1])[1].ravel() for frame in frames]


def put(group: h5py.Group, name: str, frames: np.ndarray, how: str) -> None:
    """Frames as pixels, or encoded: filled up to one length, of their own lengths, or as strings of bytes."""
    if how == "pixels":
        group[name] = frames
        return
    files = encoded(frames, ".png" if how == "png" else ".jpg")
    longest = max(map(len, files))
    if how == "lengths":
        array = group.create_dataset(name, (len(files),), dtype=h5py.vlen_dtype(np.uint8))
        for row, data in enumerate(files):
            array[row] = data
    elif how == "strings":
        group[name] = np.array([data.tobytes() for data in files], f"S{longest + 5}")
    else:
        group[name] = np.stack([np.pad(data, (0, longest + 7 - len(data))) for data in files])


def aloha(path: Path, length: int, seed: int, how: str = "jpeg", attrs: Mapping[str, Any] | None = None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    frames = smooth_frames(length, 48, 64, seed)
    path.parent.mkdir(exist_ok=True, parents=True)
    with h5py.File(path, "w") as file:
        file["action"] = rng.normal(size=(length, 14))
        file["observations/qpos"] = rng.normal(size=(length, 14))
        file["observations/qvel"] = rng.normal(size=(length, 14))
        put(file.create_group("observations/images"), "cam_high", frames, how)
        file["compress_len"] = np.ones((1, length + 2))
        file.attrs["sim"] = False
        for key, value in (attrs or {}).items():
            file.attrs[key] = value
    return frames


@pytest.mark.parametrize("how", ["pixels", "jpeg", "png", "lengths", "strings"])
def test_a_folder_of_episodes_goes_in_however_its_images_stand(tmp_path, bring_in, how):
    frames = [aloha(tmp_path / f"aloha/episode_{n}.hdf5", 6 + n, n, how, {"instruction": "slide"}) for n in (0, 10, 2)]
    store, text = bring_in(tmp_path / "aloha", "fps=50")
    assert [episode.attributes["file"] for episode in store] == [f"episode_{n}.hdf5" for n in (0, 2, 10)]
    assert [len(episode) for episode in store] == [6, 8, 16]
    assert store.fps == 50
    assert store[0].task == "slide"
    assert store[0].success is None
    with h5py.File(tmp_path / "aloha/episode_2.hdf5") as file:
        assert np.array_equal(store[1]["action"][:], file["action"][:])
        assert np.array_equal(store[1]["observation.state"][:], file["observations/qpos"][:])
        assert np.array_equal(store[1]["observation.qvel"][:], file["observations/qvel"][:])
    there = store[1]["observation.images.cam_high"][:].astype(int)
    assert np.abs(there - frames[2]).max() <= (0 if how in ("pixels", "png") else 40)
    assert np.abs(there - frames[2]).mean() < 4 < np.abs(there - frames[2][..., ::-1]).mean()
    assert ("colours=bgr" in text) == (how != "pixels")
    assert "compress_len" not in store.features
    _, text = bring_in(tmp_path / "aloha", "fps=50")
    assert "0 episodes, 0 frames added" in text
    assert "3 were there already" in text


def test_colours_of_encoded_images_may_be_swapped(tmp_path, bring_in):
    frames = aloha(tmp_path / "e.hdf5", 5, 0, "png")
    store, text = bring_in(tmp_path / "e.hdf5", "fps=50", "colours=bgr")
    assert np.array_equal(store[0]["observation.images.cam_high"][:], frames[..., ::-1])
    assert "colours=bgr" not in text


def test_robotwin_episodes_go_in(tmp_path, bring_in):
    frames = smooth_frames(5, 48, 64, 1)
    with h5py.File(tmp_path / "episode0.hdf5", "w") as file:
        file["joint_action/vector"] = np.ones((5, 14))
        file["joint_action/left_arm"] = np.ones((5, 6))
        file["endpose/left_endpose"] = np.ones((5, 7))
        put(file.create_group("observation/head_camera"), "rgb", frames, "strings")
        file["observation/head_camera/intrinsic_cv"] = np.ones((5, 3, 3))
        file["pointcloud"] = np.zeros((5, 0))
    store, _ = bring_in(tmp_path / "episode0.hdf5", "fps=15", "task=stack", "drop=[pointcloud]")
    assert set(store.features) == {
        "action",
        "action.joint_action.left_arm",
        "observation.endpose.left_endpose",
        "observation.images.head_camera",
        "observation.head_camera.intrinsic_cv",
    }
    assert store.features["observation.images.head_camera"]["shape"] == (48, 64, 3)


def test_faults_of_episode_files_are_one_line(tmp_path, bring_in):
    for number in range(3):
        aloha(tmp_path / f"a/episode_{number}.hdf5", 6, number)
    assert "fps=50" in bring_in(tmp_path / "a")[1]
    with h5py.File(tmp_path / "a/episode_1.hdf5", "a") as file:
        rows = file["observations/images/cam_high"][:]
        rows[3] = 0
        file["observations/images/cam_high"][:] = rows
    _, text = bring_in(tmp_path / "a", "fps=50")
    assert "episode_1.hdf5" in text
    assert "cam_high, frame 3" in text
    (tmp_path / "a/episode_2.hdf5").write_bytes(b"cut")
    store, text = bring_in(tmp_path / "a", "fps=50", "skip_bad=true")
    assert len(store) == 1
    assert text.count("was left out") == 2
    (tmp_path / "empty").mkdir()
    assert "holds no .hdf5 file" in bring_in(tmp_path / "empty", "fps=50", name="e.zarr")[1]
    assert "mask= and state=" in bring_in(tmp_path / "a", "fps=50", "mask=train", name="m.zarr")[1]


def demonstrations(path: Path, observations: Mapping[str, Any], how: str = "pixels") -> Path:
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = ENV
        for number in range(2):
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = np.full((5 + number, 7), float(number))
            for key, make in observations.items():
                put(demo.require_group("obs"), key, make(5 + number), how)
    return path


@pytest.mark.parametrize("how", ["jpeg", "lengths", "strings"])
def test_encoded_images_of_demonstrations_become_cameras(tmp_path, bring_in, how):
    source = demonstrations(tmp_path / "d.hdf5", {"agentview_image": lambda n: smooth_frames(n, 48, 64, n)}, how)
    store, _ = bring_in(source)
    assert set(store.features) == {"action", "observation.images.agentview"}
    assert np.abs(store[1]["observation.images.agentview"][:].astype(int) - smooth_frames(6, 48, 64, 6)).mean() < 4


def test_grey_transparent_and_flat_depth_pictures_are_images(tmp_path, bring_in):
    source = demonstrations(
        tmp_path / "d.hdf5",
        {
            "grey_image": lambda n: smooth_frames(n, 48, 64, n)[..., 0],
            "table_rgb": lambda n: np.concatenate(
                [smooth_frames(n, 48, 64, n), np.full((n, 48, 64, 1), 255, "u1")], -1
            ),
            "wrist_depth": lambda n: np.where(np.eye(48, 64) > 0, np.inf, 1.5).astype("f4")[None].repeat(n, 0),
        },
    )
    store, text = bring_in(source)
    kinds = {key: (entry["dtype"], entry["shape"]) for key, entry in store.features.items()}
    assert kinds["observation.images.grey"] == ("uint8", (48, 64, 1))
    assert kinds["observation.images.table"] == ("uint8", (48, 64, 3))
    assert kinds["observation.images.wrist_depth"] == ("uint16", (48, 64, 1))
    assert np.array_equal(store[0]["observation.images.table"][:], smooth_frames(5, 48, 64, 5))
    assert "the fourth was left out" in text
    assert "without a channel axis" in text
    assert set(np.unique(store[0]["observation.images.wrist_depth"][:])) == {0, 1500}


def test_a_folder_of_demonstration_files_is_said(tmp_path, bring_in):
    (tmp_path / "f").mkdir()
    demonstrations(tmp_path / "f/a.hdf5", {})
    _, text = bring_in(tmp_path / "f", name="none.zarr")
    assert "is a folder; give one of its 1 files as source=, for example a.hdf5" in text
