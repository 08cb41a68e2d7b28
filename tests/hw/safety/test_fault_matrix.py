"""The fault matrix, row by row, against the core with a clock that the test owns.

After every row the invariants are checked on all commands sent: inside the limits, stopped within the bound, held,
latched.
"""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest

from robo_hw import ArmRefusedError, RobotContract, State
from tests.hw.conftest import Bench

DT = 0.01  # the bench's tick


# Row: NaN / Inf / wrong shape / reordered joints -> chunk rejected, brake, joint named


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (7, 4), (23, 6)])
def test_row_a_number_that_is_not_finite_rejects_the_whole_chunk_and_names_the_joint(bench, value, place):
    chunk = bench.chunk()
    chunk.actions[place] = value
    result = bench.core.submit(chunk)
    assert not result.accepted
    assert result.joint == f"panda_joint{place[1] + 1}"
    assert bench.last("rejected").joint == result.joint
    assert bench.core.state is State.STOPPING
    bench.comes_to_rest(State.HOLDING)


@pytest.mark.parametrize(
    "actions",
    [np.zeros((24, 6)), np.zeros(7), np.zeros((0, 7)), np.zeros((2, 3, 7)), [["a"] * 7], None, np.zeros((999, 7))],
)
def test_row_a_wrong_shape_rejects_the_chunk_and_brakes(bench, actions):
    result = bench.core.submit(bench.chunk(actions=actions))
    assert not result.accepted
    assert result.malformed
    bench.comes_to_rest(State.HOLDING)


@pytest.mark.parametrize(
    ("change", "joint"),
    [
        (lambda names: (names[0], names[2], names[1], *names[3:]), "panda_joint2"),
        (lambda names: names[:-1], "panda_joint7"),
        (lambda names: ("somebody", *names[1:]), "panda_joint1"),
        (lambda names: (*names, names[0]), "panda_joint1"),
        (lambda names: (), "panda_joint1"),
        (lambda names: None, "panda_joint1"),
    ],
)
def test_row_reordered_or_missing_joints_reject_the_chunk_and_name_the_joint(bench, change, joint):
    result = bench.core.submit(bench.chunk(joints=change(bench.names)))
    assert not result.accepted
    assert result.joint == joint
    bench.comes_to_rest(State.HOLDING)


def test_row_a_wild_step_rejects_the_chunk_with_joint_value_and_limit(bench):
    chunk = bench.chunk()
    chunk.actions[9:, 3] -= 1.0
    result = bench.core.submit(chunk)
    assert (result.joint, result.limit) == ("panda_joint4", 0.8)
    assert result.value == pytest.approx(1.0, abs=0.1)
    bench.comes_to_rest(State.HOLDING)


@pytest.mark.parametrize(("value", "horizon"), [(-115.0, 24), (1e308, 24), (1e308, 1), (-1e300, 2)])
def test_row_a_number_that_no_robot_was_meant_by_rejects_the_chunk(bench, value, horizon):
    chunk = bench.chunk(horizon=horizon)
    chunk.actions[-1, 3] = value
    result = bench.core.submit(chunk)
    assert result.malformed
    assert (result.joint, result.value) == ("panda_joint4", value)
    bench.comes_to_rest(State.HOLDING)


def test_row_malformed_chunks_again_and_again_are_a_fault(bench):
    for _ in range(bench.contract.safety.rejections_before_fault):
        assert bench.core.fault is None
        bench.core.submit(bench.chunk(actions=np.full((24, 7), np.nan)))
        bench.step(0.5)
        bench.core.tick()
    assert bench.core.fault is not None
    assert bench.core.fault.cause == "policy"


# Row: dropped, late, out-of-order chunk -> finish the safe tail, brake, hold


def test_row_a_dropped_chunk_lets_the_tail_finish_then_holds(bench):
    assert bench.core.submit(bench.chunk(horizon=12)).accepted
    goal = bench.core._motion.pace.path.points[-1].copy()
    while bench.core.state is State.RUNNING:
        bench.step()
    bench.comes_to_rest(State.HOLDING)
    assert np.allclose(bench.robot, goal), "the tail was finished"
    assert "ran out of actions" in bench.last("stop").message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda b: {"observed_at": b.clock.now() - 0.9}, "not between"),
        (lambda b: {"observed_at": b.clock.now() + 0.5}, "not between"),
        (lambda b: {"observed_at": float("nan")}, "not between"),
        (lambda b: {"sequence": 1}, "out of order"),
        (lambda b: {"sequence": None}, "out of order"),
        (lambda b: {"epoch": b.core.epoch - 1}, "epoch"),
        (lambda b: {"epoch": b.core.epoch + 1}, "epoch"),
    ],
)
def test_row_a_late_or_out_of_order_chunk_is_dropped_and_the_motion_goes_on(bench, change, reason):
    result = bench.core.submit(bench.chunk(**change(bench)))
    assert not result.accepted
    assert not result.malformed
    assert reason in result.message
    bench.step()
    assert bench.core.state is State.RUNNING
    while bench.core.state is State.RUNNING:
        bench.step()
    bench.comes_to_rest(State.HOLDING)


def test_row_a_chunk_older_than_its_deadline_is_late(bench):
    old = bench.chunk(horizon=60)
    assert bench.core.submit(bench.chunk(horizon=60)).accepted
    bench.step(bench.contract.deadlines.chunk + 0.05)
    bench.sequence += 1
    result = bench.core.submit(dataclasses.replace(old, sequence=bench.sequence))
    assert "late" in result.message
    assert bench.core.state is State.RUNNING


def test_row_a_policy_that_goes_silent_is_stopped_at_its_deadline_though_actions_remain(bench):
    assert bench.core.submit(bench.chunk(horizon=200, speed=0.1)).accepted
    since = bench.clock.now()
    while bench.core.state is State.RUNNING:
        bench.step()
    assert bench.clock.now() - since == pytest.approx(bench.contract.deadlines.actions, abs=2 * DT)
    assert bench.core.last_stop.cause == "actions"
    bench.comes_to_rest(State.HOLDING)


# Row: frozen camera, late frame -> degraded, then stop at the deadline


def test_row_a_silent_camera_degrades_then_stops_at_the_deadline(bench):
    assert bench.core.submit(bench.chunk(horizon=60)).accepted
    bench.cameras = False
    since, slower = bench.clock.now(), None
    while bench.core.state is State.RUNNING:
        bench.step()
        if bench.core.status().degraded and slower is None:
            slower = bench.clock.now() - since
    assert slower == pytest.approx(0.15, abs=2 * DT)
    assert bench.core.last_stop.cause == "camera"
    assert bench.clock.now() - since == pytest.approx(0.4, abs=2 * DT)
    bench.comes_to_rest(State.HOLDING)
    assert "camera wrist" in bench.core.submit(bench.chunk()).message, "no new start without a picture"


def test_row_a_late_frame_slows_the_arm_and_lets_it_recover(bench):
    assert bench.core.submit(bench.chunk(horizon=60)).accepted
    bench.step(0.3)
    assert bench.core.status().rate == pytest.approx(1.0, rel=0.02)
    bench.cameras = False
    bench.step(0.32)
    assert bench.core.status().degraded == ("wrist",)
    assert bench.core.status().rate < 0.9
    bench.cameras = True
    bench.step()
    assert bench.core.submit(bench.chunk(horizon=60)).accepted
    bench.step(0.6)
    assert bench.core.status().degraded == ("wrist",), "one good second ends it, not one good picture"
    assert bench.core.submit(bench.chunk(horizon=60)).accepted
    bench.step(0.7)
    assert bench.core.status().degraded == ()
    assert bench.core.status().rate == pytest.approx(1.0, rel=0.02)
    bench.keeps_the_limits()


def test_row_a_frozen_camera_whose_stamps_advance_degrades_then_stops(bench):
    bench.digest = 7
    since, degraded = bench.clock.now(), False
    while bench.core.state is State.RUNNING:
        bench.step()
        degraded = degraded or bench.core.status().degraded == ("wrist",)
        bench.core.submit(bench.chunk())
    assert degraded
    assert bench.core.last_stop.cause == "camera"
    assert "the same image" in bench.core.last_stop.message
    assert bench.clock.now() - since == pytest.approx(1.0, abs=0.1)
    bench.comes_to_rest(State.HOLDING)
    assert "the same image" in bench.core.submit(bench.chunk()).message, "no new start before another picture"
    bench.digest = None
    bench.step()
    assert bench.core.submit(bench.chunk()).accepted


# Row: joint states stale, missing joint, jump -> FAULT


def test_row_stale_joint_states_are_a_fault(bench):
    bench.joints = False
    bench.step(0.07)
    assert bench.core.fault is not None
    assert bench.core.fault.cause == "joint_states"
    bench.comes_to_rest(State.FAULT)


def test_row_stale_joint_states_are_a_fault_while_holding_too(resting):
    bench = resting
    bench.settle()
    bench.core.arm()
    bench.joints = False
    bench.step(0.07)
    assert bench.core.state is State.FAULT
    assert bench.step() is None, "nothing is known of where the arm is"


@pytest.mark.parametrize(
    ("names", "values", "joint"),
    [
        (slice(1, None), slice(1, None), "panda_joint1"),
        (slice(None), slice(1, None), None),
        (slice(None), "nan", "panda_joint3"),
    ],
)
def test_row_a_missing_or_broken_joint_is_a_fault(bench, names, values, joint):
    positions = bench.robot.copy()
    if values == "nan":
        positions[2], values = np.nan, slice(None)
    bench.clock.advance(DT)
    assert not bench.core.observe(bench.names[names], positions[values], stamp=bench.clock.now())
    assert bench.core.fault is not None
    assert bench.core.fault.joint == joint
    bench.core.tick()
    bench.comes_to_rest(State.FAULT)


def test_row_a_jump_of_a_joint_is_a_fault_with_joint_value_and_limit(bench):
    bench.clock.advance(DT)
    jumped = bench.robot.copy()
    jumped[5] += 0.5
    bench.core.observe(bench.names, jumped, stamp=bench.clock.now())
    fault = bench.core.fault
    assert (fault.cause, fault.joint) == ("joint_states", "panda_joint6")
    assert fault.value > fault.limit > 0
    bench.comes_to_rest(State.FAULT)


def test_row_a_joint_that_does_not_follow_is_a_fault(bench):
    assert bench.core.submit(bench.chunk(horizon=60, speed=1.0)).accepted
    stuck = bench.robot.copy()
    while bench.core.fault is None:
        bench.clock.advance(DT)
        bench.core.observe(bench.names, stuck, stamp=bench.clock.now())
        bench.core.observe_camera("wrist", bench.sequence, stamp=bench.clock.now())
        bench.commands.append(bench.core.tick())
        bench.sequence += 1
        assert bench.sequence < 200
    assert bench.core.fault.cause == "following"


def test_joint_states_in_another_order_with_strangers_among_them_are_taken(bench):
    bench.clock.advance(DT)
    names = ("finger", *reversed(bench.names))
    assert bench.core.observe(names, np.append(9.9, bench.robot[::-1]), stamp=bench.clock.now())
    assert bench.core.fault is None


# Row: clock jumps, simulated time paused, bag loops -> no false pass; the watchdog still fires


@pytest.mark.parametrize("jump", [-3.0, -0.2, 0.2, 3.0])
def test_row_a_jump_of_the_senders_clock_is_no_false_pass(bench, jump):
    bench.stamp_shift = jump
    bench.step(0.07)
    assert bench.core.fault is not None
    bench.comes_to_rest(State.FAULT)
    assert any("stamp" in event.message for event in bench.core.log.of_kind("stream"))


def test_row_paused_simulated_time_fires_the_watchdog(bench):
    bench.stamp = bench.clock.now()
    bench.step(0.07)
    assert bench.core.fault is not None
    assert bench.core.fault.cause == "joint_states"
    bench.comes_to_rest(State.FAULT)


def test_row_a_bag_that_loops_fires_the_watchdog(resting):
    bench = resting
    for i in range(200):  # the bag ends every half second and begins again, the arm at rest all along
        bench.clock.advance(DT)
        bench.stamp = 1000.0 + (i % 50) * DT
        bench.see()
        if i == 20:
            bench.core.arm()
        if i > 20:
            bench.core.tick()
    assert bench.core.state is State.FAULT
    assert bench.core.fault.cause == "joint_states"
    assert bench.core.fault.time == pytest.approx(100.5 + 0.05, abs=0.03)


def test_row_the_steady_clock_going_back_is_a_fault(bench):
    bench.clock.advance(-0.5)
    before = bench.commands[-1].positions
    command = bench.core.tick()
    assert np.allclose(command.positions, before)
    assert bench.core.fault.cause == "clock"
    bench.step(0.6)
    assert bench.core.state is State.FAULT


def test_row_a_late_control_loop_finds_the_arm_braking(bench):
    bench.clock.advance(0.3)
    bench.see()
    bench.commands.append(bench.core.tick())
    assert bench.core.last_stop.cause == "tick"
    assert bench.core.state is not State.RUNNING
    bench.keeps_the_limits()


def test_row_a_queue_that_delivers_late_makes_the_age_grow(bench):
    bench.stamp_shift = -0.02
    bench.clock.advance(0.02)
    bench.step(0.02)
    assert bench.core.fault is None
    age = bench.core._joints.age(bench.clock.now())
    assert age == pytest.approx(0.02, abs=1e-3)


# Row: policy killed, slow, restarted in mid-chunk -> stop; wrong epoch rejected


def changed(name: str = "franka_panda", **safety) -> RobotContract:
    """A packaged contract with other settings of ``safety``."""
    data = copy.deepcopy(RobotContract.load(name).to_dict())
    data["safety"].update(safety)
    return RobotContract.from_dict(data)


def running(contract: RobotContract) -> Bench:
    bench = Bench(contract=contract)
    bench.start()
    return bench


def test_row_a_policy_restarted_in_mid_chunk_stops_the_arm_and_its_old_chunks_are_dropped():
    bench = running(changed(rearm_after_restart=False))
    old = bench.chunk()
    epoch = bench.core.new_epoch()
    assert epoch == old.epoch + 1
    assert bench.core.state is State.STOPPING
    assert "stopping" in bench.core.submit(old).message
    bench.comes_to_rest(State.HOLDING)
    bench.sequence += 1
    assert "epoch" in bench.core.submit(dataclasses.replace(old, sequence=bench.sequence)).message
    assert bench.core.state is State.HOLDING


def test_row_a_restarted_policy_resumes_by_observing_the_new_epoch_where_the_contract_says_so():
    bench = running(changed(rearm_after_restart=False))
    bench.core.new_epoch()
    bench.comes_to_rest(State.HOLDING)
    bench.sequence = 0  # it counts from the beginning again
    assert bench.core.submit(bench.chunk()).accepted
    bench.step(0.3)
    assert bench.core.state is State.RUNNING
    bench.keeps_the_limits()


@pytest.mark.parametrize("moving", [True, False])
def test_row_a_policy_server_that_came_back_needs_a_new_arm(bench, moving):
    if not moving:
        while bench.core.state is not State.HOLDING:
            bench.step()
    bench.core.new_epoch("the policy server restarted")
    bench.step(0.5)
    assert bench.core.state is State.DISARMED
    assert bench.core.tick() is None
    assert not bench.core.submit(bench.chunk()).accepted
    assert "arm again" in bench.last("state").message or moving


def test_row_a_slow_policy_stops_and_may_go_on(bench):
    slow = bench.chunk()
    while bench.core.state is not State.HOLDING:
        bench.step()
    bench.sequence += 1
    assert not bench.core.submit(dataclasses.replace(slow, sequence=bench.sequence)).accepted
    assert bench.core.submit(bench.chunk()).accepted
    bench.step(0.1)
    assert bench.core.state is State.RUNNING


# Row: bridge killed -> the controller's own time-out acts. Nothing of the core is left then but its start.


def test_row_a_bridge_that_was_killed_and_comes_back_is_disarmed(resting):
    bench = resting
    bench.see()
    assert bench.core.state is State.DISARMED
    assert bench.core.tick() is None, "a new core commands nothing"
    assert not bench.core.submit(bench.chunk()).accepted


# Row: e-stop while a goal is accepted and not yet running -> not lost


def test_row_an_emergency_stop_between_acceptance_and_the_first_tick_is_not_lost(resting):
    bench = resting
    bench.settle()
    bench.core.arm()
    bench.step()
    assert bench.core.submit(bench.chunk()).accepted
    bench.core.estop("button")
    before = bench.robot.copy()
    command = bench.step()
    assert bench.core.fault.cause == "e_stop"
    assert np.allclose(command.positions, before), "the last of a stop"
    assert bench.step() is None
    bench.step(0.2)
    assert bench.core.state is State.FAULT
    assert np.allclose(bench.robot, before, atol=1e-12), "it never moved"
    assert not bench.core.submit(bench.chunk()).accepted


def test_row_an_emergency_stop_while_disarmed_refuses_arming(resting):
    bench = resting
    bench.see()
    bench.core.estop()
    with pytest.raises(ArmRefusedError, match="e_stop"):
        bench.core.arm()
    assert bench.core.state is State.FAULT
    assert bench.step() is None, "it never held a position, so it commands none"


def test_row_an_emergency_stop_in_motion_brakes_and_latches(bench):
    bench.core.estop()
    bench.step()
    assert bench.core.state is State.STOPPING
    bench.comes_to_rest(State.FAULT)
