"""Arming, holding, disarming, faults and the event log."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import robo_hw
from robo_hw import ActionChunk, ArmRefusedError, ManualClock, RobotContract, SafetyCore, State, frame_digest
from robo_hw.safety.events import EventLog

SO101 = RobotContract.load("so101")
REST = np.array([0.1, -0.2, 0.3, 0.0, 0.2, 0.5])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(50.0)


@pytest.fixture
def core(clock) -> SafetyCore:
    return SafetyCore(SO101, clock)


def see(core, clock, positions=REST, velocities=None):
    core.observe(SO101.joint_names, positions, velocities, stamp=clock.now())
    for camera in SO101.cameras:
        core.observe_camera(camera.name, int(clock.now() * 1e6), stamp=clock.now())


def settle(core, clock, positions=REST, velocities=None):
    """Be seen at rest for as long as arming asks."""
    for _ in range(6):
        clock.advance(0.02)
        see(core, clock, positions, velocities)


def run(core, clock, seconds, dt=0.02):
    robot, command = REST, None
    for _ in range(round(seconds / dt)):
        clock.advance(dt)
        see(core, clock, robot)
        command = core.tick()
        robot = robot if command is None else command.positions
    return command


def chunk(core, clock, sequence=1, horizon=30):
    actions = REST + np.linspace(0, 0.4, horizon)[:, None]
    return ActionChunk(actions, SO101.joint_names, core.epoch, sequence, clock.now())


def test_a_disarmed_core_commands_nothing(core, clock):
    assert core.tick() is None
    run(core, clock, 0.2)
    assert core.tick() is None
    assert not core.submit(chunk(core, clock)).accepted


def test_an_armed_core_holds_the_measured_position_and_never_zero(core, clock):
    settle(core, clock)
    core.arm()
    for _ in range(5):
        clock.advance(0.02)
        see(core, clock)
        command = core.tick()
        assert np.array_equal(command.positions, REST)
        assert not command.velocities.any()
        assert command.state is State.HOLDING
        assert command.stop_time == 0.0


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda core, clock: None, "no joint states"),
        (lambda core, clock: (settle(core, clock), clock.advance(0.2)), "0.200 s old"),
        (lambda core, clock: settle(core, clock, REST + np.array([3.0, 0, 0, 0, 0, 0])), "shoulder_pan is at 3.1"),
        (lambda core, clock: settle(core, clock, REST, np.full(6, 0.5)), "shoulder_pan moves at 0.5"),
        (lambda core, clock: core.estop("button"), "e_stop"),
        (lambda core, clock: (settle(core, clock), core.arm()), "already holding"),
    ],
)
def test_arming_is_refused_with_every_reason(core, clock, prepare, reason):
    prepare(core, clock)
    with pytest.raises(ArmRefusedError, match=reason):
        core.arm()


def test_a_joint_a_hair_outside_its_limit_is_armed_at_the_limit(core, clock):
    resting = REST.copy()
    resting[1] = -1.755  # sagged 0.01 rad below -1.745
    settle(core, clock, resting)
    core.arm()
    clock.advance(0.02)
    assert core.tick().positions[1] == -1.745


def test_disarming_in_motion_brakes_first(core, clock):
    settle(core, clock)
    core.arm()
    assert core.submit(chunk(core, clock)).accepted
    run(core, clock, 0.5)
    core.disarm()
    assert core.state is State.STOPPING
    run(core, clock, 1.1)
    assert core.state is State.DISARMED
    assert core.tick() is None


def test_the_first_cause_of_a_fault_stays_and_outlives_policies(core, clock):
    settle(core, clock)
    core.arm()
    core.estop("first")
    run(core, clock, 0.1)
    first = core.fault
    clock.advance(5.0)
    core.tick()
    core.observe(SO101.joint_names, np.full(6, np.nan))
    core.new_epoch("another policy")
    core.disarm()
    assert core.fault is first
    assert first.message == "first"
    assert core.state is State.FAULT


def test_a_fault_is_reset_by_hand_after_the_cool_down(core, clock):
    settle(core, clock)
    core.arm()
    core.estop()
    run(core, clock, 0.1)
    with pytest.raises(ArmRefusedError, match="cool-down"):
        core.reset_fault()
    run(core, clock, SO101.safety.cool_down)
    core.reset_fault()
    assert core.state is State.DISARMED
    assert core.fault is None
    assert core.tick() is None, "the old hold is not taken up again"
    with pytest.raises(ArmRefusedError, match="joint states"):
        core.arm()
    run(core, clock, 0.2)
    core.arm()
    assert core.state is State.HOLDING


def test_the_cool_down_counts_from_the_last_fault(core, clock):
    core.estop()
    core.tick()
    clock.advance(SO101.safety.cool_down - 0.1)
    core.estop("again")
    clock.advance(0.2)
    with pytest.raises(ArmRefusedError, match="cool-down"):
        core.reset_fault()
    assert core.fault.message == "emergency stop"


def test_an_arm_that_was_moved_by_hand_in_fault_does_not_put_the_reset_off_for_ever(core, clock):
    settle(core, clock)
    core.arm()
    clock.advance(0.02)
    pushed = REST + 0.6
    see(core, clock, pushed)
    assert core.fault is not None
    for _ in range(round((SO101.safety.cool_down + 0.1) / 0.02)):
        clock.advance(0.02)
        see(core, clock, pushed)
        assert core.tick() is None, "what was held is not where the arm is"
    core.reset_fault()
    settle(core, clock, pushed)
    core.arm()
    assert np.array_equal(core.tick().positions, pushed)


def test_there_is_nothing_to_reset_without_a_fault(core):
    with pytest.raises(ArmRefusedError, match="no fault"):
        core.reset_fault()


def test_a_fault_cannot_be_reset_while_the_arm_still_brakes(core, clock):
    settle(core, clock)
    core.arm()
    core.submit(chunk(core, clock))
    run(core, clock, 0.5)
    core.estop()
    core.tick()
    assert core.state is State.STOPPING
    with pytest.raises(ArmRefusedError, match="braking"):
        core.reset_fault()


def test_an_emergency_stop_from_another_thread_is_taken_at_the_next_call(core, clock):
    settle(core, clock)
    core.arm()
    thread = threading.Thread(target=core.estop, args=("from a thread",))
    thread.start()
    thread.join()
    assert not core.submit(chunk(core, clock)).accepted
    assert core.fault.message == "from a thread"


def test_every_slowing_is_logged_once_with_joint_value_and_limit(core, clock):
    settle(core, clock)
    core.arm()
    fast = chunk(core, clock, horizon=15)
    fast.actions[:, 2] += np.linspace(0, 1.0, 15) ** 2
    assert core.submit(fast).accepted
    run(core, clock, 0.7)
    events = core.log.of_kind("slowed")
    assert 1 <= len(events) <= 5
    assert events[0].joint == "elbow_flex"
    assert events[0].value > 0
    assert events[0].limit in (2.8, 14.0, 200.0)


def test_status_tells_what_diagnostics_need(core, clock):
    settle(core, clock)
    core.arm()
    core.submit(chunk(core, clock))
    run(core, clock, 0.4)
    status = core.status()
    assert status.state is State.RUNNING
    assert status.fault is None
    assert 0 < status.rate <= 1.001
    assert 0 < status.stop_time <= SO101.safety.max_stop_time
    assert status.counts["state"] == 2


def test_the_event_log_is_bounded_and_its_counts_are_not():
    log = EventLog(capacity=10)
    for i in range(100):
        log.add(i, "dropped", f"chunk {i}")
    assert len(log) == 10
    assert log.counts["dropped"] == 100
    assert next(iter(log)).message == "chunk 90"


def test_a_stream_that_stays_wrong_does_not_flood_the_log(core, clock):
    settle(core, clock)
    core.arm()
    for _ in range(500):
        clock.advance(0.001)
        core.observe(SO101.joint_names, REST, stamp=50.0)
    assert len(core.log.of_kind("stream")) == 1


def test_the_digest_changes_with_any_pixel():
    image = np.zeros((48, 64, 3), np.uint8)
    digests = {frame_digest(image)}
    for place in ((0, 0, 0), (47, 63, 2), (20, 30, 1)):
        changed = image.copy()
        changed[place] = 1
        digests.add(frame_digest(changed))
        digests.add(frame_digest(changed[:, ::-1]))
    assert len(digests) == 7


# The package stands alone


def test_the_package_imports_neither_torch_nor_ros_nor_our_other_packages():
    code = (
        "import sys, robo_hw\n"
        "for name in robo_hw.__all__: getattr(robo_hw, name)\n"
        "heavy = {'torch', 'rclpy', 'scipy', 'cv2', 'robo_rm', 'robo_datasets', 'robo_policies', 'hydra'}\n"
        "bad = heavy & set(sys.modules)\n"
        "print(sorted(bad))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_source_is_python_3_10():
    """A robot's own computer has ROS 2 Humble's Python: no syntax and no standard names of later versions."""
    later = {"tomllib", "StrEnum", "Self", "assert_never", "ExceptionGroup", "TaskGroup", "override", "batched"}
    for path in Path(robo_hw.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 10))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
        names |= {alias.name for node in imports for alias in node.names}
        assert not names & later, path
        assert not any(isinstance(node, getattr(ast, "TryStar", ())) for node in ast.walk(tree)), path


def test_the_braking_that_is_offered_to_the_controller_is_what_the_core_does_when_it_stops(bench):
    offered = bench.core.braking(0.001)
    for step in np.linspace(0.003, 0.1, 40):  # whatever the rounding
        assert not bench.core.braking(float(step))[-1][2].any()
    assert offered[-1][0] == pytest.approx(bench.core.status().stop_time)
    assert not offered[-1][2].any(), "it ends at rest"
    assert np.diff([moment for moment, _, _ in offered]).max() <= 0.001 + 1e-12
    began, first = bench.clock.now(), len(bench.commands)
    bench.core.disarm()
    while bench.core.state is State.STOPPING:
        bench.step()
    for command in bench.commands[first:]:
        moments = np.array([moment for moment, _, _ in offered])
        for joint in range(7):
            expected = np.interp(command.time - began, moments, [q[joint] for _, q, _ in offered])
            assert command.positions[joint] == pytest.approx(expected, abs=1e-6)
    assert bench.core.state is State.DISARMED
    assert not bench.commands[-1].velocities.any(), "the controller is left at rest"
    assert bench.core.tick() is None
    assert bench.core.braking(0.001) == []
