"""The robot contract: whole validation at load, one meaning one hash, differences by name."""

from __future__ import annotations

import copy
import json

import pytest
import yaml

from robo_hw import ContractError, HardwareError, RobotContract, example_contracts


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
    scene = pytest.importorskip("robo_policies.envs.tidy_drawer.scene")
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
        "rates.control: 'fast' is not a number",
        "deadlines.tick: nan is not finite",
        "cameras[0].degraded_after: 0.15 s must be below stop_after",
        "topics.command.interface: 'joint_trajectry' is not one of joint_trajectory, forward_command, follow_joint_tra",
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
        (lambda d: d["gripper"].update(joint="hand"), "gripper.joint: 'hand' is not a joint"),
        (lambda d: d["gripper"].update(open=9.0), "gripper.open: 9 is outside the joint's limits"),
        (lambda d: d["rates"].update(control=10), "rates.control: 10 Hz must not be below the 30 Hz of the actions"),
        (lambda d: d["deadlines"].update(joint_states=0.02), "deadlines.joint_states: 0.02 s is less than"),
        (lambda d: d["joints"][0].update(velocity=True), "joints[0].velocity: True is not a number"),
        (lambda d: d.update(contract=3), "contract: 3 must be between 2 and 2"),
        (lambda d: d["safety"].update(reserve=1.5), "safety.reserve: 1.5 must be at most 0.9"),
        (lambda d: d["cameras"][0].update(frozen_after=0.01), "cameras[0].frozen_after: 0.01 s is not longer"),
        (lambda d: d["topics"].update(estop=[]), "topics.estop: a list is needed, found nothing; give emergency stops"),
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


DEPLOYMENT = [
    (lambda d: d.update(robot="left_arm"), "robot: \"so101\" here, \"left_arm\" there"),
    (lambda d: d["joints"][2].update(velocity=1.4), "joints[elbow_flex].velocity: 2.8 here, 1.4 there"),
    (lambda d: d["joints"][2].update(position=[-1, 1]), "joints[elbow_flex].position: [-1.69, 1.69] here, [-1.0, 1.0]"),
    (lambda d: d["joints"][2].update(state_name="left/elbow"), "joints[elbow_flex].state_name"),
    (lambda d: d["cameras"][1].update(topic="/left/wrist"), "cameras[wrist].topic"),
    (lambda d: d["cameras"][1].update(rate=15.0), "cameras[wrist].rate: 30.0 here, 15.0 there"),
    (lambda d: d["topics"]["command"].update(name="/left/command"), "topics.command.name"),
    (lambda d: d["topics"]["command"]["qos"].update(depth=5), "topics.command.qos.depth: 1 here, 5 there"),
    (lambda d: d["topics"]["command"].update(interface="forward_command"), "topics.command.interface"),
    (lambda d: d["rates"].update(control=100.0), "rates.control: 50.0 here, 100.0 there"),
    (lambda d: d["deadlines"].update(chunk=0.5), "deadlines.chunk: 0.6 here, 0.5 there"),
    (lambda d: d["safety"].update(reserve=0.4), "safety.reserve: 0.5 here, 0.4 there"),
    (lambda d: d["topics"].update(stop=[{"name": "/mode", "type": "std_msgs/msg/Bool", "ok": [True]}]), "stop"),
]  # fmt: skip
LEARNED = [
    (lambda d: d["joints"][2].update(name="elbow"), 'joints[elbow_flex].name: "elbow_flex" here, absent there'),
    (lambda d: d["joints"][5].update(kind="fraction", unit="1"), 'joints[gripper].kind: "revolute" here, "fraction"'),
    (lambda d: d["gripper"].update(open=1.0), "gripper.open: 1.745 here, 1.0 there"),
    (lambda d: d["cameras"][1].update(width=320), "cameras[wrist].width: 640 here, 320 there"),
    (lambda d: d["rates"].update(actions=20), "rates.actions: 30.0 here, 20.0 there"),
]


@pytest.mark.parametrize(("change", "line"), DEPLOYMENT)
def test_deployment_may_differ_and_is_named(data, change, line):
    contract = RobotContract.from_dict(data)
    change(data)
    other = RobotContract.from_dict(data)
    assert other.hash == contract.hash
    assert contract.difference(other) == []
    assert any(found.startswith(line) or line in found for found in contract.deployment_difference(other))


@pytest.mark.parametrize(("change", "line"), LEARNED)
def test_what_was_learned_may_not_differ_and_is_named(data, change, line):
    contract = RobotContract.from_dict(data)
    change(data)
    other = RobotContract.from_dict(data)
    assert other.hash != contract.hash
    assert any(found.startswith(line) for found in contract.difference(other))


def test_the_order_of_cameras_has_no_meaning(data):
    contract = RobotContract.from_dict(data)
    data["cameras"].reverse()
    assert RobotContract.from_dict(data).hash == contract.hash


def test_wider_limits_than_in_training_are_named_and_tighter_ones_are_not(data):
    trained = RobotContract.from_dict(data)
    data["joints"][0]["velocity"] = 1.0
    data["joints"][1]["velocity"] = 3.5
    data["joints"][2]["position"] = [-1.0, 1.8]
    data["joints"][3]["following_error"] = 0.5
    wider = RobotContract.from_dict(data).wider_limits(trained)
    assert wider == [
        "joints[shoulder_lift].velocity: 3.5 here is more than 2.8 there",
        "joints[elbow_flex].position: [-1, 1.8] here reaches beyond [-1.69, 1.69] there",
        "joints[wrist_flex].following_error: 0.5 here is more than 0.35 there",
    ]
    assert trained.wider_limits(trained) == []


def test_a_contract_of_version_1_is_refused_in_one_line_that_says_what_to_change(data):
    data["contract"] = 1
    text = problems_of(data)
    assert "1 problem" in text
    assert "write contract: 2" in text
    assert len(text.splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/joint states", "' ' in it"),
        ("joint_states/", "ends with /"),
        ("/left//joint_states", "// in it"),
        ("/2nd_arm/joint_states", "begins with a digit"),
        ("/arm/~/joint_states", "~ elsewhere"),
        ("~joint_states", "no / after ~"),
        ("/arm-1/joint_states", "'-' in it"),
        ("/arm__1/states", "__ in it"),
        ("/état", "'é' in it"),
        ("/", "namespace"),
        ("~/", "namespace"),
        ("/{nod}/x", "'{' in it"),
        ("/" + "x" * 300, "301 characters"),
    ],
)
@pytest.mark.parametrize("where", ["joint_states", "command", "status", "camera", "stop", "estop"])
def test_names_that_ros_does_not_take_are_refused(data, where, name, why):
    topics = data["topics"]
    if where == "camera":
        data["cameras"][0]["topic"] = name
    elif where == "stop":
        topics["stop"] = [{"name": name, "type": "std_msgs/msg/Bool", "ok": [True]}]
    elif where == "estop":
        topics["estop"] = [{"name": name}]
    elif where == "joint_states":
        topics["joint_states"][0]["name"] = name
    else:
        topics[where]["name"] = name
    text = problems_of(data)
    assert "is not a ROS name" in text
    assert why in text


@pytest.mark.parametrize("name", ["joint_states", "/a/b_c/d1", "~/states", "~/{node}/states", "_hidden/x", "/a_/b"])
def test_names_that_ros_takes_are_taken(data, name):
    data["topics"]["joint_states"][0]["name"] = name
    assert RobotContract.from_dict(data).joint_states[0].name == name


def test_joint_states_may_come_from_several_topics_under_other_names(data):
    data["topics"]["joint_states"] = [
        {"name": "/arm/joint_states", "publishers": 2},
        {"name": "/gripper/joint_states", "qos": {"reliability": "reliable"}},
    ]
    data["joints"][5]["state_name"] = "left_finger"
    contract = RobotContract.from_dict(data)
    assert [(topic.name, topic.publishers) for topic in contract.joint_states] == [
        ("/arm/joint_states", 2),
        ("/gripper/joint_states", 1),
    ]
    assert contract.state_names == (*contract.joint_names[:5], "left_finger")
    assert RobotContract.from_dict(contract.to_dict()) == contract


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["joints"][0].update(arm_tolerance=1.0), "joints[0].arm_tolerance: 1 rad is more than the joint"),
        (lambda d: d["safety"].update(arm_tolerance=0.01), "safety.arm_tolerance: is given to each joint"),
        (lambda d: d["joints"][0].update(kind="continuous"), "joints[0].position: a continuous joint has no limits"),
        (lambda d: d["joints"][0].update(state_name="gripper"), "both read 'gripper'"),
        (lambda d: [j.update(state_name="j") for j in d["joints"][:2]], "joints: the state_name 'j' is given twice"),
        (lambda d: d["topics"]["command"].update(gripper={"name": "/grip", "interface": "x"}), "'x' is not one of"),
        (lambda d: (d["topics"]["command"].update(gripper={"name": "/g"}), d.pop("gripper")), "there is no gripper"),
        (lambda d: d["topics"].update(stop=[{"name": "/m", "type": "Bool", "ok": [True]}]), "is not a message type"),
        (lambda d: d["topics"].update(stop=[{"name": "/m", "type": "a/msg/B", "ok": []}]), "is not a list of flags"),
        (lambda d: d["topics"].update(stop=[{"name": "/m", "type": "a/msg/B"}]), "topics.stop[0].ok: missing"),
        (lambda d: d["topics"].update(estop=[{"name": "/joint_states"}]), "/joint_states is given twice"),
        (lambda d: d["cameras"][0].update(topic="/joint_states"), "/joint_states is given twice"),
        (lambda d: d["safety"].update(in_fault="hold"), "safety.in_fault: 'hold' is not one of silent"),
        (lambda d: d["safety"].update(arm_states=1), "safety.arm_states: 1 must be between 2"),
        (lambda d: d["safety"].update(start_pose="no"), "safety.start_pose"),
        (lambda d: d["deadlines"].update(idle=0), "deadlines.idle: 0 must be above 0"),
        (lambda d: d["joints"][0].update(velocity=10**400), "joints[0].velocity: inf is not finite"),
    ],
)
def test_new_keys_that_make_no_sense_are_named(data, change, message):
    change(data)
    assert message in problems_of(data)


def test_what_a_fault_commands_follows_the_controller(data):
    assert RobotContract.from_dict(data).safety.in_fault == "silent"
    del data["safety"]["in_fault"]
    data["topics"]["command"]["interface"] = "forward_command"
    assert RobotContract.from_dict(data).safety.in_fault == "follow_measured"


def test_a_continuous_joint_has_no_limits_and_survives_a_round_trip(data):
    joint = data["joints"][4]
    for key in ("position", "state_jump", "action_jump", "saturate", "arm_tolerance"):
        del joint[key]
    joint["kind"] = "continuous"
    contract = RobotContract.from_dict(data)
    assert contract.joints[4].position == (-float("inf"), float("inf"))
    again = RobotContract.from_dict(json.loads(json.dumps(contract.to_dict(), allow_nan=False)))
    assert again == contract
    joint["following_error"] = 4.0
    assert "must be at most 3.14159" in problems_of(data)


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
