"""What is given to the policy together was taken together."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from robo_hw import RobotContract
from robo_hw.observation.observation_buffer import ObservationBuffer

DRAWER = RobotContract.load("tidy_drawer")
NEEDS = {
    "observation.state": (7,),
    "observation.images.front": (128, 128, 3),
    "observation.images.wrist": (128, 128, 3),
}
IMAGE = np.zeros((128, 128, 3), np.uint8)


def fill(buffer: ObservationBuffer, moments: list[float], stamped: bool = True) -> None:
    for moment in moments:
        buffer.joints(DRAWER.joint_names, np.full(7, moment), moment, 1000 + moment if stamped else None)


def test_the_newest_joint_state_is_used_where_the_images_are_close_enough():
    buffer = ObservationBuffer(DRAWER, [], 0.2)
    fill(buffer, [0.0, 0.02, 0.04, 0.06])
    buffer.image("front", IMAGE, 0.05, 1000.02)
    buffer.image("wrist", IMAGE, 0.06, 1000.03)
    observation = buffer.snapshot(NEEDS, 0.06)
    assert observation is not None
    assert observation.observed_at == 0.06


def test_slow_cameras_get_the_joint_state_of_their_own_time():
    buffer = ObservationBuffer(DRAWER, [], 0.2)
    fill(buffer, [i * 0.02 for i in range(16)])
    buffer.image("front", IMAGE, 0.16, 1000.1)
    buffer.image("wrist", IMAGE, 0.16, 1000.12)
    observation = buffer.snapshot(NEEDS, 0.3)
    assert observation is not None
    assert observation.observed_at == pytest.approx(0.2), "the newest within 0.1 s of both"
    assert observation.positions[0] == pytest.approx(0.2)


@pytest.mark.parametrize("stamped", [True, False])
def test_an_image_apart_from_every_joint_state_makes_no_observation_and_is_named(stamped):
    buffer = ObservationBuffer(DRAWER, [], 0.2)
    buffer.joints(DRAWER.joint_names, np.zeros(7), 1.0, 1001.0 if stamped else None)
    buffer.image("front", IMAGE, 1.0, 1000.98 if stamped else None)
    buffer.image("wrist", IMAGE, 1.0 if stamped else 0.61, 1000.61 if stamped else None)
    (reason,) = buffer.missing(NEEDS, 1.0)
    assert "camera wrist: its image was taken 0.390 s apart from every joint state, the limit" in reason
    assert buffer.snapshot(NEEDS, 1.0) is None


def test_two_cameras_that_no_joint_state_joins_are_named():
    buffer = ObservationBuffer(DRAWER, [], 0.2)
    fill(buffer, [i * 0.02 for i in range(20)])
    buffer.image("front", IMAGE, 0.38, 1000.38)
    buffer.image("wrist", IMAGE, 0.38, 1000.1)
    (reason,) = buffer.missing(NEEDS, 0.38)
    assert reason.startswith("cameras front, wrist: no joint state lies within 0.1 s")


def test_the_largest_skew_is_the_contracts():
    wide = dataclasses.replace(DRAWER, deadlines=dataclasses.replace(DRAWER.deadlines, skew=0.5))
    buffer = ObservationBuffer(wide, [], 0.2)
    buffer.joints(DRAWER.joint_names, np.zeros(7), 1.0, 1001.0)
    for name in ("front", "wrist"):
        buffer.image(name, IMAGE, 1.0, 1000.61)
    assert buffer.missing(NEEDS, 1.0) == []


def test_what_was_seen_before_a_moment_or_is_gone_makes_no_observation():
    buffer = ObservationBuffer(DRAWER, [], 0.2)
    fill(buffer, [0.0, 0.02])
    for name in ("front", "wrist"):
        buffer.image(name, IMAGE, 0.02, 1000.02)
    assert buffer.snapshot(NEEDS, 0.02, since=0.02) is not None
    assert buffer.snapshot(NEEDS, 0.02, since=0.03) is None
    buffer.image("front", lambda: None, 0.02, 1000.02)
    assert buffer.missing(NEEDS, 0.02) == []
    assert buffer.snapshot(NEEDS, 0.02) is None
    buffer.image("front", lambda: IMAGE + 1, 0.02, 1000.02)
    observation = buffer.snapshot(NEEDS, 0.02)
    assert observation is not None
    assert observation.images["front"].max() == 1


def test_old_joint_states_are_forgotten():
    buffer = ObservationBuffer(DRAWER, [], 0.2)
    fill(buffer, [i * 0.001 for i in range(5000)])
    assert len(buffer._joints) <= 2000
    buffer.forget()
    assert buffer.missing({"observation.state": (7,)}, 5.0) == ["joint states are missing or old"]
