"""The fault matrix through DDS: bridge, arm, policy server and observer are four processes, the same for all rows.

Run by tests/hw/ros2/test_through_dds.py in a Python that has ROS.
"""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest
from lifecycle_msgs.srv import GetState
from rig import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, Rig, rig
from std_msgs.msg import Bool

ARM, DISARM, ESTOP, RESET = (f"/robo_rm_policy/{name}" for name in ("arm", "disarm", "estop", "reset_fault"))


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    with rig(tmp_path_factory.mktemp("rig")) as made:
        yield made


@pytest.fixture
def running(processes: Rig) -> Rig:
    processes.run()
    return processes


@pytest.fixture
def ready(processes: Rig) -> Rig:
    processes.ready()
    return processes


def arm_diagnostics(rig: Rig, key: str) -> str:
    return rig.observer.diagnostics.get("mujoco_arm: arm", {}).get(key, "")


# NaN / Inf / wrong shape / reordered joints -> chunk rejected, brake, joint named


@pytest.mark.parametrize(
    ("mode", "named"),
    [
        ("nan", "forearm_roll: action 7 is nan"),
        ("inf", "wrist_roll: action 0 is inf"),
        ("shape", "the actions have shape (20, 6)"),
        ("reordered", "shoulder_pitch: expected in place 1"),
        ("wild", "wrist_pitch: an action jumps"),
    ],
)
def test_a_malformed_chunk_is_rejected_whole_and_the_arm_brakes(running, mode, named):
    running.server.say(mode)
    running.comes_to_rest("holding")
    assert f"rejected: {named}" in running.said()


def test_actions_beyond_the_position_limits_are_shortened_and_logged(running):
    running.server.say("beyond")
    running.wait("the step is shortened", lambda: "limited: shoulder_pitch" in running.said())
    running.observer.trigger(DISARM)
    running.wait_state("disarmed")
    running.keeps_the_limits()


# Dropped, late, out-of-order chunk -> finish the safe tail, brake, hold


def test_a_chunk_that_does_not_come_lets_the_tail_finish(running):
    running.server.say("silent")
    running.comes_to_rest("holding")
    assert "ran out of actions" in running.said() or "no chunk for" in running.said()


def test_chunks_that_come_too_late_are_dropped_and_the_arm_rests(running):
    running.server.say("late")
    running.comes_to_rest("holding")
    running.wait("a late chunk is dropped", lambda: "dropped:" in running.said())
    running.spin(0.3)
    assert running.state == "holding"


def test_chunks_out_of_order_are_dropped_and_the_motion_goes_on(running):
    running.server.say("out_of_order")
    running.wait("one is dropped", lambda: "dropped: out of order" in running.said())
    running.server.say("normal")
    running.wait_state("running")
    running.keeps_the_limits()


# Frozen camera, late frame -> degraded, then stop at the deadline


@pytest.mark.parametrize(
    ("fault", "said"), [("frozen_camera", "has shown the same image"), ("late_camera", "s old, the limit is 0.8 s")]
)
def test_a_camera_that_fails_slows_and_then_stops_the_arm(running, fault, said):
    running.observer.set_parameter("/mujoco_arm", "fault", fault)
    running.comes_to_rest("holding", seconds=6.0)
    text = running.said()
    assert said in text
    assert text.index("degraded: cameras late") < text.index(said)
    assert text.count("holding -> running") <= 3, "it does not run on without the camera"


# Joint states stale, missing joint, jump -> FAULT; clocks that pause, jump or loop -> no false pass


@pytest.mark.parametrize(
    ("fault", "cause", "said"),
    [
        ("stale_joint_states", "joint_states", "joint states are"),
        ("missing_joint", "joint_states", "gripper is missing"),
        ("nan_joint", "joint_states", "base_yaw"),
        ("joint_jump", "joint_states", "base_yaw jumped by"),
        ("paused_time", "joint_states", "joint states are"),
        ("time_jump", "joint_states", "joint states are"),
        ("time_loop", "joint_states", "joint states are"),
    ],
)
def test_joint_states_that_cannot_be_believed_are_a_fault(running, fault, cause, said):
    observer = running.observer
    observer.set_parameter("/mujoco_arm", "fault", fault)
    running.comes_to_rest("fault")
    assert observer.status["fault.cause"] == cause
    assert said in observer.status["fault.message"]
    done, message = observer.trigger(ARM)
    assert not done
    assert "latched" in message


def test_simulated_time_that_never_runs_does_not_stop_the_watchdogs(processes):
    processes.ready()
    processes.bridge.end()
    try:
        processes.start_bridge(use_sim_time=True)
        processes.run()
        processes.observer.set_parameter("/mujoco_arm", "fault", "stale_joint_states")
        processes.comes_to_rest("fault")
        processes.ready()
    finally:
        processes.bridge.end()
        processes.start_bridge()


# Policy killed, slow, restarted in mid-chunk -> stop; wrong epoch rejected


def test_a_policy_that_is_killed_in_mid_chunk_and_restarted_goes_on_once_it_is_armed_again(running):
    before = int(running.observer.status["epoch"])
    running.server.kill()
    running.comes_to_rest("holding")
    running.server = running.start_server()
    running.wait_state("disarmed")
    assert "the policy server restarted; arm again" in running.said()
    running.commands_nothing(1.0)
    assert int(running.observer.status["epoch"]) > before
    running.arm_it()
    running.wait("it moves again", lambda: running.state == "running" and running.speed() > 0.1)


def test_a_policy_that_hangs_is_stopped_at_the_deadline(running):
    running.server.popen.send_signal(signal.SIGSTOP)
    try:
        running.comes_to_rest("holding", seconds=6.0)
    finally:
        running.server.popen.send_signal(signal.SIGCONT)
    running.wait_state("running", seconds=10.0)


def test_a_policy_that_hangs_behind_a_live_server_is_an_error_in_diagnostics_with_how_long(running):
    running.server.say("hangs")
    running.comes_to_rest("holding", seconds=6.0)

    def policy() -> dict[str, str]:
        return running.observer.diagnostics.get("robo_rm_policy: policy", {})

    running.wait("it is told", lambda: "the policy hangs: no answer to an observation for" in policy()["message"], 8.0)
    assert policy()["level"] == "2"
    assert float(policy()["waiting"]) > 2.0
    running.server.say("normal")
    running.wait("it is told that it answers", lambda: policy()["message"] == "connected")


def test_chunks_of_an_earlier_epoch_are_rejected(running):
    running.server.say("old_epoch")
    running.comes_to_rest("holding")
    assert "dropped: made in epoch" in running.said()


def test_a_policy_that_raises_is_reported_and_the_arm_rests(running):
    running.server.say("raises")
    running.comes_to_rest("holding")
    entry = "robo_rm_policy: policy"
    running.wait(
        "diagnostics tell why",
        lambda: "the network is broken" in running.observer.diagnostics.get(entry, {}).get("message", ""),
    )


# Bridge killed -> the controller's own time-out acts


def test_a_bridge_that_is_killed_leaves_an_arm_that_brakes_by_itself(running):
    # Told once a second: what was told before this motion says nothing about it.
    running.observer.diagnostics.clear()
    running.wait("the controller is at work", lambda: arm_diagnostics(running, "commanded") == "True")
    timeouts = int(arm_diagnostics(running, "timeouts"))
    tail = running.observer.commands[-1].points[-1].time_from_start
    running.bridge.kill()
    began = time.monotonic()
    track = []
    while time.monotonic() - began < 1.0:
        running.spin(0.02)
        track.append(running.observer.measured.copy())
    assert np.abs(track[-1] - track[-10]).max() < 0.01, "the arm rests"
    running.wait("the controller noticed", lambda: int(arm_diagnostics(running, "timeouts")) > timeouts)
    assert tail.sec + tail.nanosec * 1e-9 < running.contract.safety.max_stop_time + 0.1
    running.keeps_the_limits()
    running.start_bridge()


def test_a_bridge_that_is_told_to_end_brakes_first(running):
    assert running.bridge.end(signal.SIGTERM) == 0
    running.spin(0.2)
    assert not running.observer.commanded[-1][3].any(), "the last command is at rest"
    running.keeps_the_limits()
    running.start_bridge()


# E-stop or disarm while a goal is accepted and not yet running -> not lost


@pytest.mark.parametrize("way", ["service", "topic"])
def test_an_emergency_stop_while_the_first_chunk_is_on_its_way_is_not_lost(ready, way):
    ready.server.say("slow")
    ready.arm_it()
    if way == "service":
        assert ready.observer.trigger(ESTOP)[0]
    else:
        ready.observer.estop.publish(Bool(data=True))
    ready.comes_to_rest("fault")
    ready.spin(0.5)  # the chunk comes
    assert ready.state == "fault"
    assert ready.observer.status["fault.cause"] == "e_stop"
    assert "running" not in {entry[1] for entry in ready.observer.commanded}
    if way == "topic":
        time.sleep(ready.contract.safety.cool_down)
        done, message = ready.observer.trigger(RESET)
        assert not done
        assert "still pressed" in message
        ready.observer.estop.publish(Bool(data=False))


def test_an_emergency_stop_in_motion_brakes_and_latches(running):
    assert running.observer.trigger(ESTOP)[0]
    running.comes_to_rest("fault")
    assert not running.observer.trigger(RESET)[0] or running.contract.safety.cool_down < 0.6


def test_disarming_while_the_first_chunk_is_on_its_way_commands_nothing_more(ready):
    ready.server.say("slow")
    ready.arm_it()
    assert ready.observer.trigger(DISARM)[0]
    ready.wait_state("disarmed")
    ready.spin(0.1)
    sent = len(ready.observer.commands)
    ready.spin(0.5)
    assert len(ready.observer.commands) == sent
    assert "running" not in {entry[1] for entry in ready.observer.commanded}


# The lifecycle around it


def test_status_is_latched_and_stamped_every_second(ready):
    before = ready.observer.statuses
    ready.spin(2.2)
    assert 1 <= ready.observer.statuses - before <= 4


def test_deactivating_in_motion_brakes_and_cleaning_up_waits_for_rest(running):
    assert running.observer.transition(DEACTIVATE)
    running.wait_state("disarmed")
    running.keeps_the_limits()
    done, message = running.observer.trigger(ARM)
    assert not done
    assert "not active" in message
    assert running.observer.transition(ACTIVATE)


def test_activation_is_refused_naming_the_field_where_the_contracts_differ(ready):
    observer = ready.observer
    assert observer.transition(DEACTIVATE)
    assert observer.transition(CLEANUP)
    ready.server.end()
    text = ready.contract_file.read_text()
    ready.contract_file.write_text(text.replace("actions: 20", "actions: 10", 1))
    ready.server = ready.start_server()
    ready.contract_file.write_text(text)
    assert observer.transition(CONFIGURE)
    assert not observer.transition(ACTIVATE)
    assert "rates.actions" in ready.bridge.text()
    assert observer.call(GetState, "/robo_rm_policy/get_state", GetState.Request()).current_state.label == "inactive"
    ready.server.end()
    ready.server = ready.start_server()
    ready.wait("the right server is taken", lambda: observer.transition(ACTIVATE), 10.0)
