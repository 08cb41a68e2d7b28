"""Small recordings in every format that is imported, as a user would bring them; the pages' commands run on them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numcodecs
import numpy as np
import zarr
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from small_demos import smooth_frames

from robo_datasets.video.writer import VideoWriter
from robo_hw.contract.robot_contract import RobotContract
from robo_policies.recording.bag_mapping import contract_mappings

FRAMES = 20
START_NS = 1_700_000_000_000_000_000


def write_all(folder: Path) -> None:
    """Make every recording that docs/importing.md names, below ``folder``."""
    write_keyframes(folder / "clean_table")
    write_graded_rollouts(folder / "graded_rollouts")
    write_replay_buffer(folder / "pusht.zarr")
    write_umi(folder / "cup.zarr.zip")
    write_robomimic(folder / "lift/ph/image.hdf5")
    write_bag(folder / "bags/run_1")


def write_keyframes(folder: Path) -> None:
    for camera in ("cam_high", "cam_left_wrist"):
        path = folder / "episode_001" / f"{camera}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with VideoWriter(path, 48, 64, 10, crf=8) as video:
            for frame in smooth_frames(FRAMES, 48, 64):
                video.add(frame)
    marks = [("pick up the cup", 2, 9), ("put it on the shelf", 9, 18)]
    entries = [{"anotation": name, "start_frame_id": start, "end_frame_id": end} for name, start, end in marks]
    (folder / "episode_001/annotated_keyframes.json").write_text(json.dumps(entries))
    (folder / "task_instruction.json").write_text(json.dumps(["clean the table", "organize the table"]))


def write_graded_rollouts(folder: Path) -> None:
    labels = []
    for seed, grade in enumerate(("success", "suboptimal", "failure")):
        path = folder / grade / "episode_000/cam.mp4"
        path.parent.mkdir(parents=True)
        with VideoWriter(path, 48, 64, 10, crf=8) as video:
            for frame in smooth_frames(FRAMES, 48, 64, seed):
                video.add(frame)
        labels.append({"path": f"{grade}/episode_000", "label": grade, "task": "put the cup away"})
    (folder / "labels.json").write_text(json.dumps(labels))


def _write_buffer(store: Any, arrays: dict[str, np.ndarray], **options: Any) -> None:
    root = zarr.open_group(store, mode="a", zarr_format=2)
    for key, rows in {**arrays, "meta/episode_ends": np.array([8, FRAMES])}.items():
        made = {"shape": rows.shape, "chunks": rows.shape, "dtype": rows.dtype, **options}
        root.create_array(key, config={"write_empty_chunks": True}, **made)[:] = rows


def write_replay_buffer(path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"data/img": smooth_frames(FRAMES, 24, 32).astype(np.float32)}
    arrays |= {f"data/{key}": rng.normal(size=(FRAMES, 2)).astype(np.float32) for key in ("state", "action")}
    _write_buffer(path, arrays, compressors=numcodecs.Blosc("lz4", 5, numcodecs.Blosc.NOSHUFFLE))


def write_umi(path: Path) -> None:
    rng = np.random.default_rng(0)
    widths = {"eef_pos": 3, "eef_rot_axis_angle": 3, "gripper_width": 1, "demo_start_pose": 6, "demo_end_pose": 6}
    rows = {f"data/robot0_{key}": rng.normal(size=(FRAMES, n)).astype(np.float32) for key, n in widths.items()}
    store = zarr.storage.ZipStore(path, mode="w")
    _write_buffer(store, rows, compressors=None)
    store.close()
    frames = smooth_frames(FRAMES, 24, 32)
    described = {
        "zarr_format": 2, "shape": list(frames.shape), "chunks": [1, 24, 32, 3], "dtype": "|u1", "fill_value": 0,
        "order": "C", "filters": None, "compressor": {"id": "imagecodecs_jpegxl", "level": 99, "numthreads": 1},
    }  # fmt: skip
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("data/camera0_rgb/.zarray", json.dumps(described))
        for number, frame in enumerate(frames):
            archive.writestr(f"data/camera0_rgb/{number}.0.0.0", imagecodecs.jpegxl_encode(frame, level=99))


def write_robomimic(path: Path) -> None:
    path.parent.mkdir(parents=True)
    rng = np.random.default_rng(0)
    sizes = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2, "object": 10}
    with h5py.File(path, "w") as file:
        settings = {"control_freq": 20, "robots": ["Panda"], "reward_shaping": False}
        environment = {"env_name": "Lift", "type": 1, "env_kwargs": settings}
        file.create_group("data").attrs["env_args"] = json.dumps(environment)
        for number in range(2):
            demo = file.create_group(f"data/demo_{number}")
            demo["obs/agentview_image"] = smooth_frames(FRAMES, 24, 32, number)
            for key, size in sizes.items():
                demo[f"obs/{key}"] = rng.normal(size=(FRAMES, size))
            demo["actions"], demo["states"] = rng.normal(size=(FRAMES, 7)), rng.normal(size=(FRAMES, 32))
            demo["rewards"] = demo["dones"] = (np.arange(FRAMES) == FRAMES - 1).astype(float)
        file["mask/train"] = np.array([b"demo_0"])


def write_bag(path: Path) -> None:
    """One bag with the topics that the contract of the SO-101 names, all at 30 Hz."""
    types = get_typestore(Stores.ROS2_HUMBLE)
    contract = RobotContract.load("so101")
    names = [joint.name for joint in contract.joints]
    make, zero = types.types, np.zeros(0)
    frames = smooth_frames(FRAMES * 2, 24, 32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {mapping.topic: mapping.feature for mapping in contract_mappings(contract)}
        kinds = {
            topic: "sensor_msgs/msg/Image"
            if ".images." in feature
            else "sensor_msgs/msg/JointState"
            if feature == "observation.state"
            else "trajectory_msgs/msg/JointTrajectory"
            for topic, feature in topics.items()
        }
        connections = {topic: writer.add_connection(topic, kind, typestore=types) for topic, kind in kinds.items()}
        for number, frame in enumerate(frames):
            time = START_NS + round(number * 1e9 / 30)
            stamp = make["builtin_interfaces/msg/Time"](sec=time // 10**9, nanosec=time % 10**9)
            header = make["std_msgs/msg/Header"](stamp=stamp, frame_id="x")
            where = np.arange(len(names)) + number / 10
            point = make["trajectory_msgs/msg/JointTrajectoryPoint"](
                positions=where, velocities=zero, accelerations=zero, effort=zero,
                time_from_start=make["builtin_interfaces/msg/Duration"](sec=0, nanosec=0),
            )  # fmt: skip
            messages = {
                "sensor_msgs/msg/Image": lambda header=header, frame=frame: make["sensor_msgs/msg/Image"](
                    header=header, height=24, width=32, encoding="rgb8", is_bigendian=0, step=96, data=frame.ravel()
                ),
                "sensor_msgs/msg/JointState": lambda header=header, where=where: make["sensor_msgs/msg/JointState"](
                    header=header, name=names, position=where, velocity=zero, effort=zero
                ),
                "trajectory_msgs/msg/JointTrajectory": lambda header=header, point=point: make[
                    "trajectory_msgs/msg/JointTrajectory"
                ](header=header, joint_names=names, points=[point]),
            }
            for topic, kind in kinds.items():
                writer.write(connections[topic], time, types.serialize_cdr(messages[kind](), kind))
