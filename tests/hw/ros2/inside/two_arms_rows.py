"""Two arms in one graph: the same contract with relative names in two namespaces, one remapped topic, one e-stop."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rig import HERE, Process, patient_contract
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from robo_hw import RobotContract
from robo_rm_bridge.conversions import latched_qos, sensor_qos

ARMS = ("left", "right")
COMMANDS = "joint_trajectory_controller/joint_trajectory"


def relative_contract() -> str:
    """The packaged contract, whose names a namespace can be put before; without cameras."""
    text = patient_contract()
    begin, end = text.index("cameras:"), text.index("topics:")
    return text[:begin] + text[end:]


class TwoArms:
    """Two of everything, each in its namespace; the left arm speaks on a remapped topic."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "contract.yaml"
        self.file.write_text(relative_contract())
        self.contract = RobotContract.load(self.file)
        self.children: list[Process] = []
        rclpy.init()
        self.node = Node("observer")
        self.commands: dict[str, list[JointTrajectory]] = {arm: [] for arm in ARMS}
        self.states: dict[str, str] = {}
        self.diagnosed: set[str] = set()
        self.estop = self.node.create_publisher(Bool, "/estop", 10)
        for arm in ARMS:
            topic = f"/{arm}/{COMMANDS}"
            self.node.create_subscription(JointTrajectory, topic, self.commands[arm].append, 100)
            listen = self._listener(arm)
            self.node.create_subscription(DiagnosticArray, f"/{arm}/robo_rm/status", listen, latched_qos())
            self._start_arm(arm)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnose, 100)

    def _start_arm(self, arm: str) -> None:
        folder = self.folder / arm
        folder.mkdir()
        address = f"unix:{folder}/policy.sock"
        words = [str(HERE / "scripted_server.py"), str(self.file), address]
        server = Process("server", words, folder, talks=True)
        self.children.append(server)
        server.hear("serving")
        names = ["-r", f"__ns:=/{arm}"]
        # The left arm's driver speaks elsewhere; both sides are remapped, as on a robot with another driver.
        remap = ["-r", f"joint_states:=/{arm}/driver/states"] if arm == "left" else []
        common = ["-p", f"contract:={self.file}"]
        bridge = ["-p", f"policy_address:={address}", "-p", "autostart:=true", "-p", "diagnostics_rate:=5.0"]
        for name, more in (("mujoco_arm_node", ["-p", "cameras:=false"]), ("policy_node", bridge)):
            words = ["-m", "robo_rm_bridge", name, "--ros-args", *names, *remap, *common, *more]
            self.children.append(Process(name, words, folder))

    def _listener(self, arm: str):
        def listen(message: DiagnosticArray) -> None:
            self.states[arm] = next(pair.value for pair in message.status[0].values if pair.key == "state")

        return listen

    def _diagnose(self, message: DiagnosticArray) -> None:
        self.diagnosed |= {status.name for status in message.status}

    def text(self) -> str:
        return "\n".join(child.text()[-1200:] for child in self.children)

    def wait(self, what: str, condition, seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what}: {self.states}\n{self.text()}"
            rclpy.spin_once(self.node, timeout_sec=0.02)

    def trigger(self, name: str) -> tuple[bool, str]:
        client = self.node.create_client(Trigger, name)
        try:
            assert client.wait_for_service(20.0), f"no service {name}\n{self.text()}"
            future = client.call_async(Trigger.Request())
            rclpy.spin_until_future_complete(self.node, future, timeout_sec=8.0)
            assert future.done()
            return future.result().success, future.result().message
        finally:
            self.node.destroy_client(client)

    def close(self) -> None:
        for child in reversed(self.children):
            with contextlib.suppress(Exception):
                child.end()
        self.node.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture(scope="session")
def arms(tmp_path_factory):
    made = TwoArms(tmp_path_factory.mktemp("two"))
    try:
        made.wait("both are there", lambda: len(made.states) == 2, 60.0)
        yield made
    finally:
        made.close()


def armed(arms: TwoArms, name: str) -> None:
    arms.wait(f"{name} is armed", lambda: arms.trigger(f"/{name}/robo_rm_policy/arm")[0], 40.0)
    arms.wait(f"{name} moves", lambda: arms.states[name] == "running")


def test_each_arm_moves_alone_on_its_own_topics(arms):
    armed(arms, "left")
    arms.commands["left"].clear()
    arms.wait("commands", lambda: len(arms.commands["left"]) > 20)
    assert arms.commands["right"] == []
    assert arms.states["right"] == "disarmed"
    armed(arms, "right")
    arms.wait("commands", lambda: len(arms.commands["right"]) > 20)
    assert arms.states["left"] == "running"
    topics = {name for name, _ in arms.node.get_topic_names_and_types()}
    assert "/left/driver/states" in topics
    shared = {"/estop", "/diagnostics", "/rosout", "/parameter_events"}
    assert {name for name in topics if name.split("/")[1] not in ARMS} == shared


def test_diagnostics_of_both_are_told_apart(arms):
    arms.wait("both tell", lambda: {f"{arm}/robo_rm_policy: policy" for arm in ARMS} <= arms.diagnosed)


def test_disarming_one_leaves_the_other_and_one_emergency_stop_stops_both(arms):
    for name in ARMS:
        if arms.states[name] != "running":
            armed(arms, name)
    assert arms.trigger("/left/robo_rm_policy/disarm")[0]
    arms.wait("it rests", lambda: arms.states["left"] == "disarmed")
    assert arms.states["right"] == "running"
    arms.estop.publish(Bool(data=True))
    arms.wait("both are in fault", lambda: set(arms.states.values()) == {"fault"})
    last = np.array(arms.commands["right"][-1].points[-1].velocities)
    assert not last.any()
    arms.estop.publish(Bool(data=False))


def test_an_arms_joint_states_are_not_the_others(arms):
    seen: list[JointState] = []
    arms.node.create_subscription(JointState, "/right/joint_states", seen.append, sensor_qos())
    arms.wait("joint states", lambda: len(seen) > 3)
    assert arms.node.count_publishers("/right/joint_states") == 1
    assert arms.node.count_publishers("/joint_states") == 0
