"""robomimic HDF5 files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from small_demos import smooth_frames

from robo_datasets import DemoStore

AGENT = "observation.images.agentview"
LENGTHS = {"demo_0": 8, "demo_2": 5, "demo_10": 70}
ENV = {"env_name": "Lift", "env_kwargs": {"control_freq": 20, "robots": ["Panda"], "reward_shaping": False}}


def demo_arrays(length: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    rewards = np.zeros(length)
    rewards[-1] = seed != 1
    return {
        "obs/agentview_image": smooth_frames(length, 24, 32, seed),
        "obs/robot0_eef_pos": rng.normal(size=(length, 3)),
        "obs/robot0_eef_quat": rng.normal(size=(length, 4)),
        "obs/robot0_gripper_qpos": rng.normal(size=(length, 2)),
        "obs/object": rng.normal(size=(length, 10)),
        "obs/robot0_joint_vel": rng.normal(size=(length, 7)).astype(np.float32),
        "actions": rng.normal(size=(length, 7)),
        "states": rng.normal(size=(length, 32)),
        "rewards": rewards,
        "dones": (np.arange(length) == length - 1).astype(np.int64),
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "lift.hdf5"
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps(ENV)
        for seed, (name, length) in enumerate(LENGTHS.items()):
            for key, rows in demo_arrays(length, seed).items():
                packed = {"compression": "gzip", "chunks": (min(4, length), *rows.shape[1:])} if "image" in key else {}
                file.create_dataset(f"data/{name}/{key}", data=rows, **packed)
        file["mask/train"] = np.array([b"demo_0", b"demo_10"])
        file["mask/valid"] = np.array([b"demo_2"])
    return path


def bring_in(run_command: Any, source: Path, store: Path, *more: str) -> DemoStore:
    code, _, err = run_command("import", "robomimic", f"source={source}", f"store={store}", "workers=0", *more)
    assert code == 0, err
    return DemoStore.open(store)


def test_everything_arrives_to_the_last_bit(source, tmp_path, run_command):
    store = bring_in(run_command, source, tmp_path / "d.zarr", "codec=lossless")
    assert (store.fps, store.robot, len(store)) == (20, "Panda", 3)
    for seed, (episode, name) in enumerate(zip(store, LENGTHS, strict=True)):
        wanted = demo_arrays(LENGTHS[name], seed)
        assert episode.attributes["demo"] == name
        assert episode.attributes["masks"] == (["valid"] if name == "demo_2" else ["train"])
        assert (episode.task, episode.success) == ("Lift", seed != 1)
        pairs = {
            AGENT: "obs/agentview_image",
            "observation.environment_state": "obs/object",
            "observation.robot0_joint_vel": "obs/robot0_joint_vel",
            "action": "actions",
            "simulator.state": "states",
            "next.reward": "rewards",
            "next.done": "dones",
        }
        for feature, key in pairs.items():
            assert episode[feature][:].tobytes() == wanted[key].tobytes(), feature
        parts = ("obs/robot0_eef_pos", "obs/robot0_eef_quat", "obs/robot0_gripper_qpos")
        joined = np.concatenate([wanted[key] for key in parts], 1)
        assert episode["observation.state"][:].tobytes() == joined.tobytes()
        np.testing.assert_allclose(episode.timestamp, np.arange(episode.length) / 20)
    assert store.schema["observation.state"].names[3] == "robot0_eef_quat.0"


def test_split_state_camera_size_and_rate_may_be_chosen(source, tmp_path, run_command):
    store = bring_in(
        run_command,
        source,
        tmp_path / "d.zarr",
        "mask=valid",
        "state=[object]",
        "size=[12,16]",
        "fps=10",
        "task=lift it",
    )
    assert (len(store), store.fps, store[0].task) == (1, 10, "lift it")
    assert store[0]["observation.state"].shape == (5, 10)
    assert store[0][AGENT].shape == (5, 12, 16, 3)
    none = bring_in(run_command, source, tmp_path / "e.zarr", "cameras=[]")
    assert none.cameras == []


def test_two_processes_import_the_same(source, tmp_path, run_command):
    one = bring_in(run_command, source, tmp_path / "a.zarr")
    code, _, err = run_command("import", "robomimic", f"source={source}", f"store={tmp_path / 'b.zarr'}", "workers=2")
    assert code == 0, err
    for first, second in zip(one, DemoStore.open(tmp_path / "b.zarr"), strict=True):
        assert first.uuid == second.uuid
        assert first["action"][:].tobytes() == second["action"][:].tobytes()


def edit(change: Callable[[h5py.File], Any]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "a") as file:
            change(file)

    return apply


def swap(file: h5py.File, key: str, **settings: Any) -> None:
    del file[key]
    file.create_dataset(key, **settings)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_images(path: Path) -> None:
    with h5py.File(path, "r") as file:
        chunk = file["data/demo_10/obs/agentview_image"].id.get_chunk_info(5)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + 20 : chunk.byte_offset + 120] = bytes(100)
    path.write_bytes(data)


def link_out(file: h5py.File) -> None:
    del file["data/demo_2/actions"]
    file["data/demo_2/actions"] = h5py.ExternalLink("/etc/passwd", "x")


def data_elsewhere(file: h5py.File) -> None:
    del file["data/demo_2/actions"]
    file.create_dataset("data/demo_2/actions", (5, 7), "f8", external=[("/etc/passwd", 0, 280)])


def virtual(file: h5py.File) -> None:
    del file["data/demo_2/actions"]
    layout = h5py.VirtualLayout((5, 7), "f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (5, 7))
    file.create_virtual_dataset("data/demo_2/actions", layout)


def loop(file: h5py.File) -> None:
    del file["data/demo_2/obs"]
    file["data/demo_2/obs"] = h5py.SoftLink("/data/demo_2/obs")


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda p: p.unlink(), "there is no file"),
    "empty": (lambda p: p.write_bytes(b""), "is empty (0 bytes)"),
    "truncated": (truncate, "truncated or not an HDF5 file"),
    "no data": (edit(lambda f: f.__delitem__("data")), "it has no data/demo_N"),
    "no demonstrations": (
        edit(lambda f: (f.__delitem__("data"), f.create_group("data"))),
        "frames per second",
    ),
    "no actions": (edit(lambda f: f.__delitem__("data/demo_0/actions")), "has no actions"),
    "an array missing later": (edit(lambda f: f.__delitem__("data/demo_2/states")), "/data/demo_2 has no states"),
    "other width later": (
        edit(lambda f: swap(f, "data/demo_2/states", data=np.zeros((5, 31)))),
        "/data/demo_2/states is (5, 31)",
    ),
    "other length": (edit(lambda f: swap(f, "data/demo_2/states", data=np.zeros((4, 32)))), "(4, 32)"),
    "empty demonstration": (edit(lambda f: swap(f, "data/demo_2/actions", shape=(0, 7), dtype="f8")), "no frames"),
    "huge shape": (
        edit(lambda f: swap(f, "data/demo_2/actions", shape=(10**14, 7), dtype="f8", chunks=(100, 7))),
        "the file holds 0 bytes of it",
    ),
    "objects": (
        edit(lambda f: swap(f, "data/demo_0/actions", data=np.array(["a"] * 8, object), dtype=h5py.string_dtype())),
        "only numbers are read",
    ),
    "structures": (
        edit(lambda f: swap(f, "data/demo_0/actions", data=np.zeros(8, [("a", "f4")]))),
        "only numbers are read",
    ),
    "a group in place of an array": (
        edit(lambda f: (f.__delitem__("data/demo_2/states"), f.create_group("data/demo_2/states"))),
        "is not an array",
    ),
    "link to another file": (edit(link_out), "a link to elsewhere"),
    "data in another file": (edit(data_elsewhere), "keeps its data in other files"),
    "virtual data": (edit(virtual), "keeps its data in other files"),
    "link in a circle": (edit(loop), "a link to elsewhere"),
    "no JSON": (edit(lambda f: f["data"].attrs.__setitem__("env_args", "{")), "env_args of data is not JSON"),
    "damaged images": (spoil_images, "/data/demo_10/obs/agentview_image is damaged"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_clear_line_and_nothing_is_left(source, tmp_path, run_command, fault):
    damage, words = FAULTS[fault]
    damage(source)
    code, _, err = run_command("import", "robomimic", f"source={source}", f"store={tmp_path / 'd.zarr'}", "workers=0")
    lines = [line for line in err.strip().splitlines() if "robo-rm" in line]
    assert (code, len(lines), words in lines[-1] if lines else False) == (2, 1, True), err
    assert not (tmp_path / "d.zarr").exists()


def test_a_split_or_camera_that_is_not_there_is_named(source, tmp_path, run_command):
    for setting, words in (("mask=test", "no mask 'test'"), ("cameras=[wrist]", "wrist"), ("state=[x]", "obs/x")):
        code, _, err = run_command("import", "robomimic", f"source={source}", f"store={tmp_path / 'd.zarr'}", setting)
        assert (code, words in err) == (2, True), err


def test_a_shaped_reward_says_nothing_about_success(source, tmp_path, run_command):
    shaped = {**ENV, "env_kwargs": {**ENV["env_kwargs"], "reward_shaping": True}}
    edit(lambda f: f["data"].attrs.__setitem__("env_args", json.dumps(shaped)))(source)
    store = bring_in(run_command, source, tmp_path / "d.zarr", "success=unknown")
    assert [episode.success for episode in store] == [None] * 3


def write_as_robomimic_does(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """A file with all that robomimic's extraction script writes: more groups, attributes and splits than are read."""
    written = {}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for seed in range(3):
            arrays = demo_arrays(6 + seed, seed)
            arrays["actions_abs"] = arrays["actions"] + 1
            demo = data.create_group(f"demo_{seed}")
            for key, rows in arrays.items():
                packed = {"compression": "gzip"} if key.startswith("obs/") else {}
                demo.create_dataset(key, data=rows, **packed)
                if key.startswith("obs/"):
                    demo.create_dataset(f"next_{key}", data=np.roll(rows, -1, 0), **packed)
            demo.create_dataset("datagen_info/eef_pose", data=np.zeros((6 + seed, 4, 4)))
            demo.create_dataset("action_dict/rel_pos", data=np.zeros((6 + seed, 3)))
            demo.attrs["model_file"] = "<mujoco model='base'>" + "<body/>" * 2000 + "</mujoco>"
            demo.attrs["ep_info"] = json.dumps({"lang": "lift the cube"})
            demo.attrs["num_samples"] = 6 + seed
            written[demo.name] = arrays
        data.attrs["total"] = sum(len(arrays["actions"]) for arrays in written.values())
        camera = {"camera_names": ["agentview"], "camera_heights": 24, "camera_widths": 32}
        settings = {**ENV["env_kwargs"], **camera, "has_renderer": False, "controller_configs": {"type": "OSC_POSE"}}
        environment = {"env_name": "Lift", "env_version": "1.4.1", "type": 1, "env_kwargs": settings}
        data.attrs["env_args"] = json.dumps(environment, indent=4)
        for name, demos in {"train": ["demo_0", "demo_2"], "valid": ["demo_1"], "20_percent_train": ["demo_0"]}.items():
            file.create_dataset(f"mask/{name}", data=np.array(demos, dtype="S"))
    return written


def test_a_file_as_robomimic_writes_it_arrives_whole(tmp_path, run_command):
    written = write_as_robomimic_does(tmp_path / "image.hdf5")
    store = bring_in(run_command, tmp_path / "image.hdf5", tmp_path / "d.zarr")
    assert [episode.length for episode in store] == [6, 7, 8]
    assert store[0].attributes["masks"] == ["20_percent_train", "train"]
    for episode, arrays in zip(store, written.values(), strict=True):
        np.testing.assert_array_equal(episode["action"][:], arrays["actions"])
        np.testing.assert_array_equal(episode["action.absolute"][:], arrays["actions_abs"])
        np.testing.assert_array_equal(episode["simulator.state"][:], arrays["states"])
