"""HDF5 demonstrations as RoboCasa, LIBERO, robosuite and Isaac Lab write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from small_demos import smooth_frames

LENGTHS = {"demo_0": 9, "demo_1": 6}
ENV = {"env_name": "PnPCounterToCab", "type": 1, "env_kwargs": {"control_freq": 20, "robots": "PandaOmron"}}


def numbers(length: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "actions": rng.normal(size=(length, 7)),
        "obs/robot0_eef_pos": rng.normal(size=(length, 3)),
        "obs/agentview_image": smooth_frames(length, 24, 32, seed),
        "rewards": (np.arange(length) == length - 1).astype(float),
    }


def write(
    path: Path,
    env: Mapping[str, Any] | None = ENV,
    root: Mapping[str, Any] | None = None,
    demos: Mapping[str, Mapping[str, Any]] | None = None,
    attrs: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        if env is not None:
            data.attrs["env_args"] = json.dumps(env)
        for key, value in (root or {}).items():
            data.attrs[key] = value
        arrays = demos or {name: numbers(length, seed) for seed, (name, length) in enumerate(LENGTHS.items())}
        for name, rows in arrays.items():
            group = data.create_group(name)
            for key, value in rows.items():
                group.create_dataset(key, data=value)
            for key, value in (attrs or {}).get(name, {}).items():
                group.attrs[key] = value
    return path


def test_robocasa_says_the_instruction_with_each_demonstration(tmp_path, bring_in):
    attrs = {name: {"ep_meta": json.dumps({"lang": f"pick the {n}", "layout_id": n})} for n, name in enumerate(LENGTHS)}
    store, said = bring_in(write(tmp_path / "a.hdf5", attrs=attrs))
    assert [episode.task for episode in store] == ["pick the 0", "pick the 1"]
    assert "no instruction" not in said


@pytest.mark.parametrize("words", ["turn on the stove", list("turn on the stove"), '"turn on the stove"'])
def test_libero_says_it_for_the_whole_file(tmp_path, bring_in, words):
    problem = json.dumps({"problem_name": "libero_kitchen", "language_instruction": words})
    source = write(tmp_path / "a.hdf5", {**ENV, "env_name": "Libero_Kitchen"}, {"problem_info": problem})
    store, said = bring_in(source)
    assert {episode.task for episode in store} == {"turn on the stove"}
    assert "LIBERO stores images as its renderer gives them, upside down" in said
    turned, said = bring_in(source, "flip=vertical", name="e.zarr")
    assert "upside down" not in said
    camera = "observation.images.agentview"
    np.testing.assert_array_equal(turned[0][camera][:], store[0][camera][:][:, ::-1])


@pytest.mark.parametrize(
    ("where", "key"), [("root", "language_instruction"), ("env", "language_instruction"), ("demo", "lang")]
)
def test_other_places_of_the_instruction(tmp_path, bring_in, where, key):
    env = {**ENV, key: "wipe the plate"} if where == "env" else ENV
    root = {key: "wipe the plate"} if where == "root" else None
    attrs = {name: {key: "wipe the plate"} for name in LENGTHS} if where == "demo" else None
    store, _ = bring_in(write(tmp_path / "a.hdf5", env, root, attrs=attrs))
    assert {episode.task for episode in store} == {"wipe the plate"}


def test_a_name_in_place_of_an_instruction_is_said(tmp_path, bring_in):
    store, said = bring_in(write(tmp_path / "a.hdf5"))
    assert {episode.task for episode in store} == {"PnPCounterToCab"}
    assert "no instruction; the environment's name 'PnPCounterToCab' stands in for it (task= gives one)" in said
    _, said = bring_in(write(tmp_path / "b.hdf5", None), "fps=20", name="e.zarr")
    assert "no instruction; none was found" in said


def isaac_demo(length: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "actions": rng.normal(size=(length, 7)).astype("f4"),
        "processed_actions": rng.normal(size=(length, 8)).astype("f4"),
        "initial_state/articulation/robot/joint_position": rng.normal(size=(1, 9)).astype("f4"),
        "states/articulation/robot/joint_position": rng.normal(size=(length, 9)).astype("f4"),
        "states/rigid_object/cube_1/root_pose": rng.normal(size=(length, 7)).astype("f4"),
        "obs/eef_pos": rng.normal(size=(length, 3)).astype("f4"),
        "obs/eef_quat": rng.normal(size=(length, 4)).astype("f4"),
        "obs/gripper_pos": rng.normal(size=(length, 2)).astype("f4"),
        "obs/table_cam": smooth_frames(length, 24, 32, seed),
        "obs/table_cam_depth": rng.uniform(0.3, 2, (length, 24, 32, 1)).astype("f4"),
        "obs/datagen_info/object_pose/cube_1": rng.normal(size=(length, 4, 4)).astype("f4"),
        "obs/datagen_info/subtask_term_signals/grasp_1": np.arange(length) > 3,
    }


ISAAC = {"env_name": "Isaac-Stack-Cube-Franka-v0", "type": 2, "sim_args": {"dt": 0.01, "decimation": 5, "num_envs": 1}}


def test_isaac_lab_goes_in_with_states_outcome_and_rate(tmp_path, bring_in):
    demos = {f"demo_{n}": isaac_demo(8 + n, n) for n in range(3)}
    attrs: dict[str, dict[str, Any]] = {
        "demo_0": {"success": np.bool_(True), "num_samples": 8, "seed": 3},
        "demo_1": {"success": False},
    }
    store, said = bring_in(write(tmp_path / "a.hdf5", ISAAC, {"total": 27}, demos, attrs))
    assert (store.fps, [episode.success for episode in store]) == (20, [True, False, None])
    assert store.schema["observation.state"].shape == (9,)
    state = "simulator.state.articulation.robot.joint_position"
    for episode, rows in zip(store, demos.values(), strict=True):
        np.testing.assert_array_equal(episode["action"][:], rows["actions"])
        np.testing.assert_array_equal(episode["action.processed"][:], rows["processed_actions"])
        np.testing.assert_array_equal(episode[state][:], rows["states/articulation/robot/joint_position"])
        np.testing.assert_array_equal(episode["observation.images.table_cam"][:], rows["obs/table_cam"])
        signal = episode["observation.datagen_info.subtask_term_signals.grasp_1"][:]
        np.testing.assert_array_equal(signal.ravel(), np.arange(len(signal)) > 3)
    assert store.schema["observation.images.table_cam_depth"].dtype == "uint16"
    assert not [key for key in store.schema if "initial" in key]
    assert "observation.state was made of eef_pos, eef_quat, gripper_pos" in said
    assert "whether 1 of 3 episodes succeeded" in said


def test_isaac_labs_standard_layout_has_a_group_of_actions(tmp_path, bring_in):
    rng = np.random.default_rng(0)
    demos = {
        name: {
            "actions/pose": rng.normal(size=(6, 8)),
            "actions/joints": rng.normal(size=(6, 9)),
            "obs/x": np.ones((6, 2)),
        }
        for name in LENGTHS
    }
    store, _ = bring_in(write(tmp_path / "a.hdf5", {"env_name": "x", "type": 2}, {"fps": 25.0}, demos))
    assert store.fps == 25
    np.testing.assert_array_equal(store[0]["action"][:], demos["demo_0"]["actions/pose"])
    np.testing.assert_array_equal(store[0]["action.joints"][:], demos["demo_0"]["actions/joints"])


def test_an_empty_demonstration_need_not_stop_the_others(tmp_path, bring_in):
    """Isaac Lab writes a group without actions where an environment was reset at once."""
    demos = {"demo_0": {}, "demo_1": isaac_demo(8, 1), "demo_2": isaac_demo(9, 2)}
    source = write(tmp_path / "a.hdf5", ISAAC, demos=demos)
    _, said = bring_in(source)
    assert "/data/demo_0 has no actions" in said
    assert "damaged" not in said
    store, said = bring_in(source, "skip_bad=true")
    assert [episode.attributes["demo"] for episode in store] == ["demo_1", "demo_2"]
    assert "episode 0 was left out" in said


def test_rewards_say_an_outcome_only_where_they_are_sparse_and_were_recorded(tmp_path, bring_in):
    def rewards(*values: Any) -> dict[str, Any]:
        return {
            f"demo_{n}": {**numbers(6, n), "rewards": np.full(6, value) if np.isscalar(value) else value}
            for n, value in enumerate(values)
        }

    store, _ = bring_in(write(tmp_path / "a.hdf5", demos=rewards(0.0, np.eye(6)[5])))
    assert [episode.success for episode in store] == [False, True]
    store, said = bring_in(write(tmp_path / "b.hdf5", demos=rewards(0.0, 0.0)), name="b.zarr")
    assert [episode.success for episode in store] == [None, None]
    assert "nothing is concluded from it" in said
    store, _ = bring_in(write(tmp_path / "c.hdf5", demos=rewards(np.linspace(0, 2, 6), -1.0)), name="c.zarr")
    assert [episode.success for episode in store] == [None, None]


def test_a_split_that_is_added_or_chosen_brings_nothing_in_twice(tmp_path, bring_in):
    source = write(tmp_path / "a.hdf5")
    first, _ = bring_in(source)
    with h5py.File(source, "a") as file:
        file["mask/train"] = np.array([b"demo_1"])
    again, said = bring_in(source)
    assert (len(again), "2 were there already" in said) == (2, True)
    again, said = bring_in(source, "mask=train")
    assert (len(again), "1 were there already" in said) == (2, True)
    assert [episode.uuid for episode in again] == [episode.uuid for episode in first]


def test_a_merged_file_adds_only_what_is_new(tmp_path, bring_in):
    first, _ = bring_in(write(tmp_path / "a.hdf5"))
    demos = {f"demo_{n}": numbers(7, seed) for n, seed in enumerate((5, 6))}
    demos |= {f"demo_{n + 2}": numbers(length, n) for n, length in enumerate(LENGTHS.values())}
    again, said = bring_in(write(tmp_path / "merged.hdf5", demos=demos))
    assert (len(again), "2 were there already" in said) == (4, True)
    assert {episode.uuid for episode in first} <= {episode.uuid for episode in again}


def test_text_among_the_observations_can_be_left_out(tmp_path, bring_in):
    source = write(tmp_path / "a.hdf5")
    with h5py.File(source, "a") as file:
        for name, length in LENGTHS.items():
            file[f"data/{name}/obs/note"] = np.array(["a"] * length, dtype=h5py.string_dtype())
    _, said = bring_in(source)
    assert "drop=[obs/note] leaves it out" in said
    for number, word in enumerate(("obs/note", "note", "observation.note")):
        store, _ = bring_in(source, f"drop=[{word}]", name=f"{number}.zarr")
        assert len(store) == 2


def test_images_of_floats_and_channels_first(tmp_path, bring_in):
    demos = {}
    for seed, (name, length) in enumerate(LENGTHS.items()):
        frames = smooth_frames(length, 24, 32, seed)
        floats = (frames / 255).astype("f4")
        floats[:1] = 0
        chw = np.ascontiguousarray(np.moveaxis(frames, -1, 1))
        demos[name] = {"actions": np.ones((length, 2)), "obs/front_rgb": floats, "obs/side_image": chw}
    store, said = bring_in(write(tmp_path / "a.hdf5", demos=demos))
    assert store.cameras == ["observation.images.front", "observation.images.side"]
    np.testing.assert_array_equal(store[1]["observation.images.front"][1:], smooth_frames(6, 24, 32, 1)[1:])
    np.testing.assert_array_equal(store[1]["observation.images.side"][:], smooth_frames(6, 24, 32, 1))
    assert "1 was assumed to be white" in said


def test_text_and_attributes_of_a_demonstration_are_kept_and_what_has_no_rule_is_named(tmp_path, bring_in):
    demos = {
        name: {
            **numbers(length, seed),
            "language_instruction": np.array([b"open the drawer"] * length),
            "force/torque": np.zeros((length, 3)),
        }
        for seed, (name, length) in enumerate(LENGTHS.items())
    }
    attrs = {"demo_0": {"operator": "ann", "model_file": "<mujoco>" * 100}, "demo_1": {"attempt": 3}}
    store, said = bring_in(write(tmp_path / "a.hdf5", demos=demos, attrs=attrs))
    assert [episode.task for episode in store] == ["open the drawer"] * 2
    assert [episode.attributes for episode in store] == [
        {"demo": "demo_0", "operator": "ann"},
        {"demo": "demo_1", "attempt": 3},
    ]
    assert "note: force of the demonstrations were left out: no rule says what they are" in said
