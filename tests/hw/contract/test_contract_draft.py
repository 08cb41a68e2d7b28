"""`robo-rm make-contract`: what a robot's own files say, and a TODO by name for what they cannot say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from robo_core.cli.main import main
from robo_hw import RobotContract
from robo_hw.contract.joint_limits_file import read_joint_limits
from robo_hw.contract.urdf import read_urdf
from robo_hw.errors import ContractError

UR5E = """<?xml version="1.0" ?>
<robot name="ur5e">
  <link name="world"/>
  <joint name="base_joint" type="fixed"><parent link="world"/><child link="base_link"/></joint>
  <joint name="shoulder_pan_joint" type="revolute">
    <parent link="base_link_inertia"/><child link="shoulder_link"/><origin rpy="0 0 0" xyz="0 0 0.1625"/>
    <axis xyz="0 0 1"/>
    <limit effort="150.0" lower="-6.283185307179586" upper="6.283185307179586" velocity="3.141592653589793"/>
    <dynamics damping="0" friction="0"/>
  </joint>
  <joint name="elbow_joint" type="revolute">
    <axis xyz="0 0 1"/>
    <limit effort="150.0" lower="-3.141592653589793" upper="3.141592653589793" velocity="3.141592653589793"/>
  </joint>
  <joint name="wrist_3_joint" type="continuous">
    <axis xyz="0 0 1"/><limit effort="28.0" velocity="3.141592653589793"/>
  </joint>
  <ros2_control name="ur5e" type="system">
    <hardware><plugin>ur_robot_driver/URPositionHardwareInterface</plugin></hardware>
    <joint name="shoulder_pan_joint"><command_interface name="position"/></joint>
  </ros2_control>
</robot>
"""
PANDA = """<robot name="panda">
  <joint name="panda_joint1" type="revolute">
    <safety_controller k_position="100.0" k_velocity="40.0" soft_lower_limit="-2.8973" soft_upper_limit="2.8973"/>
    <limit effort="87" lower="-2.9671" upper="2.9671" velocity="2.1750"/>
  </joint>
  <joint name="panda_joint8" type="fixed"/>
  <joint name="panda_finger_joint1" type="prismatic">
    <limit effort="20" lower="0.0" upper="0.04" velocity="0.2"/>
  </joint>
  <joint name="panda_finger_joint2" type="prismatic">
    <limit effort="20" lower="0.0" upper="0.04" velocity="0.2"/><mimic joint="panda_finger_joint1"/>
  </joint>
</robot>
"""
SO101 = """<robot name="so101_new_calib">
  <joint name="shoulder_pan" type="revolute">
    <limit effort="10" velocity="100" lower="-1.91986" upper="1.91986"/>
  </joint>
  <joint name="gripper" type="revolute"><limit effort="10" velocity="10" lower="-0.174533" upper="1.74533"/></joint>
</robot>
"""
MOVEIT = """# joint_limits.yaml allows the dynamics properties specified in the URDF to be overwritten
default_velocity_scaling_factor: 0.1
default_acceleration_scaling_factor: 0.1
joint_limits:
  panda_joint1:
    has_velocity_limits: true
    max_velocity: 2.1
    has_acceleration_limits: true
    max_acceleration: 3.75
    has_jerk_limits: false
    max_jerk: 7500
  panda_finger_joint1:
    has_velocity_limits: true
    max_velocity: 0.1
    has_acceleration_limits: false
    max_acceleration: 0
"""
CALIBRATION = {
    "shoulder_pan": {"id": 1, "drive_mode": 0, "homing_offset": -1470, "range_min": 758, "range_max": 3292},
    "gripper": {"id": 6, "drive_mode": 0, "homing_offset": 1407, "range_min": 2034, "range_max": 3511},
}


def files(tmp_path: Path, **contents: str) -> dict[str, str]:
    """Write files named ``kind`` -> content; returns kind -> path."""
    names = {"urdf": "robot.urdf", "limits": "joint_limits.yaml", "lerobot": "my_arm.json"}
    for kind, text in contents.items():
        (tmp_path / names[kind]).write_text(text)
    return {kind: str(tmp_path / names[kind]) for kind in contents}


def make(tmp_path: Path, capsys, **contents: str) -> tuple[dict, str]:
    """Run the command; returns the contract as YAML reads it, and what was said."""
    words = [f"{kind}={path}" for kind, path in files(tmp_path, **contents).items()]
    code = main(["make-contract", *words, f"out={tmp_path}/contract.yaml"])
    said = capsys.readouterr()
    assert code == 0, said.err
    return yaml.safe_load((tmp_path / "contract.yaml").read_text()), said.out


def test_a_ur5e_gives_its_joints_and_limits_and_every_gap_is_named(tmp_path, capsys):
    data, said = make(tmp_path, capsys, urdf=UR5E)
    names = [joint["name"] for joint in data["joints"]]
    assert names == ["shoulder_pan_joint", "elbow_joint", "wrist_3_joint"]
    assert data["joints"][0]["position"] == pytest.approx([-2 * math.pi, 2 * math.pi])
    assert data["joints"][0]["velocity"] == pytest.approx(math.pi)
    assert data["joints"][2]["kind"] == "continuous"
    assert "position" not in data["joints"][2]
    assert "left out: 1 fixed joint" in said
    assert "wrist_3_joint is continuous" in said
    with pytest.raises(ContractError) as error:
        RobotContract.load(tmp_path / "contract.yaml")
    for key in ("joints[0].acceleration", "joints[2].jerk", "joints[1].following_error", "cameras", "rates.control",
                "topics.command.interface", "deadlines.tick", "safety.cool_down"):  # fmt: skip
        assert f"{key}: TODO; give " in str(error.value), key
        assert f"{key}: TODO" in said
    assert "joints[0].velocity" not in str(error.value)
    assert "is not a text" not in str(error.value)


def test_a_completed_draft_loads(tmp_path, capsys):
    make(tmp_path, capsys, urdf=UR5E)
    text = (tmp_path / "contract.yaml").read_text()
    for gap, value in (
        ("cameras: TODO", "cameras: []"),
        ("acceleration: TODO", "acceleration: 3.1"), ("jerk: TODO", "jerk: 60"),
        ("following_error: TODO", "following_error: 0.2"),
        ("name: TODO, interface: TODO", "name: /controller/joint_trajectory, interface: joint_trajectory"),
        ("control: TODO, actions: TODO, joint_states: TODO", "control: 100, actions: 20, joint_states: 500"),
        ("joint_states: TODO, actions: TODO, chunk", "joint_states: 0.05, actions: 1, chunk"),
        ("chunk: TODO, tick: TODO", "chunk: 0.8, tick: 0.04"),
        ("cool_down: TODO, max_stop_time: TODO", "cool_down: 2, max_stop_time: 1.5"),
    ):  # fmt: skip
        assert gap in text, gap
        text = text.replace(gap, value)
    assert "TODO" not in text.partition("\n")[2]
    (tmp_path / "contract.yaml").write_text(text)
    contract = RobotContract.load(tmp_path / "contract.yaml")
    assert contract.robot == "ur5e"
    assert contract.joint_names == ("shoulder_pan_joint", "elbow_joint", "wrist_3_joint")
    # Relative, as in every packaged contract: two arms, each in its namespace, must not share them.
    assert [topic.name for topic in contract.joint_states] == ["joint_states"]
    assert "topic: /" not in text


def test_a_panda_takes_the_narrower_limit_and_leaves_mimic_joints_out(tmp_path, capsys):
    data, said = make(tmp_path, capsys, urdf=PANDA, limits=MOVEIT)
    arm, finger = data["joints"]
    assert arm["position"] == [-2.8973, 2.8973]
    assert (arm["velocity"], arm["acceleration"], arm["jerk"]) == (2.1, 3.75, "TODO")
    assert (finger["kind"], finger["unit"], finger["position"], finger["velocity"]) == (
        "prismatic",
        "m",
        [0, 0.04],
        0.1,
    )
    assert "panda_joint1: position is that of its safety_controller" in said
    assert "left out: panda_finger_joint2 follows panda_finger_joint1 (mimic)" in said
    assert '# gripper: {joint: "panda_finger_joint1"' in (tmp_path / "contract.yaml").read_text()


def test_an_so101_with_its_calibration_gets_the_section_lerobot(tmp_path, capsys):
    data, said = make(tmp_path, capsys, urdf=SO101, lerobot=json.dumps(CALIBRATION))
    assert data["joints"][0]["velocity"] == "TODO"
    assert "shoulder_pan: velocity 100 rad/s of the URDF is a placeholder" in said
    assert data["lerobot"]["calibration"] == "my_arm.json"
    assert data["lerobot"]["units"] == "TODO"  # nothing in LeRobot's files says degrees or shares
    assert "lerobot.units: TODO; give" in said
    assert "lerobot.joints[0].range: TODO; give" in said
    assert "lerobot.robots: TODO; give" in said


def test_a_calibration_alone_is_enough_for_joints_and_positions(tmp_path, capsys):
    data, said = make(tmp_path, capsys, lerobot=json.dumps(CALIBRATION))
    half = (3292 - 758) / 2 * 2 * math.pi / 4095
    low, high = data["joints"][0]["position"]
    assert high == pytest.approx(half, abs=1e-3)
    assert high <= half
    assert low == -high
    assert "zero is the middle of each calibrated range" in said
    assert "robot: TODO; give" in said


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (UR5E.replace("6.283185307179586", "360"), "shoulder_pan_joint: limits -360 to 360 rad .* degrees"),
        (UR5E.replace('name="ur5e">', 'name="ur5e" xmlns:xacro="http://x">', 1), "xacro .*robot.urdf > expanded_robot"),
        ("<mujoco model='so101'/>", "this is MJCF, not a URDF"),
        ("<sdf version='1.7'/>", "this is SDF"),
        ("<robot name='a'>", "not valid XML"),
        ("", "not valid XML"),
        ("<robot name='a'><joint name='j' type='fixed'/></robot>", "no joint moves"),
        ("<robot><joint type='revolute'/></robot>", "a joint has no name"),
        (PANDA.replace('lower="-2.9671"', 'lower="three"'), "panda_joint1: lower='three' is not a number"),
        (PANDA.replace('lower="-2.9671"', 'lower="nan"'), "panda_joint1: lower='nan' is not finite"),
        (PANDA.replace('lower="-2.9671"', 'lower="3"'), "panda_joint1: lower limit 3 is not below upper limit 2.9671"),
        (UR5E.replace("elbow_joint", "shoulder_pan_joint"), "shoulder_pan_joint: given twice"),
        ('<!DOCTYPE r [<!ENTITY a "b">]><robot name="&a;"/>', "entities"),
    ],
)  # fmt: skip
def test_a_urdf_that_cannot_be_used_is_refused_in_one_line(tmp_path, text, match):
    path = tmp_path / "robot.urdf"
    path.write_text(text)
    with pytest.raises(ContractError, match=match) as error:
        read_urdf(path)
    assert "\n" not in str(error.value)


def test_a_xacro_file_is_refused_with_the_command_to_run(tmp_path, capsys):
    path = tmp_path / "ur.urdf.xacro"
    path.write_text(
        '<robot xmlns:xacro="http://www.ros.org/wiki/xacro" name="ur"><xacro:arg name="x" default=""/></robot>'
    )
    assert main(["make-contract", f"urdf={path}", f"out={tmp_path}/contract.yaml"]) == 2
    assert f"xacro {path} > ur.urdf" in capsys.readouterr().err
    assert not (tmp_path / "contract.yaml").exists()


def test_joints_without_limits_are_left_to_complete(tmp_path, capsys):
    bare = "<robot name='bare'><joint name='j1' type='revolute'/><joint name='j2' type='planar'/></robot>"
    data, said = make(tmp_path, capsys, urdf=bare)
    assert data["joints"] == [data["joints"][0]]
    assert (data["joints"][0]["position"], data["joints"][0]["velocity"]) == ("TODO", "TODO")
    assert "left out: j2 is of type planar" in said
    assert "joints[0].position: TODO; give the lowest and highest position" in said


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("joint_limits: {J2: {has_velocity_limits: true, max_velocity: 1}}", "J2 is not a joint of the robot"),
        ("joint_limits: {J1: {has_velocity_limits: true}}", "has_velocity_limits is true and max_velocity is None"),
        ("joint_limits: {J1: {max_velocity: 180}}", "180 rad/s is not an arm's speed"),
        ("joint_limits: {J1: {max_velocity: -1}}", "must be above 0"),
        ("joint_limits: {J1: {max_velocity: fast}}", "'fast', not a number"),
        ("joint_limits: {J1: {min_position: -170, max_position: 170}}", "look like degrees"),
        ("joint_limits: {J1: {min_position: 1, max_position: 1}}", "min_position 1 is not below"),
        ("joint_limits: {J1: 3}", "J1: a mapping of limits is needed"),
        ("cameras: []", "no joint_limits in it"),
        ("[", "not valid YAML"),
        ("joint_limits: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)  # fmt: skip
def test_limits_that_cannot_be_used_are_refused_in_one_line(tmp_path, text, match):
    path = tmp_path / "joint_limits.yaml"
    path.write_text(text)
    with pytest.raises(ContractError, match=match) as error:
        read_joint_limits(path, ["J1", "finger"], ["J1"])
    assert "\n" not in str(error.value)


def test_limits_as_ros_parameters_and_with_tags_for_degrees_are_read(tmp_path):
    path = tmp_path / "joint_limits.yaml"
    path.write_text(
        "/**:\n  ros__parameters:\n    robot_description_planning:\n      joint_limits:\n        elbow:\n"
        "          has_position_limits: true\n          min_position: !degrees -180.0\n"
        "          max_position: !degrees 180\n"
        "          has_velocity_limits: true\n          max_velocity: !degrees 90\n          has_jerk_limits: false\n"
    )
    found = read_joint_limits(path, ["elbow"], ["elbow"])["elbow"]
    assert found.position == pytest.approx((-math.pi, math.pi))
    assert found.velocity == pytest.approx(math.pi / 2)
    assert found.jerk is None


def test_a_contract_is_never_overwritten_unasked_and_sources_are_needed(tmp_path, capsys):
    words = [f"{kind}={path}" for kind, path in files(tmp_path, urdf=UR5E).items()]
    out = tmp_path / "contract.yaml"
    out.write_text("mine")
    assert main(["make-contract", *words, f"out={out}"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main(["make-contract", *words, f"out={out}", "overwrite=true"]) == 0
    assert main(["make-contract", f"out={tmp_path}/other.yaml"]) == 2
    assert "neither was given" in capsys.readouterr().err
    assert main(["make-contract", f"urdf={tmp_path}/none.urdf", f"out={tmp_path}/other.yaml"]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "other.yaml").exists()
