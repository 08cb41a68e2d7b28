"""Who may speak to the bridge, and who may stop it: publishers of joint states, emergency stops, the robot's own stops.

The contract splits joint states among two topics, renames a joint, and names two emergency stops and a stop signal.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rig import CLEANUP, CONFIGURE, DEACTIVATE, Rig, patient_contract, rig
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool

from robo_rm_bridge.conversions import joint_state, latched_qos, sensor_qos

ARM, HOLD, DISARM, ESTOP, RESET = (
    f"/robo_rm_policy/{name}" for name in ("arm", "hold", "disarm", "estop", "reset_fault")
)
STOP_SIGNAL = "{name: mujoco_arm/powered, type: std_msgs/msg/Bool, field: data, ok: [true]}"


class GuardRig(Rig):
    """An arm with all that a contract can say about topics; the observer is the pedal, and the base's wheels."""

    def contract_text(self) -> str:
        text = patient_contract()
        states = "joint_states: {name: joint_states, qos: {reliability: best_effort, depth: 1}}"
        for old, new in (
            (
                states,
                "joint_states:\n"
                "    - {name: arm/joint_states, qos: {reliability: best_effort, depth: 1}}\n"
                "    - {name: gripper/joint_states, publishers: 2, qos: {reliability: best_effort, depth: 5}}\n"
                f"  stop: [{STOP_SIGNAL}]\n"
                "  estop: [{name: /estop}, {name: pedal, heartbeat: 1.5}]",
            ),
            ("name: base_yaw, kind", "name: base_yaw, state_name: left_arm_base_yaw, kind"),
        ):
            assert old in text
            text = text.replace(old, new)
        return text

    def prepare(self) -> None:
        """What has to speak before the bridge may be armed."""
        self.pedal = self.observer.create_publisher(Bool, "/pedal", 10)
        self.pedal_timer = self.observer.create_timer(0.2, lambda: self.pedal.publish(Bool(data=False)))
        self.wheels = self.observer.create_publisher(JointState, "/gripper/joint_states", sensor_qos())


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    with rig(tmp_path_factory.mktemp("guard"), GuardRig) as made:
        made.prepare()
        yield made


@pytest.fixture
def running(processes: GuardRig) -> GuardRig:
    processes.run()
    return processes


@pytest.fixture
def ready(processes: GuardRig) -> GuardRig:
    processes.ready()
    processes.wait("arming is possible", lambda: "released" in stops(processes), 10.0)
    return processes


class Button:
    """An emergency stop of its own node."""

    def __init__(self, name: str, topic: str = "/estop", quality: QoSProfile | int = 10) -> None:
        self.node = Node(name)
        self.publisher = self.node.create_publisher(Bool, topic, quality)

    def says(self, pressed: bool) -> None:
        self.publisher.publish(Bool(data=pressed))

    def heard(self, rig: GuardRig) -> Button:
        """Everybody has found it."""
        rig.wait("the button is found", lambda: self.publisher.get_subscription_count() >= 3)
        rig.spin(0.3)
        return self

    def close(self) -> None:
        self.node.destroy_node()


@pytest.fixture
def buttons():
    made: list[Button] = []
    yield lambda *words, **named: made.append(Button(*words, **named)) or made[-1]
    for button in made:
        if rclpy.ok():
            button.close()


def stops(rig: GuardRig) -> str:
    return rig.observer.diagnostics.get("robo_rm_policy: stops", {}).get("message", "")


def refused(rig: GuardRig, said: str, service: str = ARM) -> str:
    """Arming is refused, soon, with these words."""
    answers: list[str] = []

    def asks() -> bool:
        done, message = rig.observer.trigger(service)
        answers.append(message)
        if done:
            rig.observer.trigger(DISARM)
        return not done and said in message

    rig.wait(f"arming is refused with {said!r}", asks, 5.0)
    return answers[-1]


def reset_refused(rig: GuardRig, said: str) -> None:
    time.sleep(rig.contract.safety.cool_down)
    done, message = rig.observer.trigger(RESET)
    assert not done
    assert said in message


# Names, parts, and what is none of ours


def test_split_topics_renamed_joints_and_foreign_messages_move_the_arm(running):
    began = len(running.observer.commanded)
    for index in range(100):
        names = ["", "left_wheel"] if index % 2 else [f"n{i}" for i in range(1000)]
        running.wheels.publish(JointState(name=names, position=[np.nan] * len(names)))
        running.wheels.publish(JointState())
        running.wheels.publish(JointState(name=["wheel"], velocity=[1.0]))
        running.spin(0.02)
    assert running.state == "running", running.said()
    assert len(running.observer.commanded) > began + 50
    running.keeps_the_limits()


def test_what_came_and_what_was_missing_is_told(ready):
    ready.observer.set_parameter("/mujoco_arm", "fault", "missing_joint")
    ready.spin(1.0)
    refused(ready, "joint states of gripper are")


# Who may say where the arm is


def test_with_a_second_publisher_arming_is_refused_naming_the_nodes(ready):
    ready.observer.set_parameter("/mujoco_arm", "fault", "second_publisher")
    message = refused(ready, "2 publishers on /arm/joint_states")
    assert "/mujoco_arm, /stray_joint_state_publisher" in message
    assert ready.observer.commands == []


def test_a_second_publisher_that_appears_while_armed_stops_the_arm(running):
    running.observer.set_parameter("/mujoco_arm", "fault", "second_publisher")
    running.wait_state("fault")
    running.commands_nothing()
    assert (
        "publishers" in running.observer.status["fault.message"] or "joint" in running.observer.status["fault.message"]
    )
    assert all(entry[2][4] > 1.0 for entry in running.observer.commanded), "never towards zero"


def test_a_driver_that_says_zeros_until_its_first_reading_never_becomes_the_command(ready):
    observer = ready.observer
    ready.spin(0.2)
    true = observer.measured.copy()
    observer.set_parameter("/mujoco_arm", "fault", "zero_pose")
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        observer.trigger(ARM)
        ready.spin(0.05)
    travel = ready.contract.array("velocity") / ready.contract.rates.control
    first = [entry[2] for entry in observer.commanded[:1]]
    for command in first:
        assert (np.abs(command - true) <= travel + 0.02).all(), command - true


# The robot's own stop, hands


def test_the_robots_own_stop_disarms_at_once_and_arming_is_refused_until_it_is_gone(running):
    running.observer.set_parameter("/mujoco_arm", "fault", "robot_stop")
    running.wait_state("disarmed")
    running.commands_nothing()
    assert "the robot stopped: mujoco_arm/powered data is False, not True" in running.said()
    assert "mujoco_arm/powered" in refused(running, "the robot stopped")
    running.observer.set_parameter("/mujoco_arm", "fault", "none")
    running.wait("it may be armed again", lambda: running.observer.trigger(ARM)[0])
    running.wait_state("holding", "running")


@pytest.mark.parametrize("fault", ["freedrive", "hand_motion"])
def test_moved_by_hand_in_a_fault_the_arm_does_not_leap_back(running, fault):
    observer = running.observer
    assert observer.trigger(ESTOP)[0]
    running.wait_state("fault")
    before = observer.measured.copy()
    observer.set_parameter("/mujoco_arm", "fault", fault)
    running.wait("it is moved", lambda: np.abs(observer.measured - before).max() > 0.5, 8.0)
    running.commands_nothing()
    observer.set_parameter("/mujoco_arm", "fault", "none")
    running.at_rest()
    running.server.say("silent")
    running.forget()
    running.wait("armed", lambda: observer.trigger(ARM)[0], 8.0)
    running.wait("it holds", lambda: len(observer.commanded) > 3)
    travel = running.contract.array("velocity") / running.contract.rates.control
    assert (np.abs(observer.commanded[0][2] - observer.measured)[:6] <= travel[:6] + 0.02).all()


def test_an_arm_that_is_held_fast_while_running_is_stopped_near_where_it_is(running):
    running.observer.set_parameter("/mujoco_arm", "fault", "hand_motion")
    running.wait_state("fault", "holding", seconds=8.0)
    if running.state == "fault":
        assert "lags by" in running.observer.status["fault.message"]
        running.commands_nothing()
    else:
        assert "has shown the same image" in running.said()


# Emergency stops


def test_any_of_several_sources_stops_and_releases_only_itself(running, buttons):
    button = buttons("button").heard(running)
    running.pedal_timer.cancel()
    try:
        running.pedal.publish(Bool(data=True))
        running.wait_state("fault")
        button.says(False)
        running.spin(0.3)
        reset_refused(running, "on pedal is still pressed by /observer")
    finally:
        running.pedal_timer.reset()
    running.spin(0.5)
    assert running.observer.trigger(RESET)[0]


def test_of_two_publishers_on_one_topic_one_does_not_release_what_the_other_holds(running, buttons):
    one, other = buttons("button_one").heard(running), buttons("button_other").heard(running)
    one.says(True)
    running.wait_state("fault")
    other.says(False)
    running.spin(0.5)
    reset_refused(running, "on /estop is still pressed by /button_one")
    one.says(False)
    running.spin(0.5)
    assert running.observer.trigger(RESET)[0]


def test_a_silent_heartbeat_stops_and_forbids_to_arm(running):
    running.pedal_timer.cancel()
    try:
        running.wait_state("fault")
        assert "emergency stop on pedal: silent for" in running.observer.status["fault.message"]
        time.sleep(running.contract.safety.cool_down)
        running.wait("reset", lambda: running.observer.trigger(RESET)[0])
        assert "its heartbeat is 1.5 s" in refused(running, "the emergency stop on pedal: the last message came")
    finally:
        running.pedal_timer.reset()


def test_an_emergency_stop_whose_publisher_goes_away_while_armed_stops(ready, buttons):
    button = buttons("button").heard(ready)
    ready.run()
    button.close()
    ready.wait_state("fault")
    assert "/button went away" in ready.observer.status["fault.message"]


@pytest.mark.parametrize("quality", ["reliable", "best_effort", "latched"])
def test_publishers_of_every_quality_of_service_are_heard(running, buttons, quality):
    made = {"reliable": QoSProfile(depth=1), "best_effort": sensor_qos(), "latched": latched_qos()}[quality]
    button = buttons("button", quality=made)
    running.wait("it is found", lambda: button.publisher.get_subscription_count() >= 1)
    running.spin(0.3)
    button.says(True)
    running.comes_to_rest("fault")
    assert running.observer.status["fault.cause"] == "e_stop"
    button.says(False)
    running.spin(0.3)


def test_a_latched_stop_from_before_the_bridge_started_is_heard(ready, buttons):
    button = buttons("button", quality=latched_qos())
    button.says(True)
    ready.bridge.end()
    ready.start_bridge()
    ready.wait("it is in fault", lambda: ready.state == "fault")
    reset_refused(ready, "on /estop is still pressed by /button")
    button.says(False)
    ready.wait("it is reset", lambda: ready.observer.trigger(RESET)[0])


# Arming asks for what a motion needs


def test_arming_without_cameras_is_refused_and_a_hold_is_not(ready):
    observer = ready.observer
    observer.set_parameter("/mujoco_arm", "fault", "late_camera")
    refused(ready, "camera front")
    ready.forget()
    ready.wait("it holds", lambda: observer.trigger(HOLD)[0])
    ready.wait_state("holding")
    observer.set_parameter("/mujoco_arm", "fault", "none")
    ready.spin(1.5)
    assert ready.state == "holding", "no chunk moves an arm that only holds"
    assert not any(entry[3].any() for entry in observer.commanded)


def test_arming_without_a_server_is_refused_naming_its_address(ready):
    ready.server.end()
    ready.wait("the end is noticed", lambda: "no policy server" in refused(ready, ""), 5.0)
    assert ready.address in refused(ready, "no policy server")


# What only a contract knows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("std_msgs/msg/Bool", "nowhere_msgs/msg/SafetyMode"), "nowhere_msgs/msg/SafetyMode cannot be imported"),
        (("std_msgs/msg/Bool", "std_msgs/msg/Boole"), "std_msgs has no message Boole"),
        (("field: data", "field: mode"), "Bool has no field 'mode'"),
        (("interface: joint_trajectory", "interface: follow_joint_trajectory"), "install ros-$ROS_DISTRO-control-msgs"),
        (("name: arm/joint_states", "name: arm//joint_states"), "has // in it"),
    ],
)
def test_a_mistake_fails_configuring_twice_and_is_told_each_time(ready, change, said):
    observer, text = ready.observer, ready.contract_file.read_text()
    assert observer.transition(DEACTIVATE)
    assert observer.transition(CLEANUP)
    assert change[0] in text
    ready.contract_file.write_text(text.replace(*change))
    try:
        for count in (1, 2):
            assert not observer.transition(CONFIGURE)
            ready.wait("it is told", lambda count=count: ready.said().count("cannot be configured: ") == count)
            assert ready.said().count(said) == count
    finally:
        ready.contract_file.write_text(text)
        assert observer.transition(CONFIGURE)
        ready.wait("it is active", lambda: observer.transition(3), 8.0)


def test_a_joint_state_of_a_foreign_publisher_on_the_arms_topic_is_told(ready):
    stray = Node("somebody")
    publisher = stray.create_publisher(JointState, "/arm/joint_states", 10)
    try:
        refused(ready, "/somebody")
        publisher.publish(joint_state(("x",), np.zeros(1), None, stray.get_clock().now().to_msg()))
        ready.wait("diagnostics tell", lambda: "/somebody" in stops(ready))
    finally:
        stray.destroy_node()
