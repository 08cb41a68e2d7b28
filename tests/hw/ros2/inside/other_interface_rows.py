"""The other ways to speak to a robot, through DDS: `forward_command_controller` and compressed pictures.

And what is recorded live against what is imported from the bag of the same episode.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from rig import Rig, other_environment, patient_contract, project_python, rig
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool

from robo_rm_bridge.conversions import sensor_qos


class ForwardRig(Rig):
    """The same arm behind a controller that takes positions alone, with cameras that send JPEG."""

    def contract_text(self) -> str:
        text = patient_contract()
        for old, new in (
            (
                "command: {name: joint_trajectory_controller/joint_trajectory, interface: joint_trajectory}",
                "command: {name: /forward_command_controller/commands, interface: forward_command}",
            ),
            ("topic: front/image_raw", "topic: front/image_raw/compressed"),
            ("topic: wrist/image_raw", "topic: wrist/image_raw/compressed"),
        ):
            assert old in text
            text = text.replace(old, new)
        return text


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    with rig(tmp_path_factory.mktemp("forward"), ForwardRig) as made:
        yield made


@pytest.fixture(scope="session")
def recorded(processes: ForwardRig) -> tuple[Path, Path]:
    """A store and the folder of bags, of one and the same episode."""
    store, bags = processes.folder / "demos.zarr", processes.folder / "bags"
    recorder = processes.start(
        "recorder_node", contract=processes.contract_file, store=store, bag=bags, task="swing", max_age=2.0
    )
    observer, name = processes.observer, "/robo_rm_recorder"
    processes.run()
    processes.wait("recording", lambda: observer.trigger(f"{name}/start")[0])
    processes.spin(2.5)
    saved = observer.call(SetBool, f"{name}/save", SetBool.Request(data=True))
    assert saved.success, saved.message
    assert recorder.end() == 0, recorder.text()
    return store, bags


def test_positions_alone_move_the_arm_inside_its_limits_and_stop_it(processes):
    processes.run()
    before = processes.observer.measured.copy()
    processes.spin(0.5)
    assert np.abs(processes.observer.measured - before).max() > 0.01, "it moves"
    assert isinstance(processes.observer.commands[-1], Float64MultiArray)
    processes.server.say("nan")
    processes.comes_to_rest("holding")
    assert "rejected: forearm_roll: action 7 is nan" in processes.said()


def test_in_a_fault_a_controller_that_keeps_commands_is_given_the_measured_pose_and_never_one_far_from_it(processes):
    processes.run()
    observer, leash = processes.observer, processes.contract.array("following_error")
    assert processes.contract.safety.in_fault == "follow_measured"
    assert observer.trigger("/robo_rm_policy/estop")[0]
    processes.comes_to_rest("fault")
    before = observer.measured.copy()
    observer.set_parameter("/mujoco_arm", "fault", "freedrive")
    processes.wait("a person moves it", lambda: np.abs(observer.measured - before).max() > 0.7, 8.0)
    processes.spin(0.5)
    processes.forget()
    processes.spin(0.3)
    assert observer.commands, "it goes on telling the controller where the arm is"
    for message in observer.commands:
        assert (np.abs(np.array(message.data) - observer.measured) <= leash).all()
    assert np.abs(np.array(observer.commands[-1].data) - before).max() > 0.3, "not where it was stopped"


def test_compressed_pictures_reach_the_policy_and_failing_ones_stop_the_arm(processes):
    seen: list[CompressedImage] = []
    observer = processes.observer
    listening = observer.create_subscription(CompressedImage, "/front/image_raw/compressed", seen.append, sensor_qos())
    processes.run()
    processes.wait("a picture comes", lambda: bool(seen))
    observer.destroy_subscription(listening)
    assert "jpeg" in seen[0].format
    observer.set_parameter("/mujoco_arm", "fault", "frozen_camera")
    processes.comes_to_rest("holding", seconds=6.0)
    assert "has shown the same image" in processes.said()


def test_a_bag_imports_to_what_was_recorded_live(processes, recorded):
    from robo_datasets import DemoStore

    store, bags = recorded
    imported = processes.folder / "imported.zarr"
    words = ["import", "rosbag", f"source={bags}", f"store={imported}", f"robot={processes.contract_file}"]
    done = subprocess.run(
        [project_python(), "-m", "robo_core.cli.main", *words],
        env=other_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    live, again = DemoStore.open(store), DemoStore.open(imported)
    assert live.contract_hash == again.contract_hash
    assert set(live.features) == set(again.features)
    assert len(again) == len(live) == 1
    assert abs(again[0].length - live[0].length) <= 12, "the bag begins once every topic has spoken"
    for key, allowed in (("observation.state", 0.02), ("action", 0.02)):
        mine, theirs = live[0][key][:, :6], again[0][key][:, :6]
        assert _distance(mine, theirs) < allowed, key
    assert again[0]["observation.images.front"][0].std() > 5


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """The median difference (rad) of two tracks, whose frames may lie up to a frame apart, at the best shift."""
    best = np.inf
    for shift in range(-12, 13):
        first, second = a[max(shift, 0) :], b[max(-shift, 0) :]
        n = min(len(first), len(second))
        if n >= 20:
            best = min(best, float(np.median(np.abs(first[:n] - second[:n]).max(axis=1))))
    return best


def _jpeg(width: int, height: int) -> bytes:
    import cv2

    return cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "neither JPEG nor PNG"),
        (b"no picture", "neither JPEG nor PNG"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "segments are damaged"),
        (b"\xff\xd8", "ends before its size"),
        (lambda: _jpeg(128, 64) + bytes(200_000), "at this size at most 131072 are taken"),
        (lambda: _jpeg(64, 128), "64 x 128 pixels, the contract has 128 x 64"),
        (lambda: _jpeg(128, 64)[:300], "damaged jpeg"),
    ],
)
def test_a_compressed_image_that_is_none_is_refused(data, said):
    from rclpy.serialization import serialize_message

    from robo_rm_bridge.errors import MessageError
    from robo_rm_bridge.images import decode

    message = serialize_message(CompressedImage(format="jpeg", data=data() if callable(data) else data))
    with pytest.raises(MessageError, match=said):
        decode(message, True, 128, 64)


@pytest.mark.parametrize(("topic", "kind"), [("/a/image_raw", Image), ("/a/image_raw/compressed", CompressedImage)])
def test_an_image_comes_back_from_its_message_as_it_goes_over_the_wire(topic, kind):
    from builtin_interfaces.msg import Time
    from rclpy.serialization import serialize_message

    from robo_rm_bridge.images import decode, is_compressed, message_from_rgb

    rgb = np.zeros((32, 48, 3), np.uint8)
    rgb[:, :24, 0], rgb[:, 24:, 2] = 200, 100
    for frame in ("", "a", "ab", "abc", "front"):  # every alignment behind a text
        message = message_from_rgb(topic, rgb, frame, Time(sec=3, nanosec=7))
        assert isinstance(message, kind)
        back, stamp = decode(serialize_message(message), is_compressed(topic), 48, 32)
        assert np.abs(back.astype(int) - rgb).mean() < 3.0
        assert stamp == (3, 7)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": 64}, "64 x 32 pixels, the contract has 48 x 32"),
        ({"width": 14_000, "height": 14_000}, "14000 x 14000 pixels"),
        ({"step": 48}, "step 48 is 1 bytes per pixel, but the encoding rgb8 has 3"),
        ({"step": 2**31}, "but the encoding rgb8 has 3"),
        ({"encoding": "mono8"}, "step 144 is 3 bytes per pixel, but the encoding mono8 has 1"),
        ({"encoding": "rgba8"}, "but the encoding rgba8 has 4"),
        ({"encoding": "16UC1"}, "encoding '16UC1' is not among"),
        ({"data": bytes(100)}, "100 bytes of data; 32 rows of 144 bytes"),
        ({"data": bytes(32 * 144 * 2)}, "9216 bytes of data"),
    ],
)
def test_a_raw_image_that_lies_about_itself_is_refused(change, said):
    from rclpy.serialization import serialize_message

    from robo_rm_bridge.errors import MessageError
    from robo_rm_bridge.images import decode

    fields = {"width": 48, "height": 32, "step": 144, "encoding": "rgb8", "data": bytes(32 * 144)} | change
    with pytest.raises(MessageError, match=said):
        decode(serialize_message(Image(**fields)), False, 48, 32)


def test_rows_with_padding_are_an_image():
    from rclpy.serialization import serialize_message

    from robo_rm_bridge.images import decode

    rows = np.zeros((4, 16), np.uint8)
    rows[:, :15] = np.arange(60).reshape(4, 15)
    message = Image(width=5, height=4, step=16, encoding="bgr8", data=rows.tobytes())
    rgb, _ = decode(serialize_message(message), False, 5, 4)
    assert np.array_equal(rgb[..., ::-1].reshape(4, 15), rows[:, :15])


def test_a_message_that_ends_early_is_refused_at_every_byte():
    from rclpy.serialization import serialize_message

    from robo_rm_bridge.errors import MessageError
    from robo_rm_bridge.images import decode

    whole = serialize_message(Image(width=2, height=2, step=6, encoding="rgb8", data=bytes(12)))
    for end in range(len(whole)):
        with pytest.raises(MessageError):
            decode(whole[:end], False, 2, 2)
