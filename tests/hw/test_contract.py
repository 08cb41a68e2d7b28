"""The robot contract: whole validation at load, one meaning one hash, differences by name."""

from __future__ import annotations

import copy
import json

import pytest
import yaml

from robo_hw import ContractError, ContractMismatchError, HardwareError, RobotContract, example_contracts


@pytest.fixture
def data():
    return copy.deepcopy(RobotContract.load("so101").to_dict())


def problems_of(data) -> str:
    with pytest.raises(ContractError) as caught:
        RobotContract.from_dict(data)
    return str(caught.value)


@pytest.mark.parametrize("name", ["so101", "ur5e", "franka_panda", "tidy_drawer"])
def test_the_example_contracts_load_and_survive_a_round_trip(name):
    assert name in example_contracts()
    contract = RobotContract.load(name)
    again = RobotContract.from_dict(json.loads(json.dumps(contract.to_dict())))
    assert again == contract
    assert again.hash == contract.hash
    assert contract.difference(again) == []


def test_the_tidy_drawer_contract_has_the_joints_and_limits_of_its_world():
    scene = pytest.importorskip("robo_policies.worlds.scene")
    contract = RobotContract.load("tidy_drawer")
    assert contract.joint_names == (*scene.ARM_JOINTS, "gripper")
    assert [joint.position for joint in contract.joints[:6]] == [tuple(limits) for limits in scene.ARM_RANGES]
    assert contract.joints[6].position == (0.0, 1.0)
    assert contract.rates.actions == scene.CONTROL_HZ
    assert tuple(camera.name for camera in contract.cameras) == tuple(scene.CAMERAS)


@pytest.mark.parametrize("limit", ["position", "velocity", "acceleration", "jerk"])
def test_every_limit_of_every_joint_is_mandatory(data, limit):
    del data["joints"][3][limit]
    assert f"joints[3].{limit}: missing" in problems_of(data)


def test_every_problem_is_reported_at_once_with_its_key(data):
    del data["joints"][0]["jerk"]
    data["joints"][1]["velocity"] = -1
    data["joints"][2]["position"] = [1.0, -1.0]
    data["joints"][3]["unit"] = "deg"
    data["joints"][4]["aceleration"] = 3
    data["rates"]["control"] = "fast"
    data["deadlines"]["tick"] = float("nan")
    data["cameras"][0]["stop_after"] = 0.01
    data["topics"]["command"]["interface"] = "joint_trajectry"
    text = problems_of(data)
    for part in (
        "joints[0].jerk: missing; give the highest jerk in rad/s^3",
        "joints[1].velocity: -1 must be above 0",
        "joints[2].position: low 1 must be below high -1",
        "joints[3].unit: 'deg' does not fit a revolute joint",
        "joints[4].aceleration: unknown key; did you mean 'acceleration'?",
        "rates.control: 'fast' is no number",
        "deadlines.tick: nan is not finite",
        "cameras[0].degraded_after: 0.15 s must be below stop_after",
        "topics.command.interface: 'joint_trajectry' is not one of joint_trajectory, forward_command",
        "did you mean 'joint_trajectory'?",
    ):
        assert part in text
    assert "9 problems" in text


def test_degrees_among_radians_are_found(data):
    data["joints"][0]["position"] = [-110, 110]
    data["joints"][1]["velocity"] = 180
    text = problems_of(data)
    assert "joints[0].position" in text
    assert "these look like degrees" in text
    assert "joints[1].velocity: 180 rad/s" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["joints"].append(dict(d["joints"][0])), "joints: the name 'shoulder_pan' is given twice"),
        (lambda d: d.update(joints=[]), "joints: a list is needed"),
        (lambda d: d["gripper"].update(joint="hand"), "gripper.joint: 'hand' is no joint"),
        (lambda d: d["gripper"].update(open=9.0), "gripper.open: 9 is outside the joint's limits"),
        (lambda d: d["rates"].update(control=10), "rates.control: 10 Hz must not be below the 30 Hz of the actions"),
        (lambda d: d["deadlines"].update(joint_states=0.02), "deadlines.joint_states: 0.02 s is less than"),
        (lambda d: d["joints"][0].update(velocity=True), "joints[0].velocity: True is no number"),
        (lambda d: d.update(contract=2), "contract: 2 must be between 1 and 1"),
        (lambda d: d["safety"].update(reserve=1.5), "safety.reserve: 1.5 must be at most 0.9"),
        (lambda d: d["cameras"][0].update(frozen_after=0.01), "cameras[0].frozen_after: 0.01 s is not longer"),
    ],
)
def test_values_that_make_no_sense_are_named(data, change, message):
    change(data)
    assert message in problems_of(data)


@pytest.mark.parametrize("data", [None, [], "text", 3, {}, {"joints": {"a": 1}}, {"joints": [1, None]}])
def test_files_that_are_no_contract_are_refused_in_words(data):
    assert "problem" in problems_of(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"robot: [", "not valid YAML"),
        (b"a: 1\na: 2\n", "the key 'a' is given twice"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"!!python/object/apply:os.system ['true']", "not valid YAML"),
        (b"# x\n" * 100_000, "more than"),
        (b"? [a, b]\n: 1\n", ""),
    ],
)
def test_unreadable_files_are_refused_in_words(tmp_path, text, message):
    path = tmp_path / "robot.yaml"
    path.write_bytes(text)
    with pytest.raises(ContractError) as caught:
        RobotContract.load(path)
    assert message in str(caught.value)
    assert "robot.yaml" in str(caught.value)
    assert isinstance(caught.value, HardwareError)


def test_a_missing_file_names_the_examples(tmp_path):
    with pytest.raises(ContractError, match="so101"):
        RobotContract.load(tmp_path / "none.yaml")


def test_the_hash_is_of_the_meaning(data, tmp_path):
    contract = RobotContract.from_dict(data)
    shuffled = {key: data[key] for key in reversed(data)}
    shuffled["joints"] = [{key: joint[key] for key in reversed(joint)} for joint in data["joints"]]
    shuffled["safety"] = {**data["safety"], "cool_down": int(data["safety"]["cool_down"])}
    path = tmp_path / "so101_again.yaml"
    path.write_text("# another comment\n" + yaml.safe_dump(shuffled))
    assert RobotContract.load(path).hash == contract.hash
    # Written-out defaults are no difference either.
    bare = copy.deepcopy(data)
    del bare["safety"]["reserve"]
    assert RobotContract.from_dict(bare).hash == contract.hash
    data["joints"][2]["jerk"] += 1e-6
    assert RobotContract.from_dict(data).hash != contract.hash


def test_a_difference_names_the_field_and_both_values(data):
    contract = RobotContract.from_dict(data)
    data["joints"][2]["velocity"] = 1.5
    data["cameras"][1]["rate"] = 15
    data["cameras"][1]["degraded_after"] = 0.2
    data["topics"]["command"]["qos"]["depth"] = 5
    other = RobotContract.from_dict(data)
    lines = contract.difference(other)
    assert "joints[elbow_flex].velocity: 2.8 here, 1.5 there" in lines
    assert "cameras[wrist].rate: 30.0 here, 15.0 there" in lines
    assert "topics.command.qos.depth: 1 here, 5 there" in lines
    assert len(lines) == 4
    with pytest.raises(ContractMismatchError, match=r"elbow_flex.*velocity"):
        contract.require_same(other, "the checkpoint")


def test_joints_in_another_order_are_a_difference(data):
    contract = RobotContract.from_dict(data)
    data["joints"][0], data["joints"][1] = data["joints"][1], data["joints"][0]
    assert contract.difference(RobotContract.from_dict(data))[0].startswith("joints: order shoulder_pan, shoulder_lift")


def test_a_camera_that_one_side_lacks_is_a_difference(data):
    contract = RobotContract.from_dict(data)
    data["cameras"] = data["cameras"][:1]
    assert any(
        line == "cameras[wrist].width: 640 here, absent there"
        for line in contract.difference(RobotContract.from_dict(data))
    )
