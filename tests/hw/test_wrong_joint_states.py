"""Joint states that are wrong while the arm is armed: a driver that restarts, and messages that are none."""

from __future__ import annotations

import numpy as np
import pytest
from fault_search.contract import random_contract
from fault_search.prover import FaultAt, run_sequence

from robo_hw import RobotContract, State
from robo_hw.observation.joint_source import JointSource
from robo_hw.observation.joint_states import JointStates, Reading
from tests.hw.conftest import TRUTH, Arm, contract_with

LOOSE = {"following_error": 6.0, "state_jump": 6.0}
"""A contract that believes almost anything."""
SPLIT = {"joint_states": [{"name": "/arm"}, {"name": "/wrist"}]}


def loose(name: str = "ur5e", **sections) -> RobotContract:
    size = len(RobotContract.load(name).joints)
    return contract_with(name, joints={place: dict(LOOSE) for place in range(size)}, **sections)


def continuous() -> RobotContract:
    changes = {place: {**LOOSE, "following_error": 3.0, "state_jump": 3.0} for place in range(6)}
    changes[0]["kind"] = changes[5]["kind"] = "continuous"
    return contract_with(joints=changes)


TOGETHER = ["joints_zeros", "joints_jump", "joints_zeros", "joints_jump", "joints_shuffled", "joints_missing",
            "joints_short", "joints_nan", "stray", "steady_back", "hand"]  # fmt: skip
"""What may befall the joint states at once; zeros and jumps twice, so that they meet often."""


def turning(contract: RobotContract, random: np.random.Generator) -> RobotContract:
    """The same arm with about half of its joints continuous, and now and then with a gripper."""
    data = contract.to_dict()
    for joint in data["joints"]:
        if random.uniform() < 0.5:
            for key in ("position", "saturate", "arm_tolerance"):
                joint.pop(key, None)
            joint |= {"kind": "continuous", "velocity": min(joint["velocity"], 5.0), "action_jump": 3.0}
            joint |= {key: min(joint[key], 3.0) for key in ("following_error", "state_jump")}
    last = data["joints"][-1]
    if len(data["joints"]) > 2 and last["kind"] != "continuous":
        data["gripper"] = {"joint": last["name"], "open": last["position"][1], "closed": last["position"][0]}
    return RobotContract.from_dict(data)


# A driver that begins again with zeros


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("contract", [loose(), continuous()], ids=["revolute", "continuous"])
def test_zeros_that_no_motion_led_to_are_a_fault_however_loose_the_contract_is(contract, running):
    arm = Arm(contract, at=np.array([0.3, -0.5, 0.2, -0.4, 0.1, 5.0])).armed(running)
    arm.clock.advance(arm.dt)
    assert not arm.say(np.zeros(6))
    assert arm.core.fault.cause == "joint_states"
    assert "became exactly 0 at once" in arm.core.fault.message
    assert "safety.zero_pose: allow" in arm.core.fault.message


def test_zeros_of_one_driver_of_two_are_a_fault():
    arm = Arm(loose(topics=SPLIT))
    for _ in range(8):
        arm.clock.advance(arm.dt)
        arm.say(arm.at[:3], names=arm.names[:3], publisher="arm")
        arm.say(arm.at[3:], names=arm.names[3:], publisher="wrist")
        arm.look()
    arm.core.arm()
    assert arm.say(arm.at[:3], names=arm.names[:3], publisher="arm", stamp=None)
    assert not arm.say(np.zeros(3), names=arm.names[3:], publisher="wrist", stamp=None)
    assert "wrist_1_joint, wrist_2_joint, wrist_3_joint became exactly 0" in arm.core.fault.message


def test_an_arm_that_moves_to_its_zero_and_rests_there_is_no_fault():
    arm = Arm(loose("so101"), at=np.array([0.03, 0.02, 0.01, -0.02, 0.02, 0.5]))
    arm.settle()
    arm.core.arm()
    for i in range(40):
        arm.at = np.where(np.arange(6) < 5, arm.at * (i < 10) * 0.7, 0.5 if i < 20 else 0.0)  # the gripper snaps shut
        arm.step(follow=False)
    assert not arm.at.any()
    assert arm.core.fault is None


def test_a_contract_whose_zeros_are_real_believes_them_at_once():
    arm = Arm(loose(safety={"zero_pose": "allow"}), at=np.full(6, 0.3)).armed()
    arm.step(values=np.zeros(6))
    assert arm.core.fault is None


def test_after_zeros_that_no_motion_led_to_nothing_is_commanded_until_a_person_looked():
    arm = Arm(loose(topics={"command": {"name": "/c", "interface": "forward_command"}})).armed()
    arm.step(values=np.zeros(6))
    assert arm.core.state is State.FAULT
    for values in (np.zeros(6), TRUTH):
        assert arm.step(200, follow=False, values=values) is None
    arm.core.reset_fault()
    arm.armed()


# What the prover found


@pytest.mark.parametrize("joints", [1, 3])
def test_the_prover_sees_zeros_that_pass_as_the_pose(monkeypatch, joints):
    """It once took every zero for no joint state at all, also where an arm could have been at zero; the core once took
    every zero for the pose that a loose contract allows."""
    data = loose().to_dict()
    data["joints"] = data["joints"][:joints]
    contract = RobotContract.from_dict(data)

    def violations() -> str:
        worlds = (run_sequence(contract, [FaultAt(1.1, "joints_zeros", 0.5)], seed, 2.0) for seed in range(10))
        return " ".join(text for world in worlds for text in world.violations)

    assert violations() == ""
    monkeypatch.setattr(JointSource, "restarts", lambda self, values, stepped: False)
    assert "passed as its own" in violations()


def test_the_prover_judges_what_a_driver_sends_and_not_what_it_meant():
    """It once took zeros for what the core had heard, although one joint had jumped away from 0 in the message."""
    contract = random_contract(np.random.default_rng(3057))
    faults = [FaultAt(1.0, "joints_jump", 0.0), FaultAt(1.0, "joints_zeros", 0.0)]
    assert run_sequence(contract, faults, seed=0, seconds=2.0).violations == []


def test_the_prover_sees_jumps_that_pass_as_the_pose(monkeypatch):
    """It once took the jumps of a driver that reads the arm for honest."""
    data = continuous().to_dict()
    for joint in data["joints"]:
        joint["state_jump"] = 0.2
    contract = RobotContract.from_dict(data)

    def violations() -> str:
        worlds = (run_sequence(contract, [FaultAt(1.1, "joints_jump", 0.5)], seed, 2.0) for seed in range(5))
        return " ".join(text for world in worlds for text in world.violations)

    assert violations() == ""
    monkeypatch.setattr(JointStates, "_jumped", lambda self, source, gap, room: Reading(True))
    assert "passed as its own" in violations()


def test_the_prover_sees_states_without_numbers_that_pass_as_the_pose(monkeypatch):
    """It once took them for honest."""
    contract, faults = loose(), [FaultAt(1.1, "joints_nan", 0.5)]

    def violations() -> str:
        worlds = (run_sequence(contract, faults, seed, 2.0) for seed in range(5))
        return " ".join(text for world in worlds for text in world.violations)

    assert violations() == ""
    monkeypatch.setattr(JointStates, "_broken", lambda self, source, message, joint=None: Reading(True))
    assert "passed as its own" in violations()


@pytest.mark.parametrize("seed", range(4))
def test_joint_faults_that_come_together_break_no_promise(seed):
    """Two or three at one instant, or within a few states: each fault may undo what gives the other away."""
    random = np.random.default_rng([20251205, seed])
    armings = faults_seen = 0
    for _ in range(15):
        contract = turning(random_contract(random), random)
        at, period = random.uniform(0.3, 1.1), 1 / contract.rates.control
        kinds = random.choice(TOGETHER, size=int(random.integers(2, 4)), replace=False)
        delays = random.choice([0.0, 0.0, 1.0], size=len(kinds)) * random.uniform(0, 3 * period, len(kinds))
        strengths = random.choice([0.0, 1.0], size=len(kinds)) * random.uniform(0, 1, len(kinds))
        faults = [FaultAt(at + float(delay), str(kind), float(strength))
                  for delay, kind, strength in zip(delays, kinds, strengths, strict=True)]  # fmt: skip
        margins = run_sequence(contract, faults, seed=int(random.integers(2**31)), seconds=1.5)
        assert margins.violations == [], f"{contract.to_dict()}, {faults}"
        armings, faults_seen = armings + margins.armings, faults_seen + margins.faults
    assert armings > 7, "an arm that never moves proves nothing"
    assert faults_seen > 7


# Messages that are none

NOTHINGS = [None, 3, 0.5, True, object(), "text", b"text", 1j, [["a"]], {1: 2}, np.datetime64(1, "s"), 10**400]


@pytest.mark.parametrize("names", [None, 3, 0.5, True, object(), 1j, [["a"]], 10**400])
@pytest.mark.parametrize("armed", [False, True])
def test_names_that_are_none_are_refused_and_a_fault_while_armed(names, armed):
    arm = Arm()
    arm.armed() if armed else arm.settle()
    assert not arm.core.observe(names, arm.at, None, arm.clock.now())
    assert (arm.core.fault is not None) is armed
    assert "has no list of joint names" in arm.core.log.of_kind("stream")[-1].message


@pytest.mark.parametrize("positions", [*(value for value in NOTHINGS if value is not None), ["0.1"] * 6, [True] * 6])
def test_positions_that_are_no_numbers_are_refused_and_a_fault_while_armed(positions):
    arm = Arm().armed()
    assert not arm.say(positions)
    assert arm.core.fault.cause == "joint_states"


@pytest.mark.parametrize("publisher", [["driver"], {}, np.zeros(2)])
def test_a_publisher_that_is_no_text_is_a_fault_while_armed(publisher):
    arm = Arm().armed()
    assert not arm.say(publisher=publisher)
    assert "its publisher is not a text" in arm.core.fault.message


@pytest.mark.parametrize(
    "stamp", [*(stamp for stamp in NOTHINGS if stamp not in (None, 3, 0.5)), "12.5", [1.0], np.nan]
)
@pytest.mark.parametrize("armed", [False, True])
def test_stamps_that_are_no_times_count_as_nothing_heard(stamp, armed):
    arm = Arm()
    arm.armed() if armed else arm.settle()
    arm.clock.advance(arm.dt)
    assert not arm.say(stamp=stamp)
    assert not arm.core.observe_camera("wrist", 99, stamp)
    if armed:
        assert arm.core.fault is None
        for _ in range(20):
            arm.clock.advance(arm.dt)
            arm.say(stamp=stamp)
            arm.core.tick()
        assert "those that come are refused" in arm.core.fault.message


@pytest.mark.parametrize("stamp", [np.float32(1.5), np.int64(3), 3, -1.5])
def test_stamps_of_any_kind_of_number_are_taken(stamp):
    arm = Arm()
    assert arm.say(stamp=stamp)
    assert arm.core.observe_camera("wrist", np.int64(99), stamp)


@pytest.mark.parametrize("name", [None, ["wrist"], {}, np.zeros(2)])
def test_a_camera_that_is_no_name_is_refused(name):
    assert not Arm().core.observe_camera(name, 1, 1.0)


@pytest.mark.parametrize("digest", [None, np.zeros(2), "abc", 0.5])
def test_a_digest_that_is_no_whole_number_is_refused(digest):
    arm = Arm()
    arm.settle()
    assert not arm.core.observe_camera("wrist", digest, arm.clock.now() + arm.dt)
