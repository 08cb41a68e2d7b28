"""Bags as people have them: several channels of a topic, several publishers, simulated time, depth, own messages."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from robo_datasets import DemoStore
from robo_datasets.importers.rosbag.depth import decode_compressed_depth

TYPES = get_typestore(Stores.ROS2_HUMBLE)
T = TYPES.types
START, STEP = 1_700_000_000_000_000_000, 100_000_000
JOINTS, NUMBERS, CLOCK = "sensor_msgs/msg/JointState", "std_msgs/msg/Float64MultiArray", "rosgraph_msgs/msg/Clock"
FRAMES = 30
MAPPING = """
fps: 10
topics:
  - {topic: /joint_states, feature: observation.state, names: [a, b], max_age: 0.2, dtype: float64}
  - {topic: /cmd, feature: action, max_age: 0.2}
"""
Row = tuple[str, int, Any]


def stamp(time: int) -> Any:
    return T["builtin_interfaces/msg/Time"](sec=time // 10**9, nanosec=time % 10**9)


def header(time: int) -> Any:
    return T["std_msgs/msg/Header"](stamp=stamp(time), frame_id="")


def joints(time: int, names: Sequence[str], positions: Sequence[float], speeds: Sequence[float] = ()) -> Any:
    return T[JOINTS](
        header=header(time), name=list(names), position=np.array(positions, float), velocity=np.array(speeds, float),
        effort=np.zeros(0),
    )  # fmt: skip


def numbers(*values: float) -> Any:
    layout = T["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    return T[NUMBERS](layout=layout, data=np.array(values, float))


def commands(count: int = FRAMES) -> list[Row]:
    return [("/cmd", START + i * STEP, numbers(i, i + 1)) for i in range(count)]


def write(path: Path, rows: list[Row], types: Any = TYPES) -> Path:
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        for topic, received, message in sorted(rows, key=lambda row: row[1]):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=types)
            writer.write(connections[topic], received, types.serialize_cdr(message, message.__msgtype__))
    return path


def record(code: int, body: bytes) -> bytes:
    return bytes([code]) + struct.pack("<Q", len(body)) + body


def text(value: str) -> bytes:
    return struct.pack("<I", len(value.encode())) + value.encode()


def write_channels(
    path: Path,
    channels: list[tuple[str, str, list[tuple[int, Any]]]],
    definitions: dict[int, str] | None = None,
    profile: str = "ros2",
) -> Path:
    """An MCAP file of one channel for each entry (topic, type, messages), even where topics come again."""
    body = record(1, text(profile) + text("test"))
    messages = []
    for number, (topic, kind, rows) in enumerate(channels, 1):
        own = TYPES.generate_msgdef(kind, ros_version=2)[0] if kind in TYPES.fielddefs else ""
        definition = (definitions or {}).get(number, own)
        body += record(3, struct.pack("<H", number) + text(kind) + text("ros2msg") + text(definition))
        body += record(4, struct.pack("<HH", number, number) + text(topic) + text("cdr") + struct.pack("<I", 0))
        messages += [(time, number, kind, message) for time, message in rows]
    for time, number, kind, message in sorted(messages, key=lambda row: row[0]):
        raw = message if isinstance(message, bytes) else bytes(TYPES.serialize_cdr(message, kind))
        body += record(5, struct.pack("<HIQQ", number, 0, time, time) + raw)
    path.write_bytes(b"\x89MCAP0\r\n" + body + record(15, bytes(4)) + record(2, bytes(20)) + b"\x89MCAP0\r\n")
    return path


@pytest.fixture
def bring_in(tmp_path: Path, run_command: Any) -> Any:
    def run(source: Path, mapping: str = MAPPING, *more: str) -> tuple[DemoStore | None, str]:
        (tmp_path / "map.yaml").write_text(mapping)
        store = tmp_path / f"{source.name}.zarr"
        words = (f"source={source}", f"store={store}", f"mapping={tmp_path / 'map.yaml'}", "workers=0", *more)
        code, out, err = run_command("import", "rosbag", *words)
        assert code == 0 or (code == 2 and not store.exists()), out + err
        return (DemoStore.open(store) if code == 0 else None), out + err

    return run


def test_all_channels_of_a_topic_are_read(tmp_path, bring_in):
    rows = [(START + i * STEP, joints(START + i * STEP, "ab", [i, -i])) for i in range(FRAMES)]
    own = [(time, message) for _, time, message in commands()]
    bag = write_channels(
        tmp_path / "two.mcap",
        [("/joint_states", JOINTS, rows[:12]), ("/cmd", NUMBERS, own), ("/joint_states", JOINTS, rows[12:])],
    )
    store, said = bring_in(bag)
    assert store[0]["observation.state"][:, 0].tolist() == list(range(FRAMES))
    assert "1 (12 messages), 3 (18 messages)" in said
    assert "several channels" in store[0].attributes["assumed"][0]


def test_one_channel_may_be_chosen(tmp_path, bring_in):
    """Two publishers of the same joints contradict each other; nothing but the channel tells them apart."""
    real = [(START + i * STEP, joints(START + i * STEP, "ab", [i, -i])) for i in range(FRAMES)]
    shown = [(time + 1000, joints(time + 1000, "ab", [7, 7])) for time, _ in real]
    own = [(time, message) for _, time, message in commands()]
    channels = [("/joint_states", JOINTS, shown), ("/cmd", NUMBERS, own), ("/joint_states", JOINTS, real)]
    mapping = MAPPING.replace("max_age: 0.2, dtype", "max_age: 0.2, channel: 3, dtype")
    store, _ = bring_in(write_channels(tmp_path / "both.mcap", channels), mapping)
    assert store[0]["observation.state"][:, 0].tolist() == list(range(FRAMES))
    _, said = bring_in(write_channels(tmp_path / "b.mcap", channels), mapping.replace("channel: 3", "channel: 9"))
    assert "/joint_states has no channel 9; it has [1, 3]" in said


def test_a_topic_in_two_types_is_refused_until_one_is_chosen(tmp_path, bring_in):
    rows = [(START + i * STEP, joints(START + i * STEP, "ab", [i, -i])) for i in range(FRAMES)]
    own = [(time, message) for _, time, message in commands()]
    channels = [("/joint_states", JOINTS, rows), ("/cmd", NUMBERS, own), ("/cmd", JOINTS, rows)]
    _, said = bring_in(write_channels(tmp_path / "types.mcap", channels))
    assert "/cmd is there in several types" in said
    store, _ = bring_in(
        write_channels(tmp_path / "chosen.mcap", channels),
        MAPPING.replace("/cmd, feature: action,", f"/cmd, feature: action, type: {NUMBERS},"),
    )
    assert store[0]["action"][:, 1].tolist() == list(range(1, FRAMES + 1))


def test_joints_of_several_publishers_are_put_together_by_name(tmp_path, bring_in):
    rows: list[Row] = commands()
    for i in range(FRAMES):
        time = START + i * STEP
        rows.append(("/joint_states", time, joints(time, ["b"], [-i])))
        rows.append(("/joint_states", time + 1000, joints(time, ["a"], [i])))
        rows.append(("/joint_states", time + 2000, joints(time, ["a", "b"], [], [1, 1])))  # speeds alone
        rows.append(("/joint_states", time + 3000, joints(time, ["wheel"], [99])))
    store, _ = bring_in(write(tmp_path / "arm", rows))
    assert store.schema["observation.state"].names == ["a", "b"]
    np.testing.assert_array_equal(store[0]["observation.state"][:], [[i, -i] for i in range(FRAMES)])
    every, _ = bring_in(write(tmp_path / "all", rows), MAPPING.replace("names: [a, b], ", ""))
    assert every.schema["observation.state"].names == ["b", "a", "wheel"]
    assert every[0]["observation.state"][4].tolist() == [-4, 4, 99]


def test_a_publisher_that_falls_silent_is_a_gap(tmp_path, bring_in):
    rows: list[Row] = commands()
    for i in range(FRAMES):
        time = START + i * STEP
        rows.append(("/joint_states", time, joints(time, ["a"], [i])))
        if i < 5 or i == FRAMES - 1:
            rows.append(("/joint_states", time, joints(time, ["b"], [i])))
    _, said = bring_in(write(tmp_path / "silent", rows))
    assert "/joint_states has no message within 0.2 s" in said


def test_simulated_stamps_and_unstamped_commands_are_brought_together(tmp_path, bring_in):
    """The simulation runs at half the pace of the wall clock; commands have no header."""
    rows: list[Row] = []
    for i in range(FRAMES):
        wall, simulated = START + 2 * i * STEP, 10**10 + i * STEP
        rows.append(("/joint_states", wall, joints(simulated, "ab", [i, -i])))
        rows.append(("/cmd", wall, numbers(i, i)))
    store, said = bring_in(write(tmp_path / "sim", rows))
    assert store[0]["observation.state"][:, 0].tolist() == list(range(FRAMES))
    assert store[0]["action"][:, 0].tolist() == list(range(FRAMES))
    assert "another clock" in said
    assert "/cmd" in store[0].attributes["assumed"][0]


def test_a_clock_that_was_set_back_is_refused_until_one_is_chosen(tmp_path, bring_in):
    """Half of the messages would otherwise be put between those of the first half."""
    rows: list[Row] = []
    for i in range(FRAMES):
        time = START + i * STEP
        back = 2 * 10**9 if i >= FRAMES // 2 else 0
        rows.append(("/joint_states", time, joints(time - back, "ab", [i, -i])))
        rows.append(("/cmd", time, numbers(i, i)))
    _, said = bring_in(write(tmp_path / "back", rows))
    assert f"/joint_states go back by 1.9 s at its message {FRAMES // 2}" in said
    assert "clock=arrival" in said
    store, _ = bring_in(write(tmp_path / "chosen", rows), MAPPING, "clock=arrival")
    assert store[0]["observation.state"][:, 0].tolist() == list(range(FRAMES))


def test_stamps_of_zero_with_a_clock_topic_go_by_the_clock(tmp_path, bring_in):
    rows: list[Row] = []
    for i in range(FRAMES):
        wall, simulated = START + 2 * i * STEP, 10**10 + i * STEP
        rows.append(("/clock", wall, T[CLOCK](clock=stamp(simulated))))
        rows.append(("/joint_states", wall, joints(0, "ab", [i, -i])))
        rows.append(("/cmd", wall, numbers(i, i)))
    store, _ = bring_in(write(tmp_path / "zero", rows))
    assert store[0]["observation.state"][:, 0].tolist() == list(range(FRAMES))
    assert store[0].timestamp[0] == 10
    by_arrival, _ = bring_in(write(tmp_path / "arrival", rows), MAPPING, "clock=arrival")
    assert by_arrival[0].length == 2 * FRAMES - 1


def test_headers_of_two_clocks_are_refused_until_arrival_is_chosen(tmp_path, bring_in):
    """A camera counts from when it was switched on."""
    rows: list[Row] = []
    for i in range(FRAMES):
        time = START + i * STEP
        rows.append(("/joint_states", time, joints(time, "ab", [i, -i])))
        rows.append(("/cmd", time, joints(5 * 10**9 + i * STEP, "ab", [i, i])))
    _, said = bring_in(write(tmp_path / "clocks", rows))
    assert "are of two clocks" in said
    assert "clock=arrival" in said
    store, _ = bring_in(write(tmp_path / "arrived", rows), MAPPING, "clock=arrival")
    assert store[0]["action"][:, 0].tolist() == list(range(FRAMES))


def pack_rvl(levels: np.ndarray) -> bytes:
    """RVL as its paper writes it, one nibble after another."""
    nibbles: list[int] = []

    def put(value: int) -> None:
        while True:
            value, low = value >> 3, value & 7
            nibbles.append(low | 8 if value else low)
            if not value:
                return

    flat, at, previous = levels.ravel().tolist(), 0, 0
    while at < len(flat):
        zeros = 0
        while at + zeros < len(flat) and flat[at + zeros] == 0:
            zeros += 1
        at += zeros
        count = 0
        while at + count < len(flat) and flat[at + count]:
            count += 1
        put(zeros)
        put(count)
        for level in flat[at : at + count]:
            step = level - previous
            put(step << 1 if step >= 0 else ((-step) << 1) - 1)
            previous = level
        at += count
    nibbles += [0] * (-len(nibbles) % 8)
    words = [
        sum(nibble << (28 - 4 * place) for place, nibble in enumerate(nibbles[i : i + 8]))
        for i in range(0, len(nibbles), 8)
    ]
    return struct.pack("<ii", levels.shape[1], levels.shape[0]) + struct.pack(f"<{len(words)}I", *words)


def depth_levels(seed: int) -> np.ndarray:
    levels = np.random.default_rng(seed).integers(300, 4000, (48, 64)).astype(np.uint16)
    levels[::3, ::2] = 0
    levels[10:20] = 0
    return levels


@pytest.mark.parametrize("codec", ["png", "rvl"])
def test_compressed_depth_stays_sixteen_bits(tmp_path, bring_in, codec):
    rows: list[Row] = commands()
    for i in range(FRAMES):
        levels = depth_levels(i)
        body = cv2.imencode(".png", levels)[1].tobytes() if codec == "png" else pack_rvl(levels)
        data = np.frombuffer(struct.pack("<iff", 0, 0, 0) + body, np.uint8)
        message = T["sensor_msgs/msg/CompressedImage"](
            header=header(START + i * STEP), format=f"16UC1; compressedDepth {codec}", data=data
        )
        rows.append(("/depth/compressedDepth", START + i * STEP, message))
    mapping = MAPPING.replace(
        "/joint_states, feature: observation.state, names: [a, b], max_age: 0.2, dtype: float64",
        "/depth/compressedDepth, feature: observation.images.depth",
    )
    store, _ = bring_in(write(tmp_path / codec, rows), mapping)
    assert store.schema["observation.images.depth"].dtype == "uint16"
    assert store.schema["observation.images.depth"].depth == {"unit": "mm", "scale": 0.001}
    for i in (0, 7, FRAMES - 1):
        np.testing.assert_array_equal(store[0]["observation.images.depth"][i][:, :, 0], depth_levels(i))


def test_inverse_depth_becomes_metres():
    levels = np.array([[0, 500], [1000, 2000]], np.uint16)
    body = struct.pack("<iff", 0, 1000.0, 10.0) + cv2.imencode(".png", levels)[1].tobytes()
    found = decode_compressed_depth(np.frombuffer(body, np.uint8), "32FC1; compressedDepth png")
    assert found.shape == (2, 2, 1)
    assert np.isnan(found[0, 0, 0])
    np.testing.assert_allclose(found.ravel()[1:], 1000 / (levels.ravel()[1:] - 10.0), rtol=1e-6)


@pytest.mark.parametrize("cut", [5, 12, 16, 22, 60])
@pytest.mark.parametrize("codec", ["png", "rvl"])
def test_a_cut_depth_image_is_an_error(cut, codec):
    levels = depth_levels(0)
    body = cv2.imencode(".png", levels)[1].tobytes() if codec == "png" else pack_rvl(levels)
    raw = np.frombuffer((struct.pack("<iff", 0, 0, 0) + body)[:cut], np.uint8)
    with pytest.raises(ValueError, match=r"depth image"):
        decode_compressed_depth(raw, f"16UC1; compressedDepth {codec}")


OWN = "int32 mode\nfloat64[] grips\n"
OWN_MAPPING = MAPPING.replace("/cmd, feature: action,", "/hand, feature: action, fields: [grips],")


def own_rows() -> tuple[Any, list[Row]]:
    types = get_typestore(Stores.ROS2_HUMBLE)
    types.register(get_types_from_msg(OWN, "my_hand/msg/Grip"))
    grip = types.types["my_hand/msg/Grip"]
    rows: list[Row] = [("/hand", START + i * STEP, grip(mode=1, grips=np.array([i, 2.0 * i]))) for i in range(FRAMES)]
    return types, rows


def test_a_message_that_the_bag_does_not_define_is_named_and_may_be_given(tmp_path, bring_in):
    types, rows = own_rows()
    raw = [(time, bytes(types.serialize_cdr(message, "my_hand/msg/Grip"))) for _, time, message in rows]
    state = [(START + i * STEP, joints(START + i * STEP, "ab", [i, -i])) for i in range(FRAMES)]
    channels = [("/joint_states", JOINTS, state), ("/hand", "my_hand/msg/Grip", raw)]
    bag = write_channels(tmp_path / "own.mcap", channels)
    _, said = bring_in(bag, OWN_MAPPING)
    assert "/hand holds messages of type my_hand/msg/Grip, and the bag does not define my_hand/msg/Grip" in said
    assert "truncated" not in said
    (tmp_path / "defs/my_hand/msg").mkdir(parents=True)
    (tmp_path / "defs/my_hand/msg/Grip.msg").write_text(OWN)
    store, _ = bring_in(bag, OWN_MAPPING, f"definitions={tmp_path / 'defs'}")
    assert store[0]["action"][:, 1].tolist() == [2.0 * i for i in range(FRAMES)]


def test_a_common_message_without_its_definition_is_read_all_the_same(tmp_path, bring_in):
    state = [(START + i * STEP, joints(START + i * STEP, "ab", [i, -i])) for i in range(FRAMES)]
    own = [(time, message) for _, time, message in commands()]
    channels = [("/joint_states", JOINTS, state), ("/cmd", NUMBERS, own)]
    store, _ = bring_in(write_channels(tmp_path / "bare.mcap", channels, {1: ""}))
    assert store[0]["observation.state"][:, 0].tolist() == list(range(FRAMES))


def test_two_definitions_of_one_type_are_named(tmp_path, bring_in):
    state = [(START + i * STEP, joints(START + i * STEP, "ab", [i, -i])) for i in range(FRAMES)]
    types, rows = own_rows()
    raw = [(time, bytes(types.serialize_cdr(message, "my_hand/msg/Grip"))) for _, time, message in rows]
    channels = [
        ("/joint_states", JOINTS, state),
        ("/hand", "my_hand/msg/Grip", raw),
        ("/hand", "my_hand/msg/Grip", raw),
    ]
    bag = write_channels(tmp_path / "versions.mcap", channels, {2: OWN, 3: "float64[] grips\n"})
    _, said = bring_in(bag, OWN_MAPPING)
    assert "define my_hand/msg/Grip differently" in said
    store, _ = bring_in(bag, OWN_MAPPING.replace("fields:", "channel: 2, fields:"))
    assert store[0]["action"][:, 0].tolist() == list(range(FRAMES))


def test_other_kinds_of_bag_are_called_what_they_are(tmp_path, bring_in):
    own = [(time, message) for _, time, message in commands()]
    _, said = bring_in(write_channels(tmp_path / "other.mcap", [("/cmd", NUMBERS, own)], profile="ros1"))
    assert "was not written by ROS 2" in said
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n")
    _, said = bring_in(tmp_path / "old.bag")
    assert "a bag of ROS 1" in said


def test_a_bag_that_moves_or_is_packed_anew_is_the_same_and_one_that_is_added_is_new(tmp_path, bring_in, run_command):
    state = [("/joint_states", START + i * STEP, joints(START + i * STEP, "ab", [i, -i])) for i in range(FRAMES)]
    other = [("/joint_states", START + i * STEP, joints(START + i * STEP, "ab", [i, 3])) for i in range(FRAMES)]
    (tmp_path / "bags").mkdir()
    write(tmp_path / "bags/b1", state + commands())
    first, _ = bring_in(tmp_path / "bags")
    raw = [(time, message) for _, time, message in state]
    own = [(time, message) for _, time, message in commands()]
    write_channels(tmp_path / "bags/b0.mcap", [("/cmd", NUMBERS, own), ("/joint_states", JOINTS, raw)])
    write(tmp_path / "bags/b2", other + commands())
    (tmp_path / "bags/b1").rename(tmp_path / "bags/b9")
    again, said = bring_in(tmp_path / "bags")
    assert len(again) == 2, said
    assert first[0].uuid in again
    assert sorted(episode["observation.state"][5, 1] for episode in again) == [-5, 3]


def test_colours_whose_order_a_bag_does_not_say_are_noted(tmp_path, bring_in):
    pixels = np.zeros((12, 16, 3), np.uint8)
    rows = [
        *commands(),
        *(
            (
                "/front",
                START + i * STEP,
                T["sensor_msgs/msg/Image"](
                    header=header(START + i * STEP), height=12, width=16, encoding="8UC3", is_bigendian=0, step=48,
                    data=pixels.ravel(),
                ),
            )
            for i in range(FRAMES)
        ),
    ]  # fmt: skip
    mapping = """
fps: 10
topics:
  - {topic: /front, feature: observation.images.front, max_age: 0.2}
  - {topic: /cmd, feature: action, max_age: 0.2}
"""
    store, said = bring_in(write(tmp_path / "bag", rows), mapping)
    assert store is not None
    assert said.count("/front is 8UC3, which does not say the order of its colours") == 1
