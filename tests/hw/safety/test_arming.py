"""Between the first reading and the first command, and what a fault sends: nothing there may move the arm wrongly."""

from __future__ import annotations

import numpy as np
import pytest

from robo_hw import Command, RobotContract, State
from tests.hw.conftest import TRUTH, Arm, contract_with, following

# 1: a wrong joint state before arming becomes no command


@pytest.mark.parametrize("states", [1, 4])
def test_too_few_states_do_not_arm(states):
    arm = Arm()
    arm.settle(states)
    assert f"only {states} of 5 consecutive joint states agree" in arm.refused()


def test_two_publishers_that_contradict_each_other_do_not_arm_and_are_named():
    arm = Arm()
    for _ in range(10):
        arm.clock.advance(0.008)
        arm.say(velocities=np.zeros(6))
        arm.clock.advance(0.002)
        arm.say(np.zeros(6))
        arm.look()
    message = arm.refused()
    assert "only 1 of 5" in message
    assert "was reported at 0 and at 1.9 rad" in message


def test_a_driver_that_says_zeros_until_its_first_reading_does_not_arm():
    arm = Arm()
    arm.settle(50, values=np.zeros(6))
    assert "every joint reads exactly 0" in arm.refused()
    arm.settle(3)
    assert "only 3 of 5" in arm.refused()
    arm.settle(3)
    arm.core.arm()
    assert np.array_equal(arm.step().positions, TRUTH)


def test_zeros_of_the_arm_alone_do_not_arm_whatever_the_gripper_says():
    """The gripper's driver, or a node that merges both, may have its reading before the arm's has."""
    contract = contract_with("franka_panda", topics={"joint_states": [{"name": "/arm"}, {"name": "/gripper"}]})
    for joined in (True, False):
        arm = Arm(contract, at=np.array([0, 0, 0, 0, 0, 0, 0.7]))
        for _ in range(10):
            arm.clock.advance(arm.dt)
            if joined:
                arm.say()
            else:
                arm.say(arm.at[:4], names=arm.names[:4], publisher="arm")
                arm.say(arm.at[4:], names=arm.names[4:], publisher="gripper")
            arm.look()
        assert "panda_joint1, panda_joint2, panda_joint3, panda_joint4 reads exactly 0" in arm.refused() or joined


def test_a_contract_may_say_that_zeros_are_real():
    arm = Arm(contract_with(safety={"zero_pose": "allow"}), at=np.zeros(6))
    assert np.array_equal(arm.armed().step().positions, np.zeros(6))


@pytest.mark.parametrize("interface", ["joint_trajectory", "forward_command"])
def test_a_jump_before_the_first_command_ends_in_no_command(interface):
    arm = Arm(contract_with(topics={"command": {"name": "/c", "interface": interface}}))
    wrong = TRUTH - 0.5
    arm.settle(values=wrong)
    arm.core.arm()
    for i in range(60):
        arm.clock.advance(arm.dt)
        arm.say()
        command = arm.core.tick()
        assert arm.core.state is State.FAULT
        assert command is None or np.array_equal(command.positions, TRUTH), i
    assert arm.core.fault.cause == "joint_states"


@pytest.mark.parametrize("interface", ["joint_trajectory", "forward_command"])
def test_a_jump_before_any_motion_ends_in_no_command(interface):
    arm = Arm(contract_with(topics={"command": {"name": "/c", "interface": interface}}))
    arm.armed()
    for _ in range(20):  # a second publisher comes, and speaks by turns with the driver
        arm.clock.advance(arm.dt / 2)
        arm.say(TRUTH - 0.5)
        arm.clock.advance(arm.dt / 2)
        arm.say()
        assert arm.core.tick() is None
    assert arm.core.state is State.FAULT


def test_the_first_command_is_where_the_arm_is_now_and_waits_for_a_fresh_state():
    arm = Arm()
    arm.settle()
    arm.core.arm()
    arm.clock.advance(2.5 * arm.dt)
    assert arm.core.tick() is None, "it may have moved since"
    travel = arm.contract.array("velocity") * arm.dt
    arm.at = arm.at + 0.5 * travel
    assert np.array_equal(arm.step().positions, arm.at)


def test_a_hand_that_moves_the_arm_between_arming_and_the_first_command_ends_in_none():
    arm = Arm()
    arm.settle()
    arm.core.arm()
    arm.at = arm.at + 2 * arm.contract.array("velocity") * arm.dt
    assert arm.step() is None
    assert "moved" in arm.core.fault.message


def test_states_out_of_a_queue_do_not_arm():
    arm = Arm()
    for i in range(20):  # a latched or delayed queue, all at once
        arm.clock.advance(1e-5)
        arm.say(stamp=50.0 + i * 0.002)
    arm.look()
    assert "out of a queue" in arm.refused()


@pytest.mark.parametrize("said", [{"stamp": 7.0}, {"stamp": float("nan")}])
def test_states_whose_stamps_stand_still_do_not_arm(said):
    arm = Arm()
    arm.settle(20, **said)
    assert "joint states" in arm.refused()


@pytest.mark.parametrize(("stamp", "why"), [(0.0, "stamp repeated"), (float("nan"), "stamp nan is not finite")])
def test_why_joint_states_that_come_do_not_count_is_said(stamp, why):
    arm = Arm()
    arm.settle(20, stamp=stamp)
    assert why in arm.refused()


def test_joints_on_slow_topics_out_of_step_are_told_why_no_command_comes():
    contract = contract_with(topics={"joint_states": [{"name": "/a"}, {"name": "/b"}]}, rates={"joint_states": 25},
                             deadlines={"joint_states": 0.2})  # fmt: skip
    arm = Arm(contract)
    for i in range(300):
        arm.clock.advance(arm.dt)
        if i % 4 in (0, 2):
            half = slice(0, 3) if i % 4 == 0 else slice(3, 6)
            arm.say(arm.at[half], names=arm.names[half], publisher=f"{i % 4}")
        arm.look()
        if i == 150:
            arm.core.arm()
        assert arm.core.tick() is None
    (told,) = [event.message for event in arm.core.log if "no command yet" in event.message]
    assert "let their drivers publish faster" in told


def test_a_publisher_slower_than_the_deadline_is_told_so():
    arm = Arm(contract_with(topics={"joint_states": [{"name": "/a"}, {"name": "/b"}]}))
    for i in range(60):
        arm.clock.advance(arm.dt)
        arm.say(arm.at[:5], names=arm.names[:5], publisher="arm")
        if i % 6 == 5:
            arm.say(arm.at[5:], names=arm.names[5:], publisher="wrist")
    assert "they come 0.06 s apart, more than deadlines.joint_states 0.05 s" in arm.refused()


def test_more_publishers_than_the_contract_allows_do_not_arm():
    arm = Arm()
    for _ in range(10):
        arm.clock.advance(arm.dt)
        arm.say(publisher="driver")
        arm.say(publisher="other", stamp=arm.clock.now() + 1e-4)
        arm.look()
    assert "2 publishers gave joint states" in arm.refused()
    assert "(driver, other)" in arm.refused()
    allowed = contract_with(topics={"joint_states": {"name": "/joint_states", "publishers": 2}})
    arm = Arm(allowed)
    for _ in range(10):
        arm.clock.advance(arm.dt)
        arm.say(publisher="driver")
        arm.say(publisher="other", stamp=arm.clock.now() + 1e-4)
        arm.look()
    arm.core.arm()


def test_a_publisher_that_comes_after_arming_is_a_fault_whatever_it_says():
    arm = Arm()
    arm.settle(publisher="driver")
    arm.core.arm()
    arm.step(publisher="driver")
    arm.say(arm.at + 0.01, publisher="stray")
    assert "publisher stray" in arm.core.fault.message
    assert arm.step(publisher="driver") is None


def test_ever_new_senders_and_names_do_not_fill_the_memory():
    arm = Arm()
    for i in range(3000):
        arm.clock.advance(0.001)
        arm.say([0.0, arm.at[i % 6]], names=[f"wheel_{i}", arm.names[i % 6]], publisher=f"sender_{i}")
    states = arm.core._joints
    assert max(len(states._layouts), len(states._sources), len(states._publishers)) <= 256
    assert "publishers gave joint states" in arm.refused()


# 2: what a fault sends


@pytest.mark.parametrize("running", [False, True])
def test_the_robots_own_stop_commands_nothing_at_once_and_disarms(running):
    arm = following().armed(running=running)
    arm.core.robot_stop("protective stop")
    assert arm.step(follow=False) is None
    assert arm.core.state is State.DISARMED
    assert "protective stop" in arm.core.log.of_kind("stop")[-1].message
    assert not arm.core.submit(arm.chunk()).accepted


def test_the_robots_own_stop_in_the_moment_of_arming_does_not_arm():
    arm = Arm()
    arm.settle()
    arm.core.robot_stop("protective stop")  # by another thread, and no tick has taken it yet
    assert "protective stop, just now" in arm.refused()
    arm.settle()
    arm.core.arm()


def test_the_robots_own_stop_leaves_a_latched_fault_and_its_silence():
    arm = following().armed(running=True)
    arm.core.estop("button")
    arm.core.robot_stop("power off")
    for _ in range(50):
        assert arm.step(follow=False) is None
    assert arm.core.fault.message == "button"
    assert arm.core.state is State.FAULT


# 3 and 4: the pose and the velocity at arming


@pytest.mark.parametrize(("kind", "unit", "default"), [("revolute", "rad", 0.02), ("prismatic", "m", 0.002)])
def test_the_tolerance_at_arming_is_of_the_joints_kind(kind, unit, default):
    contract = contract_with(joints={0: {"kind": kind, "unit": unit, "position": [-0.5, 0.5], "arm_tolerance": None}})
    assert contract.joints[0].arm_tolerance == default
    at = np.array([0.5 + 0.9 * default, *TRUTH[1:]])
    assert Arm(contract, at=at).armed().step().positions[0] == 0.5
    arm = Arm(contract, at=np.array([0.5 + 1.1 * default, *TRUTH[1:]]))
    arm.settle()
    assert "outside [-0.5, 0.5]" in arm.refused()


@pytest.mark.parametrize("told", [None, np.full(6, np.nan), np.zeros(6), []])
def test_a_moving_arm_is_not_armed_whatever_its_velocities_say(told):
    arm = Arm()
    for _ in range(40):
        arm.at = arm.at + np.array([0, 0, 0.4, 0, 0, 0]) * arm.dt
        arm.settle(1, velocities=told)
    message = arm.refused()
    assert "elbow_joint moves at 0.4 rad/s, estimated from its positions" in message
    assert ("though its velocity is given as 0" in message) == (told is not None and len(told) > 0 and told[0] == 0)


def test_a_resting_arm_whose_velocities_say_that_it_moves_is_not_armed():
    arm = Arm()
    arm.settle(velocities=np.full(6, 0.5))
    assert "moves at 0.5 rad/s" in arm.refused()


def test_an_encoder_that_flickers_between_two_steps_is_at_rest():
    arm = Arm(RobotContract.load("so101"), at=np.array([0.1, -0.2, 0.3, 0.0, 0.2, 0.5]))
    step = 2 * np.pi / 4096
    for i in range(20):
        arm.settle(1, values=arm.at + step * (i % 2))
    arm.core.arm()


# 5: nobody is surprised by a motion


def test_arming_asks_for_cameras_and_for_what_the_policy_lacks_unless_it_only_holds():
    arm = Arm()
    for _ in range(8):
        arm.clock.advance(arm.dt)
        arm.say()
    message = arm.refused(missing=["no policy server is connected"])
    assert "camera wrist has sent no image" in message
    assert "no policy server is connected" in message
    arm.core.arm(missing=["no policy server is connected"], hold_only=True)
    assert arm.step() is not None
    result = arm.core.submit(arm.chunk())
    assert not result.accepted
    assert "hold only" in result.message


def test_a_long_silence_needs_a_new_arm():
    arm = Arm(contract_with(deadlines={"idle": 2.0})).armed()
    arm.step(190)
    assert arm.core.state is State.HOLDING
    arm.step(15)
    assert arm.core.state is State.DISARMED
    assert "arm again" in arm.core.log.of_kind("state")[-1].message
    assert arm.step() is None
    assert not arm.core.submit(arm.chunk()).accepted


# 12: joint states as robots send them


@pytest.mark.parametrize(("names", "values"), [(["wheel_left"], [3.0]), ([], []), (["a", "b"], [np.nan, 1.0])])
@pytest.mark.parametrize("armed", [False, True])
def test_a_message_without_joints_of_ours_is_neither_a_fault_nor_fresh(names, values, armed):
    arm = Arm()
    arm.settle()
    if armed:
        arm.core.arm()
        arm.step()
    assert not arm.say(values, names=names)
    assert not arm.say([], names=arm.names), "velocities or efforts alone"
    assert arm.core.fault is None
    for _ in range(20):  # it does not keep old states alive
        arm.clock.advance(arm.dt)
        arm.say(values, names=names)
        arm.core.tick()
    assert (arm.core.fault is not None) == armed
    if not armed:
        assert "old" in arm.refused()


def test_what_came_and_what_was_missing_is_said_with_the_name_to_map():
    arm = Arm()
    names = [f"left_{name}" for name in arm.names]
    arm.settle(names=names)
    message = arm.refused()
    assert "no joint states of this arm have come, only left_shoulder_pan_joint" in message
    assert "give it state_name: left_shoulder_pan_joint" in message
    arm = Arm()
    arm.settle(names=arm.names[:5], values=arm.at[:5])
    assert "have come, and none of wrist_3_joint" in arm.refused()


def test_joints_go_by_the_names_that_the_contract_maps():
    names = [{"state_name": f"left_{joint.name}"} for joint in RobotContract.load("ur5e").joints]
    arm = Arm(contract_with(joints=dict(enumerate(names))))
    assert np.array_equal(arm.armed().step().positions, TRUTH)


def split() -> Arm:
    topics = {"joint_states": [{"name": "/arm/joint_states"}, {"name": "/gripper/joint_states"}]}
    return Arm(contract_with(topics=topics))


def say_parts(arm: Arm, tick: int, dead: bool = False, armed: bool = True) -> Command | None:
    arm.clock.advance(arm.dt)
    arm.say(arm.at[:5], names=arm.names[:5], publisher="arm")
    if not dead and tick % 2 == 0:  # slower, and with a clock of its own
        arm.say(arm.at[5:], names=arm.names[5:], publisher="gripper", stamp=arm.clock.now() - 4e5)
    arm.look()
    return arm.core.tick()


def test_joints_spread_over_two_topics_are_put_together_each_with_its_own_age():
    arm = split()
    for tick in range(20):
        say_parts(arm, tick)
    arm.core.arm()
    command = say_parts(arm, 0)
    assert np.array_equal(command.positions, TRUTH)
    for tick in range(20):
        say_parts(arm, tick)
    assert arm.core.fault is None
    for tick in range(10):
        say_parts(arm, tick, dead=True)
    assert arm.core.fault.cause == "joint_states"
    assert "joint states of wrist_3_joint are" in arm.core.fault.message
    assert "shoulder" not in arm.core.fault.message


def test_a_joint_that_turns_without_end_goes_on_where_its_angle_wraps():
    contract = contract_with(joints={5: {"kind": "continuous"}})
    at = TRUTH.copy()
    at[5] = 3.1
    arm = Arm(contract, at=at).armed()
    way = np.linspace(0, 0.5, 40)[:, None] * np.array([0, 0, 0, 0, 0, 1.0])
    actions = arm.at + way
    actions[:, 5] = np.remainder(actions[:, 5] + np.pi, 2 * np.pi) - np.pi  # as a policy has learned them
    assert arm.core.submit(arm.chunk(actions=actions)).accepted
    positions = []
    for _ in range(150):
        said = arm.at.copy()
        said[5] = np.remainder(said[5] + np.pi, 2 * np.pi) - np.pi
        command = arm.step(values=said)
        positions.append(command.positions[5])
    assert arm.core.fault is None
    assert np.abs(np.diff(positions)).max() < 0.05
    assert positions[-1] > 3.2, "on, beyond half a turn"


# 14: hysteresis, skew, start poses


def test_a_camera_at_the_edge_of_degraded_is_one_event():
    arm = Arm().armed()
    arm.core.log.counts.clear()
    for i in range(1000):
        arm.clock.advance(arm.dt)
        arm.say()
        if i % 20 == 0:  # five pictures a second of a camera that should give thirty
            arm.look()
        if i % 25 == 0:
            arm.core.submit(arm.chunk(to=0.05 * np.sin(i / 50), horizon=60))
        command = arm.core.tick()
        arm.at = arm.at if command is None else command.positions
    assert arm.core.fault is None
    assert 1 <= arm.core.log.counts["degraded"] <= 2


def test_a_picture_that_does_not_belong_to_the_joint_state_is_not_acted_on():
    arm = Arm().armed()
    for _ in range(38):
        arm.clock.advance(arm.dt)
        arm.say()
        arm.core.tick()
    result = arm.core.submit(arm.chunk())
    assert not result.accepted
    assert (
        "camera wrist: no image within 0.1 s (deadlines.skew) of the joint state; the nearest is 0.38" in result.message
    )
    arm.look()
    assert arm.core.submit(arm.chunk()).accepted


@pytest.mark.parametrize(("wanted", "refused"), [("refuse", True), ("warn", False), ("off", False)])
def test_a_start_pose_far_from_every_demonstration_is_refused_warned_of_or_left(wanted, refused):
    arm = Arm(contract_with(safety={"start_pose": wanted}))
    poses = {name: [at - 0.1, at + 0.1] for name, at in zip(arm.names, TRUTH, strict=True)}
    poses["elbow_joint"] = [0.2, 0.4]
    arm.settle()
    text = "elbow_joint is at 1.9 rad, demonstrations began between 0.2 and 0.4"
    if refused:
        assert text in arm.refused(start_poses=poses)
        return
    arm.core.arm(start_poses=poses)
    warnings = arm.core.log.of_kind("warning")
    assert [text in event.message for event in warnings] == ([True] if wanted == "warn" else [])


def test_a_start_pose_near_the_demonstrations_is_nothing_to_tell():
    arm = Arm(contract_with(safety={"start_pose": "refuse"}))
    arm.settle()
    arm.core.arm(start_poses={name: [at, at] for name, at in zip(arm.names, TRUTH + 0.02, strict=True)})
    assert arm.core.log.of_kind("warning") == []


@pytest.mark.parametrize("found", [None, 3, "ab", [1, 0], [0], [float("nan"), 1], [[0], [1, 2]], {}])
def test_start_poses_that_are_none_are_a_reason_and_no_crash(found):
    arm = Arm(contract_with(safety={"start_pose": "refuse"}))
    arm.settle()
    assert "not [low, high]" in arm.refused(start_poses={"elbow_joint": found})
