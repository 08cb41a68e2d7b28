"""The contract's section lerobot: LeRobot's names and units become the contract's, and nothing is guessed."""

from __future__ import annotations

import copy
import json
import math
import re

import numpy as np
import pytest
import yaml

from robo_hw import RobotContract
from robo_hw.contract.lerobot_units import LeRobotUnits, load_calibration, parse_calibration, reach_problems
from robo_hw.errors import ContractError

SO101 = RobotContract.load("so101")
MOTORS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
CALIBRATION = {
    name: {"id": i + 1, "drive_mode": 0, "homing_offset": -12, "range_min": 780, "range_max": 3340}
    for i, name in enumerate(MOTORS)
} | {"wrist_roll": {"id": 5, "drive_mode": 0, "homing_offset": 3, "range_min": 0, "range_max": 4095}}

TURNED = CALIBRATION["gripper"] | {"drive_mode": 1}


def so101(**section) -> RobotContract:
    data = SO101.to_dict()
    data["lerobot"] = {"units": "degrees", "joints": data["lerobot"]["joints"][-1:], **section}
    return RobotContract.from_dict(data)


def problems(**section) -> str:
    with pytest.raises(ContractError) as error:
        so101(**section)
    return str(error.value)


def test_the_packaged_so101_is_in_degrees_with_a_gripper_of_0_to_100():
    units = LeRobotUnits(SO101)
    assert units.names == tuple(f"{name}.pos" for name in MOTORS)
    assert units.described() == "degrees, gripper 0..100"
    assert np.allclose(
        units.to_contract([90, -45, 0, 1, 180, 0]), [math.pi / 2, -math.pi / 4, 0, math.pi / 180, math.pi, -0.174]
    )
    assert units.to_contract(np.full((3, 6), 100.0))[0, 5] == pytest.approx(1.745)


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6)])
def test_converting_there_and_back_changes_nothing(shape):
    values = np.random.default_rng(0).uniform(-1.5, 1.5, shape)
    units = LeRobotUnits(so101(units="range_m100_100", calibration=CALIBRATION))
    assert np.allclose(units.to_contract(units.from_contract(values)), values, atol=1e-12)


def test_shares_of_the_range_are_what_lerobots_own_motor_bus_makes_of_ticks():
    """The same ticks through LeRobot's normalisation and through a turn of the encoder."""
    from lerobot.motors import Motor, MotorCalibration, MotorNormMode
    from lerobot.motors.feetech import FeetechMotorsBus

    class Bus:  # the two methods of LeRobot's that matter, without a serial port
        _normalize = FeetechMotorsBus._normalize
        apply_drive_mode = FeetechMotorsBus.apply_drive_mode
        model_resolution_table = FeetechMotorsBus.model_resolution_table

        def __init__(self, mode, drive: int) -> None:
            self.motors = {"elbow_flex": Motor(3, "sts3215", mode)}
            self.calibration = {"elbow_flex": MotorCalibration(3, drive, 0, 780, 3340)}

        def _id_to_name(self, _):
            return "elbow_flex"

        def _id_to_model(self, _):
            return "sts3215"

    def lerobot(mode: str, drive: int, ticks: int) -> float:
        return Bus(MotorNormMode(mode), drive)._normalize({3: ticks})[3]

    for drive in (0, 1):
        calibration = copy.deepcopy(CALIBRATION)
        calibration["elbow_flex"]["drive_mode"] = drive
        degrees = LeRobotUnits(so101(calibration=calibration))
        shares = LeRobotUnits(so101(units="range_m100_100", calibration=calibration, apply_drive_mode=True))
        for ticks in (780, 1000, 2060, 3340):
            true = (ticks - 2060) * 2 * math.pi / 4095
            assert degrees.to_contract([0, 0, lerobot("degrees", drive, ticks), 0, 0, 0])[2] == pytest.approx(true)
            turned = shares.to_contract([0, 0, lerobot("range_m100_100", drive, ticks), 0, 0, 0])[2]
            assert turned == pytest.approx(true)


@pytest.mark.parametrize(
    ("section", "match"),
    [
        ({"units": "degree"}, "did you mean 'degrees'"),
        ({"units": None}, "lerobot.units: missing for shoulder_pan; give one of degrees"),
        ({"units": "range_m100_100"}, r"shoulder_pan: -100..100 is a fraction of a range: give range: .*: FILE"),
        ({"units": "metres"}, "shoulder_pan: metres does not fit a revolute joint"),
        ({"joints": [{"joint": "shoulder"}]}, "'shoulder' is not a joint of this contract"),
        ({"joints": [{"joint": "gripper"}, {"joint": "gripper"}]}, "'gripper' is given twice"),
        ({"joints": [{"joint": "gripper", "name": "elbow_flex.pos"}]}, "the name 'elbow_flex.pos' is given twice"),
        ({"joints": [{"joint": "gripper", "sign": 0}]}, "0 is neither 1 nor -1"),
        ({"joints": [{"joint": "gripper", "sign": 2}]}, "2 must be between -1 and 1"),
        ({"joints": [{"joint": "gripper", "range": [0, 1]}]}, "range is for fractions of a range, not for degrees"),
        ({"joints": [{"joint": "gripper", "units": "range_0_100", "range": [-10, 100]}]}, "not degrees"),
        ({"joints": [{"joint": "gripper", "units": "range_0_100", "range": [1, 1]}]}, "both ends are 1"),
        ({"joints": [{"joint": "gripper", "units": "range_0_100", "range": 1}]}, "1 is not two numbers"),
        ({"joints": [{"joint": "gripper", "name": "gripper"}]}, "could not be distinguished"),
        ({"robots": "so101_follower"}, "is not a list of texts"),
        ({"unit": "degrees"}, "unknown key; did you mean 'units'"),
        ({"calibration": {}}, "not a LeRobot calibration"),
        ({"calibration": "my_arm.json"}, "can be named only in a contract file"),
        ({"calibration": {"gripper": {"id": 1}}}, "gripper: drive_mode, homing_offset, range_min, range_max is"),
        (
            {"units": "range_m100_100", "calibration": {"gripper": CALIBRATION["gripper"]}},
            "shoulder_pan: -100..100 is a fraction of a range: the calibration has no such motor",
        ),
        (
            {"units": "range_m100_100", "calibration": CALIBRATION | {"elbow_flex": TURNED}},
            "the calibration has drive_mode 1 for elbow_flex.pos: give true",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_section_is_named_with_its_joint(section, match):
    assert re.search(match, problems(**section)), problems(**section)


def test_a_contract_file_reads_the_calibration_beside_it_and_carries_it_from_then_on(tmp_path):
    (tmp_path / "my_arm.json").write_text(json.dumps(CALIBRATION))
    data = SO101.to_dict()
    data["lerobot"] = {
        "units": "range_m100_100",
        "calibration": "my_arm.json",
        "joints": data["lerobot"]["joints"][-1:],
    }
    (tmp_path / "contract.yaml").write_text(yaml.safe_dump(data))
    contract = RobotContract.load(tmp_path / "contract.yaml")
    half = (3340 - 780) / 2 * 2 * math.pi / 4095
    assert LeRobotUnits(contract).to_contract([100, -100, 0, 0, 0, 0])[:2] == pytest.approx([half, -half])
    again = RobotContract.from_dict(json.loads(json.dumps(contract.to_dict())))
    assert again == contract
    assert again.hash == SO101.hash  # how LeRobot names and counts is deployment
    (tmp_path / "my_arm.json").unlink()
    with pytest.raises(ContractError, match=r"calibration .*my_arm.json: cannot be read"):
        RobotContract.load(tmp_path / "contract.yaml")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "not valid JSON"),
        ("[]", "not a LeRobot calibration"),
        ("{}", "not a LeRobot calibration"),
        ('{"a": 3}', "a: a mapping with id"),
        (json.dumps({"a": CALIBRATION["gripper"] | {"range_min": 3340}}), "range_min 3340 is not below range_max 3340"),
        (json.dumps({"a": CALIBRATION["gripper"] | {"range_min": 1.5}}), "a: range_min is missing or not a whole"),
        (
            json.dumps({"homing_offset": [1], "drive_mode": [0], "start_pos": [1], "motor_names": ["a"]}),
            "of LeRobot before 0.3",
        ),
        (json.dumps(CALIBRATION) + " " * 300_000, "more than"),
    ],
)
def test_a_damaged_or_foreign_calibration_is_refused_in_one_line(tmp_path, content, match):
    path = tmp_path / "arm.json"
    path.write_text(content)
    with pytest.raises(ContractError, match=match) as error:
        load_calibration(path)
    assert "\n" not in str(error.value)


def test_a_joint_that_was_not_calibrated_from_end_to_end_is_named():
    motors, wrong = parse_calibration(CALIBRATION)
    assert not wrong
    assert reach_problems(SO101) == []
    assert reach_problems(SO101, motors) == []
    short, _ = parse_calibration(CALIBRATION | {"elbow_flex": CALIBRATION["elbow_flex"] | {"range_min": 1800}})
    (line,) = reach_problems(SO101, short)
    assert line.startswith("elbow_flex: the calibrated range is [-1.18, 1.18] rad")
    shares = so101(units="range_m100_100", calibration=CALIBRATION | {"elbow_flex": vars(short["elbow_flex"])})
    (line,) = reach_problems(shares)
    assert line.startswith("elbow_flex: -100..100 of LeRobot is [-1.18, 1.18] rad")


def test_a_contract_without_the_section_says_so():
    with pytest.raises(ContractError, match="has no section lerobot"):
        LeRobotUnits(RobotContract.load("ur5e"))
