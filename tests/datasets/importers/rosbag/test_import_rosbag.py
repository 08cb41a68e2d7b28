"""rosbag2 recordings in SQLite and MCAP, written and read without ROS."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from small_demos import smooth_frames

from robo_core.errors import ImportSourceError
from robo_datasets import DemoStore
from robo_datasets.importers.rosbag.alignment import TopicTimes, align, good_runs
from robo_datasets.importers.rosbag.messages import TopicMapping, decode, header_stamp
from robo_datasets.importers.rosbag.source import RosbagSource
from robo_hw.contract.robot_contract import RobotContract

TYPES = get_typestore(Stores.ROS2_HUMBLE)
T = TYPES.types
START = 1_700_000_000_000_000_000
DELAY = 7_000_000
FRONT = "observation.images.front"
JOINTS = ["pan", "lift", "grip"]
SECONDS = 2.0

MAPPING = f"""
fps: 10
topics:
  - {{topic: /front/image_raw, feature: {FRONT}, max_age: 0.15}}
  - {{topic: /joint_states, feature: observation.state, names: [grip, pan, lift], max_age: 0.05, dtype: float64}}
  - {{topic: /arm/command, feature: action, align: nearest, max_age: 0.3}}
"""


def header(time: int) -> Any:
    stamp = T["builtin_interfaces/msg/Time"](sec=time // 10**9, nanosec=time % 10**9)
    return T["std_msgs/msg/Header"](stamp=stamp, frame_id="x")


def image(time: int, pixels: np.ndarray, encoding: str = "rgb8") -> Any:
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).view(np.uint8).ravel()
    return T["sensor_msgs/msg/Image"](
        header=header(time), height=height, width=width, encoding=encoding, is_bigendian=0,
        step=len(data) // height, data=data,
    )  # fmt: skip


def joints(time: int, positions: list[float]) -> Any:
    return T["sensor_msgs/msg/JointState"](
        header=header(time), name=JOINTS, position=np.array(positions, float), velocity=np.zeros(0), effort=np.zeros(0)
    )


def trajectory(time: int, positions: list[float]) -> Any:
    zero = np.zeros(0)
    duration = T["builtin_interfaces/msg/Duration"](sec=0, nanosec=0)
    point = T["trajectory_msgs/msg/JointTrajectoryPoint"](
        positions=np.array(positions, float), velocities=zero, accelerations=zero, effort=zero, time_from_start=duration
    )
    return T["trajectory_msgs/msg/JointTrajectory"](header=header(time), joint_names=JOINTS, points=[point])


def write_bag(path: Path, messages: dict[str, list[tuple[int, Any]]], storage: StoragePlugin) -> Path:
    """Write (arrival time, message) by topic."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        fill(writer, messages)
    return path


def fill(writer: Writer, messages: dict[str, list[tuple[int, Any]]]) -> None:
    connections = {
        topic: writer.add_connection(topic, found[0][1].__msgtype__, typestore=TYPES)
        for topic, found in messages.items()
        if found
    }
    every = [(time, topic, message) for topic, found in messages.items() for time, message in found]
    for time, topic, message in sorted(every, key=lambda entry: entry[0]):
        writer.write(connections[topic], time, TYPES.serialize_cdr(message, message.__msgtype__))


def scene(seconds: float = SECONDS) -> dict[str, list[tuple[int, Any]]]:
    """A camera at 30 Hz, joints at 100 Hz, unstamped commands at 10 Hz; everything arrives 7 ms late."""
    frames = smooth_frames(int(seconds * 30), 24, 32)
    ticks = [START + round(number * 1e9 / 30) for number in range(len(frames))]
    moments = [START + number * 10_000_000 for number in range(int(seconds * 100))]
    commands = [START + number * 100_000_000 for number in range(int(seconds * 10))]
    return {
        "/front/image_raw": [(t + DELAY, image(t, frame)) for t, frame in zip(ticks, frames, strict=True)],
        "/joint_states": [
            (t + DELAY, joints(t, [number, number + 0.25, number + 0.5])) for number, t in enumerate(moments)
        ],
        "/arm/command": [(t + DELAY, trajectory(0, [number, 0, -number])) for number, t in enumerate(commands)],
    }


@pytest.fixture(params=[StoragePlugin.SQLITE3, StoragePlugin.MCAP], ids=["sqlite", "mcap"])
def storage(request: pytest.FixtureRequest) -> StoragePlugin:
    return request.param


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    return tmp_path / "mapping.yaml"


def bring_in(run_command: Any, source: Path, store: Path, *more: str) -> DemoStore:
    code, _, err = run_command("import", "rosbag", f"source={source}", f"store={store}", "workers=0", *more)
    assert code == 0, err
    return DemoStore.open(store)


def test_topics_are_aligned_by_the_stamps_in_their_headers(tmp_path, mapping, run_command, storage):
    bag = write_bag(tmp_path / "bag", scene(), storage)
    store = bring_in(run_command, bag, tmp_path / "d.zarr", f"mapping={mapping}", "codec=lossless", "task=wave")
    episode = store[0]
    # Commands are not stamped, so they count from their arrival; frames start with the first of them.
    times = START + DELAY + np.arange(episode.length) * 100_000_000
    assert (len(store), episode.length, store.fps, episode.task) == (1, 20, 10, "wave")
    np.testing.assert_allclose(episode.timestamp, times / 1e9, rtol=0, atol=1e-6)
    held_joint = (np.arange(20) * 100 + 7) // 10
    np.testing.assert_array_equal(episode["observation.state"][:, 0], held_joint + 0.5)
    np.testing.assert_array_equal(episode["observation.state"][:, 1], held_joint)
    assert store.schema["observation.state"].names == ["grip", "pan", "lift"]
    assert store.schema["observation.state"].dtype == "float64"
    np.testing.assert_array_equal(episode["action"][:, 0], np.arange(20))
    ticks = np.array([round(number * 1e9 / 30) for number in range(60)])
    held = np.searchsorted(ticks, times - START, side="right") - 1
    np.testing.assert_array_equal(episode[FRONT][:], smooth_frames(60, 24, 32)[held])
    received = np.maximum.reduce([START + ticks[held], START + held_joint * 10_000_000, times - DELAY]) + DELAY
    np.testing.assert_allclose(episode.receive_timestamp, received / 1e9, rtol=0, atol=1e-6)


def test_the_robot_contract_says_what_topics_are_and_its_hash_goes_along(tmp_path, run_command, storage):
    contract = RobotContract.load("so101")
    names = list(contract.joint_names)
    cameras = {f"/{camera.topic}": [] for camera in contract.cameras}
    commands = f"/{contract.command.name}"
    messages: dict[str, list[tuple[int, Any]]] = {"/joint_states": [], commands: [], **cameras}
    frames = smooth_frames(45, 24, 32)
    for number in range(45):
        time = START + round(number * 1e9 / 30)
        state, command = joints(time, [0.0] * 3), trajectory(time, [0.0] * 3)
        state.name, state.position = names[::-1], np.arange(6.0)[::-1] + number
        command.joint_names, command.points[0].positions = names, np.arange(6.0) - number
        messages["/joint_states"].append((time, state))
        messages[commands].append((time, command))
        for topic in cameras:
            messages[topic].append((time, image(time, frames[number])))
    bag = write_bag(tmp_path / "bag", messages, storage)
    store = bring_in(run_command, bag, tmp_path / "d.zarr", "robot=so101", "size=[12,16]")
    assert (store.robot, store.contract_hash, store.fps) == ("so101", contract.hash, contract.rates.actions)
    assert store.cameras == [FRONT, "observation.images.wrist"]
    assert store.schema["observation.state"].names == names
    np.testing.assert_array_equal(store[0]["observation.state"][:, 2], np.arange(45) + 2)
    np.testing.assert_array_equal(store[0]["action"][:, 1], 1 - np.arange(45))
    assert store[0][FRONT].shape == (45, 12, 16, 3)


def test_a_folder_of_bags_gives_an_episode_each_and_two_processes_the_same(tmp_path, mapping, run_command, storage):
    for number, seconds in ((2, 1.5), (10, 1.8)):
        write_bag(tmp_path / f"bags/run_{number}", scene(seconds), storage)
    store = bring_in(run_command, tmp_path / "bags", tmp_path / "a.zarr", f"mapping={mapping}")
    assert [episode.attributes["bag"] for episode in store] == ["run_2", "run_10"]
    words = (f"source={tmp_path / 'bags'}", f"store={tmp_path / 'b.zarr'}", f"mapping={mapping}", "workers=2")
    assert run_command("import", "rosbag", *words)[0] == 0
    for one, two in zip(store, DemoStore.open(tmp_path / "b.zarr"), strict=True):
        assert one[FRONT][:].tobytes() == two[FRONT][:].tobytes()
        assert one["action"][:].tobytes() == two["action"][:].tobytes()


def test_a_single_file_is_a_bag(tmp_path, mapping, run_command):
    bag = write_bag(tmp_path / "bag", scene(), StoragePlugin.MCAP)
    store = bring_in(run_command, next(bag.glob("*.mcap")), tmp_path / "d.zarr", f"mapping={mapping}")
    assert store[0].length == 20


def test_silence_is_an_error_or_splits_the_episode(tmp_path, mapping, run_command, storage):
    messages = scene(4.0)
    messages["/joint_states"] = [entry for entry in messages["/joint_states"] if not 1.5e9 < entry[0] - START < 2.2e9]
    bag = write_bag(tmp_path / "bag", messages, storage)
    words = (f"source={bag}", f"store={tmp_path / 'd.zarr'}", f"mapping={mapping}", "workers=0")
    code, _, err = run_command("import", "rosbag", *words)
    assert (code, "/joint_states has no message within 0.05 s" in err, "gaps=split" in err) == (2, True, True)
    store = bring_in(run_command, bag, tmp_path / "d.zarr", f"mapping={mapping}", "gaps=split")
    assert [episode.attributes["piece"] for episode in store] == [0, 1]
    assert [episode.length for episode in store] == [16, 18]
    for episode in store:
        state = np.floor(episode["observation.state"][:, 1])
        np.testing.assert_allclose(episode.timestamp - state / 100, START / 1e9 + DELAY / 1e9, atol=0.0101)


def test_numbers_are_found_by_their_place_in_the_message(tmp_path, run_command):
    def pose(time: int, x: float) -> Any:
        point = T["geometry_msgs/msg/Point"](x=x, y=2 * x, z=0.0)
        turn = T["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)
        body = T["geometry_msgs/msg/Pose"](position=point, orientation=turn)
        return T["geometry_msgs/msg/PoseStamped"](header=header(time), pose=body)

    def numbers(value: float) -> Any:
        layout = T["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
        return T["std_msgs/msg/Float64MultiArray"](layout=layout, data=np.array([value, -value]))

    times = [START + number * 50_000_000 for number in range(40)]
    messages = {
        "/pose": [(t, pose(t, float(number))) for number, t in enumerate(times)],
        "/target": [(t, numbers(float(number))) for number, t in enumerate(times)],
    }
    bag = write_bag(tmp_path / "bag", messages, StoragePlugin.SQLITE3)
    (tmp_path / "m.yaml").write_text(
        "topics:\n"
        "  - {topic: /pose, feature: observation.state, fields: [pose.position.y, pose.orientation.w]}\n"
        "  - {topic: /target, feature: action}\n"
    )
    store = bring_in(run_command, bag, tmp_path / "d.zarr", f"mapping={tmp_path / 'm.yaml'}", "fps=20")
    np.testing.assert_array_equal(store[0]["observation.state"][:], [[2 * n, 1] for n in range(40)])
    np.testing.assert_array_equal(store[0]["action"][:], [[n, -n] for n in range(40)])


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "16UC1", "32FC1"])
def test_every_encoding_of_images_is_read(encoding):
    colour = smooth_frames(1, 6, 8)[0]
    grey = np.arange(48, dtype=np.uint16).reshape(6, 8, 1) * 1300
    wanted, pixels = {
        "rgb8": (colour, colour),
        "bgr8": (colour, colour[..., ::-1]),
        "rgba8": (colour, np.dstack([colour, colour[..., :1]])),
        "bgra8": (colour, np.dstack([colour[..., ::-1], colour[..., :1]])),
        "mono8": (colour[..., :1], colour[..., :1]),
        "mono16": (grey, grey),
        "16UC1": (grey, grey),
        "32FC1": (grey, grey.astype(np.float32) / 1000),
    }[encoding]
    found = decode(image(START, pixels, encoding), "sensor_msgs/msg/Image", TopicMapping("/x", "y"))
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == wanted.dtype


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_compressed_images_are_read(kind):
    colour = smooth_frames(1, 24, 32)[0]
    data = np.frombuffer(cv2.imencode(f".{kind}", colour[..., ::-1])[1].tobytes(), np.uint8)
    message = T["sensor_msgs/msg/CompressedImage"](header=header(START), format=kind, data=data)
    found = decode(message, "sensor_msgs/msg/CompressedImage", TopicMapping("/x", "y"))
    assert np.abs(found.astype(int) - colour).mean() < (1e-9 if kind == "png" else 12)


# --- files that lie ---


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def data_file(bag: Path) -> Path:
    return next(entry for entry in bag.iterdir() if entry.suffix in (".mcap", ".db3"))


def metadata(bag: Path, old: str, new: str) -> None:
    text = (bag / "metadata.yaml").read_text()
    assert old in text
    (bag / "metadata.yaml").write_text(text.replace(old, new))


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (shutil.rmtree, "there is no bag"),
    "no metadata": (lambda b: ((b / "metadata.yaml").unlink(), data_file(b).unlink()), "holds no rosbag2 folder"),
    "no data file": (lambda b: data_file(b).unlink(), "names files that are not there"),
    "truncated": (lambda b: truncate(data_file(b)), "damaged"),
    "empty": (lambda b: data_file(b).write_bytes(b""), "damaged"),
    "text": (lambda b: data_file(b).write_bytes(b"hello" * 999), "damaged"),
    "metadata that is not YAML": (lambda b: (b / "metadata.yaml").write_text("{{{"), "damaged"),
    "metadata too deep": (lambda b: (b / "metadata.yaml").write_text("[" * 2_000), "damaged"),
    "metadata of another kind": (lambda b: (b / "metadata.yaml").write_text("a: 1"), "damaged"),
    "file out of the bag": (
        lambda b: metadata(b, data_file(b).name, "../../../../etc/passwd"),
        "names files that are not there",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_clear_line_and_nothing_is_left(tmp_path, mapping, run_command, storage, fault):
    damage, words = FAULTS[fault]
    bag = write_bag(tmp_path / "bag", scene(1.2), storage)
    damage(bag)
    words_given = (f"source={bag}", f"store={tmp_path / 'd.zarr'}", f"mapping={mapping}", "workers=0")
    code, _, err = run_command("import", "rosbag", *words_given)
    lines = [line for line in err.strip().splitlines() if "robo-rm" in line]
    assert (code, len(lines), words in lines[-1] if lines else False) == (2, 1, True), err
    assert not (tmp_path / "d.zarr").exists()


def spoil_message(bag: Path, topic: str, data: bytes) -> None:
    with sqlite3.connect(data_file(bag)) as base:
        number = base.execute("SELECT id FROM topics WHERE name = ?", (topic,)).fetchone()[0]
        first = base.execute("SELECT id FROM messages WHERE topic_id = ? ORDER BY id", (number,)).fetchone()[0]
        base.execute("UPDATE messages SET data = ? WHERE id = ?", (data, first))
    base.close()


@pytest.mark.parametrize(
    ("topic", "data", "words"),
    [
        ("/front/image_raw", b"", "ends within its header"),
        ("/front/image_raw", b"\x00\x01\x00\x00" + bytes(8) + b"\xff" * 40, "damaged"),
        ("/joint_states", b"\x00\x01\x00\x00" + START.to_bytes(8, "little") + b"\xff\xff\xff\x7f" * 9, "damaged"),
    ],
)
def test_a_message_that_lies_about_its_length_is_one_clear_line(tmp_path, mapping, run_command, topic, data, words):
    bag = write_bag(tmp_path / "bag", scene(1.2), StoragePlugin.SQLITE3)
    spoil_message(bag, topic, data)
    given_words = (f"source={bag}", f"store={tmp_path / 'd.zarr'}", f"mapping={mapping}", "workers=0", "gaps=split")
    code, _, err = run_command("import", "rosbag", *given_words)
    lines = [line for line in err.strip().splitlines() if "robo-rm" in line]
    assert (code, len(lines), words in lines[-1] if lines else False) == (2, 1, True), err
    assert not (tmp_path / "d.zarr").exists()


def test_images_whose_size_changes_are_refused(tmp_path, mapping):
    messages = scene(1.5)
    time, _ = messages["/front/image_raw"][20]
    messages["/front/image_raw"][20:23] = [
        (time + n, image(time - DELAY + n, smooth_frames(1, 48, 64)[0])) for n in range(3)
    ]
    bag = write_bag(tmp_path / "bag", messages, StoragePlugin.MCAP)
    source = RosbagSource(bag, [TopicMapping("/front/image_raw", FRONT)], 30)
    with pytest.raises(ImportSourceError, match="has the shape"):
        list(source.frames(source.episodes[0]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("topics: 3", "list of topics"),
        ("topics: [{topic: /a}]", "topic and feature are needed"),
        ("topics: [{topic: /a, feature: b, algin: hold}]", "algin"),
        ("topics: [{topic: /a, feature: b, align: guess}]", "align=guess"),
        ("topics: [{topic: a, feature: b}]", "begins with /"),
        ("topics: [{topic: /a, feature: b, max_age: -1}]", "max_age: -1"),
        ("topics: [{topic: /a, feature: b, names: x}]", "names: 'x'"),
        ("fps: fast\ntopics: [{topic: /a, feature: b}]", "fps is 'fast'"),
        ("{{", "is not YAML"),
        ("!!python/object/apply:os.mkdir [boom]", "is not YAML"),
        ("topics: [{topic: /none, feature: b}]", "no topics ['/none']"),
        ("topics: [{topic: /joint_states, feature: b, names: [knee]}]", "no message has the joints ['knee']"),
        ("topics: [{topic: /joint_states, feature: b, fields: [velocity.x]}]", "no field velocity.x"),
        ("topics: [{topic: /joint_states, feature: b, fields: [__class__]}]", "no field __class__"),
        ("topics: [{topic: /a, feature: b}, {topic: /c, feature: b}]", "mapped twice"),
    ],
)
def test_a_mapping_that_does_not_fit_is_named(tmp_path, run_command, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    bag = write_bag(tmp_path / "bag", scene(1.2), StoragePlugin.SQLITE3)
    (tmp_path / "m.yaml").write_text(text)
    given_words = (f"source={bag}", f"store={tmp_path / 'd.zarr'}", f"mapping={tmp_path / 'm.yaml'}", "workers=0")
    more = () if "fast" in text else ("fps=10",)
    code, _, err = run_command("import", "rosbag", *given_words, *more)
    assert (code, words in err) == (2, True), err
    assert not (tmp_path / "boom").exists()
    assert not (tmp_path / "d.zarr").exists()


def test_without_the_package_the_command_says_what_to_install(tmp_path, mapping, run_command, monkeypatch):
    bag = write_bag(tmp_path / "bag", scene(1.2), StoragePlugin.SQLITE3)
    monkeypatch.setitem(sys.modules, "rosbags.highlevel", None)
    code, _, err = run_command("import", "rosbag", f"source={bag}", f"store={tmp_path / 'd'}", f"mapping={mapping}")
    assert (code, "pip install 'robo-rm[ros]'" in err) == (2, True), err


def test_neither_contract_nor_mapping_is_named(tmp_path, run_command):
    code, _, err = run_command("import", "rosbag", "source=x", f"store={tmp_path / 'd'}")
    assert (code, "robot=CONTRACT or mapping=FILE" in err) == (2, True), err


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_alignment_picks_what_a_search_over_all_messages_would(data):
    mappings, topics = [], {}
    for number in range(data.draw(st.integers(1, 3))):
        stamps = np.array(data.draw(st.lists(st.integers(0, 5_000), min_size=1, max_size=40))) * 1_000_000
        how = data.draw(st.sampled_from(["hold", "nearest"]))
        mappings.append(TopicMapping(f"/t{number}", f"f{number}", how, data.draw(st.sampled_from([0.05, 0.5, 9.0]))))
        topics[f"f{number}"] = TopicTimes(stamps, stamps + number)
    aligned = align(topics, mappings, 10)
    for row, time in enumerate(aligned.times):
        fine = True
        for mapping in mappings:
            stamps = topics[mapping.feature].stamps
            picked = stamps[aligned.picks[mapping.feature][row]]
            if mapping.align == "hold":
                assert picked == stamps[stamps <= time].max()
            else:
                assert abs(picked - time) == np.abs(stamps - time).min()
            fine &= abs(picked - time) <= mapping.max_age * 1e9
        assert aligned.good[row] == fine
    covered = [row for start, end in good_runs(aligned.good, 1) for row in range(start, end)]
    assert covered == np.flatnonzero(aligned.good).tolist()
    assert bool(aligned.gaps) == (not aligned.good.all())


def test_stamps_are_read_in_either_byte_order():
    time = 1_700_000_000_123_456_789
    raw = bytes(TYPES.serialize_cdr(joints(time, [0.0] * 3), "sensor_msgs/msg/JointState"))
    assert header_stamp(raw) == time
    big = bytes(TYPES.serialize_cdr(joints(time, [0.0] * 3), "sensor_msgs/msg/JointState", little_endian=False))
    assert header_stamp(big) == time


@pytest.mark.parametrize("mode", ["FILE", "MESSAGE", "STORAGE"])
def test_compressed_bags_read_the_same(tmp_path, mapping, run_command, mode):
    plain = write_bag(tmp_path / "plain", scene(1.0), StoragePlugin.MCAP)
    packed = Writer(tmp_path / "packed", version=8, storage_plugin=StoragePlugin.MCAP)
    packed.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
    with packed as writer:
        fill(writer, scene(1.0))
    stores = [
        bring_in(run_command, bag, tmp_path / f"{bag.name}.zarr", f"mapping={mapping}")
        for bag in (plain, tmp_path / "packed")
    ]
    for key in (FRONT, "observation.state", "action"):
        np.testing.assert_array_equal(stores[1][0][key][:], stores[0][0][key][:])


def test_a_bag_split_as_ros2_bag_record_splits_it_is_one_episode(tmp_path, mapping, run_command):
    """Files <name>_0.db3 and <name>_1.db3, and metadata of version 5, as ROS 2 Humble writes them."""
    whole = write_bag(tmp_path / "whole", scene(), StoragePlugin.SQLITE3)
    half, bag = START + 10**9, tmp_path / "teleop"
    bag.mkdir()
    files, counts = [], {}
    for number, (first, last) in enumerate(((0, half), (half, 2**63))):
        part = {topic: [m for m in found if first <= m[0] < last] for topic, found in scene().items()}
        write_bag(tmp_path / f"part{number}", part, StoragePlugin.SQLITE3)
        shutil.move(tmp_path / f"part{number}/part{number}.db3", bag / f"teleop_{number}.db3")
        times = [time for found in part.values() for time, _ in found]
        files.append((f"teleop_{number}.db3", min(times), max(times), len(times)))
        for topic, found in part.items():
            counts[topic] = counts.get(topic, 0) + len(found)
    types = {topic: found[0][1].__msgtype__ for topic, found in scene().items()}
    said = {
        "version": 5,
        "storage_identifier": "sqlite3",
        "duration": {"nanoseconds": files[1][2] - files[0][1]},
        "starting_time": {"nanoseconds_since_epoch": files[0][1]},
        "message_count": sum(counts.values()),
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": topic, "type": types[topic], "serialization_format": "cdr", "offered_qos_profiles": "",
                },
                "message_count": count,
            }
            for topic, count in counts.items()
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [name for name, *_ in files],
        "files": [
            {
                "path": name,
                "starting_time": {"nanoseconds_since_epoch": start},
                "duration": {"nanoseconds": end - start},
                "message_count": count,
            }
            for name, start, end, count in files
        ],
    }  # fmt: skip
    (bag / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": said}))
    one = bring_in(run_command, whole, tmp_path / "one.zarr", f"mapping={mapping}")
    two = bring_in(run_command, bag, tmp_path / "two.zarr", f"mapping={mapping}")
    assert len(two) == 1
    for key in (FRONT, "observation.state", "action"):
        np.testing.assert_array_equal(two[0][key][:], one[0][key][:])
    (bag / "teleop_1.db3").unlink()
    words = ("import", "rosbag", f"source={bag}", f"store={tmp_path / 'c.zarr'}", f"mapping={mapping}")
    code, _, complaint = run_command(*words)
    assert (code, "teleop" in complaint, (tmp_path / "c.zarr").exists()) == (2, True, False), complaint
