"""LeRobot's own SO-101 driver and Feetech's own SDK, in front of servos that are simulated on the serial line."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("scservo_sdk", reason="the test extra feetech-servo-sdk is not installed")

from feetech_servos import GOAL, TORQUE, Servo, ServoBus

from robo_hw import RobotContract
from robo_policies.robots.arm import ArmError
from robo_policies.robots.lerobot_arm import LeRobotArm, LeRobotSettings, make_robot

# Servos answer within milliseconds, which two cores that work on other tests do not grant.
pytestmark = pytest.mark.alone

MOTORS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
LIMITS = [(750, 3345), (830, 3300), (880, 3250), (890, 3200), (0, 4095), (2030, 3400)]
OFFSETS = [-12, 40, 7, -300, 0, 1200]
POSITIONS = [2104, 1400, 2700, 2300, 1820, 2600]


def so101(**lerobot) -> RobotContract:
    data = RobotContract.load("so101").to_dict() | {"cameras": []}
    data["lerobot"] |= lerobot
    return RobotContract.from_dict(data)


def calibration() -> dict:
    return {
        name: {"id": i + 1, "drive_mode": 0, "homing_offset": OFFSETS[i], "range_min": low, "range_max": high}
        for i, (name, (low, high)) in enumerate(zip(MOTORS, LIMITS, strict=True))
    }


@pytest.fixture
def bus():
    servos = [Servo(i + 1, POSITIONS[i], LIMITS[i], OFFSETS[i]) for i in range(6)]
    with ServoBus(servos) as made:
        yield made


@pytest.fixture
def settings(bus, tmp_path) -> LeRobotSettings:
    (tmp_path / "mine.json").write_text(json.dumps(calibration()))
    return LeRobotSettings(type="so101_follower", port=bus.port, id="mine", calibration_dir=str(tmp_path))


def test_degrees_and_gripper_of_the_real_driver_are_the_contracts_radians(bus, settings):
    arm = LeRobotArm(make_robot(settings), so101(), settings.type)
    arm.connect()
    reading = arm.read()
    expected = [(p - sum(limits) / 2) * 2 * np.pi / 4095 for p, limits in zip(POSITIONS, LIMITS, strict=True)]
    expected[5] = -0.174 + (2600 - 2030) / (3400 - 2030) * 1.919
    assert tuple(reading.names) == MOTORS
    assert np.allclose(reading.positions, expected, atol=1e-6)
    target = np.array(expected) + 0.05
    arm.write(target)
    deadline = time.monotonic() + 5
    while np.abs(arm.read().positions - target).max() > 0.003 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert np.allclose(arm.read().positions, target, atol=0.003)  # a step of the encoder is 0.0015 rad
    assert arm.at_disconnect == "so101_follower cuts the motors' torque at disconnect: the arm falls unless it is held"
    arm.disconnect()
    assert not any(servo.memory[TORQUE] for servo in bus.servos.values())


def test_shares_of_the_range_of_the_real_driver_are_the_same_radians(bus, settings):
    contract = so101(
        units="range_m100_100",
        calibration=calibration(),
        joints=[{"joint": "gripper", "units": "range_0_100", "range": [-0.174, 1.745]}],
    )
    import dataclasses

    shares = dataclasses.replace(settings, options={"use_degrees": False, "disable_torque_on_disconnect": False})
    arm = LeRobotArm(make_robot(shares), contract, shares.type)
    arm.connect()
    expected = [(p - sum(limits) / 2) * 2 * np.pi / 4095 for p, limits in zip(POSITIONS, LIMITS, strict=True)]
    assert np.allclose(arm.read().positions[:5], expected[:5], atol=1e-6)
    assert "leaves the torque on" in arm.at_disconnect
    arm.disconnect()
    assert all(servo.memory[TORQUE] for servo in bus.servos.values())
    with pytest.raises(
        ArmError, match=r"shoulder_pan.pos of so101_follower is in -100..100, the contract's .* degrees"
    ):
        LeRobotArm(make_robot(shares), so101(), shares.type)


def test_an_arm_that_was_calibrated_elsewhere_is_not_driven(bus, settings):
    bus.servos[3].write(9, (700).to_bytes(2, "little"))  # its lower limit
    with pytest.raises(ArmError, match=r"so101_follower is not calibrated as .*mine.json says"):
        LeRobotArm(make_robot(settings), so101(), settings.type).connect()


def test_a_missing_servo_and_a_pulled_line_are_said(bus, settings):
    arm = LeRobotArm(make_robot(settings), so101(), settings.type)
    arm.connect()
    bus.silent = True
    with pytest.raises(ConnectionError):
        arm.read()
    arm.disconnect()
    bus.silent = False
    del bus.servos[4]
    with pytest.raises(ArmError, match=r"so101_follower cannot be connected: .*Missing motor IDs: - 4"):
        LeRobotArm(make_robot(settings), so101(), settings.type).connect()


def test_reading_and_writing_at_once_never_mix_on_the_line(bus, settings):
    arm = LeRobotArm(make_robot(settings), so101(), settings.type)
    arm.connect()
    here, errors = arm.read().positions, []

    def write() -> None:
        try:
            for i in range(60):
                arm.write(here + 0.001 * (i % 3))
        except Exception as error:  # noqa: BLE001 - whatever it is fails the test
            errors.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(60):
        assert len(arm.read().names) == 6
    thread.join()
    arm.disconnect()
    assert errors == []
    assert bus.overlaps == 0
    assert bus.servos[1].word(GOAL) > 0
