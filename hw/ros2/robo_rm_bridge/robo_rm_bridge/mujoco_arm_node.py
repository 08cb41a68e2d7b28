"""The arm of tidy_drawer in MuJoCo, on the topics of a real one: try everything without hardware.

It takes its joints, cameras and topics from the same contract as the bridge, follows the commands of either interface
as a controller would, gives up on silence like one, and can play faults. Beyond what a real arm reports it publishes
what only a simulation knows: the environment state that policies read, the true stage and progress, success.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float32, Float64MultiArray, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.errors import HardwareError
from robo_rm_bridge import reporting
from robo_rm_bridge.arm_faults import FAULTS, FaultPlayer
from robo_rm_bridge.arm_topics import JointStateTopics, StrayPublisher
from robo_rm_bridge.controller import CommandFollower
from robo_rm_bridge.conversions import joint_state, latched_qos, qos, sensor_qos, time_message
from robo_rm_bridge.images import image_type, message_from_rgb
from robo_rm_bridge.nodes import Request, answering, steady_timer
from robo_rm_bridge.settings import Setting, declare

if TYPE_CHECKING:
    from robo_policies.envs.tidy_drawer.env import TidyDrawerEnv

SETTINGS = (
    Setting("contract", "tidy_drawer", "the robot contract: a YAML file, or the name of a packaged example"),
    Setting("seed", 0, "start of the next episode: cube, drawer and arm pose", 0, 2**31 - 1, live=True),
    Setting("cmd_timeout", 0.2, "seconds of silence behind the last command until the controller gives up", 0.02, 10.0),
    Setting("cameras", True, "render and publish the contract's cameras"),
    Setting("fault", "none", "a fault to play", choices=tuple(FAULTS), live=True),
)
_LONGEST_CATCH_UP = 0.1
"""Seconds of simulation made up for after the computer was busy; more than that is lost."""


class MujocoArmNode(Node):
    """See the module.

    Raises:
        HardwareError: MuJoCo or the environment is missing, a parameter is wrong, or the contract is another arm's.
    """

    def __init__(self) -> None:
        super().__init__("mujoco_arm")
        settings = declare(self, SETTINGS)
        self.contract = RobotContract.load(settings.contract)
        self._env = _make_env(self.contract, settings.cameras)
        self._contract_cameras = self.contract.cameras if settings.cameras else ()
        self._timeout = settings.cmd_timeout
        self._faults = FaultPlayer()
        self._hand_held: np.ndarray | None = None
        self._seed = settings.seed
        self._frozen: dict[str, np.ndarray] = {}
        self._succeeded = False
        self._follower = CommandFollower(self.contract.joint_names, np.zeros(len(self.contract.joints)), self._timeout)
        self._start_episode()
        contract = self.contract
        self._joint_topics = JointStateTopics(self, contract)
        self._stray: StrayPublisher | None = None
        self._powered_topic = self.create_publisher(Bool, "~/powered", latched_qos())
        self._powered: bool | None = None
        self._image_topics = {
            camera.name: self.create_publisher(image_type(camera.topic), camera.topic, sensor_qos())
            for camera in self._contract_cameras
        }
        self._environment_topic = self.create_publisher(JointState, "environment_state", sensor_qos())
        self._stage_topic = self.create_publisher(String, "~/stage", 10)
        self._progress_topic = self.create_publisher(Float32, "~/progress", 10)
        self._success_topic = self.create_publisher(Bool, "~/success", latched_qos())
        self._diagnostics_topic = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        kind, take = {
            "joint_trajectory": (JointTrajectory, self._on_trajectory),
            "forward_command": (Float64MultiArray, self._on_positions),
        }[contract.command_interface]
        self.create_subscription(kind, contract.command.name, take, qos(contract.command))
        self.create_service(Trigger, "~/reset", answering(self._reset))
        self._play(settings.fault)
        self.add_on_set_parameters_callback(self._on_parameters)
        steady_timer(self, 1.0 / contract.rates.joint_states, self._step)
        rate = max((camera.rate for camera in contract.cameras), default=contract.rates.actions)
        steady_timer(self, 1.0 / rate, self._show)
        steady_timer(self, 1.0, self._diagnose)

    # Time and physics -----------------------------------------------------------------------------------------------

    def _start_episode(self) -> None:
        self._env.reset(seed=self._seed)
        self._simulated = time.monotonic()
        self._follower.hold(self._env.joint_positions())
        self._succeeded = False

    def _advance(self) -> None:
        """Simulate up to now; the controller gives a target for every physics step."""
        now, step = time.monotonic(), self._env.physics_seconds
        if now - self._simulated > _LONGEST_CATCH_UP:
            self._simulated = now - _LONGEST_CATCH_UP
        held = self._hand_held
        while self._simulated + step <= now:
            self._simulated += step
            if self._follower.watch(self._simulated, self._env.joint_positions()):
                self.get_logger().warning("no command came in time: holding where the arm is")
            target, _ = self._follower.target(self._simulated)
            if held is not None:
                target = held.copy()
                target[0] += self._faults.by_hand(time.time())
            self._env.apply(target, physics_steps=1)

    def _step(self) -> None:
        self._advance()
        self._report_power()
        positions, velocities = self._env.joint_positions(), self._env.joint_velocities()
        reported = self._faults.joints(self.contract.state_names, positions, time.time())
        if reported is not None:
            names, values = reported
            self._joint_topics.publish(names, values, velocities[: len(names)], self._stamp())
        if self._stray is not None:
            self._stray.publish(self.contract.state_names, self._stamp())

    def _report_power(self) -> None:
        """Report on change whether the robot follows commands, as a robot's safety mode does."""
        if self._faults.powered != self._powered:
            self._powered = self._faults.powered
            self._powered_topic.publish(Bool(data=self._powered))

    def _play(self, fault: str) -> None:
        """Begin a fault; what it does to the arm and to the graph."""
        self._advance()
        followed = self._faults.follows
        self._faults.choose(fault, time.time())
        if followed and not self._faults.follows:
            self._hand_held = self._env.joint_positions()
        elif not followed and self._faults.follows:
            # A controller that is switched on again holds where the arm is.
            self._hand_held = None
            self._follower.hold(self._env.joint_positions())
        if self._faults.stray_publisher and self._stray is None:
            self._stray = StrayPublisher(self, self.contract)
        elif not self._faults.stray_publisher and self._stray is not None:
            self._stray.close()
            self._stray = None

    def _show(self) -> None:
        env = self._env
        observation, info = env.observe()
        stamp = self._stamp()
        self._environment_topic.publish(
            joint_state(env.environment_state_names, observation["observation.environment_state"], None, stamp)
        )
        self._stage_topic.publish(String(data=str(info["stage_name"])))
        self._progress_topic.publish(Float32(data=float(info["progress"])))
        self._succeeded = self._succeeded or bool(info["success"])
        self._success_topic.publish(Bool(data=self._succeeded))
        if self._image_topics and not self._faults.no_images:
            if not (self._faults.frozen_images and self._frozen):
                names = [camera.name for camera in self._contract_cameras]
                self._frozen = env.render_cameras(names)
            for name, topic in self._image_topics.items():
                rgb = self._frozen[f"observation.images.{name}"]
                topic.publish(message_from_rgb(topic.topic_name, rgb, name, stamp))

    def _stamp(self) -> Time:
        return time_message(self._faults.stamp(time.time()))

    # What others ask ------------------------------------------------------------------------------------------------

    def _on_trajectory(self, message: JointTrajectory) -> None:
        self._advance()
        times = [point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in message.points]
        try:
            positions = np.array([point.positions for point in message.points], dtype=np.float64)
            velocities = np.array([point.velocities for point in message.points], dtype=np.float64)
        except ValueError:  # rows of different lengths
            self._follower.refused += 1
            return
        problem = self._follower.trajectory(
            time.monotonic(), message.joint_names, times, positions, velocities if velocities.size else None
        )
        if problem is not None:
            self.get_logger().error(f"command refused: {problem}", throttle_duration_sec=1.0)

    def _on_positions(self, message: Float64MultiArray) -> None:
        self._advance()
        problem = self._follower.positions(time.monotonic(), message.data)
        if problem is not None:
            self.get_logger().error(f"command refused: {problem}", throttle_duration_sec=1.0)

    def _reset(self, _: Request) -> str:
        if not self._follower.silent:
            raise HardwareError("the arm is being commanded; disarm the bridge first")
        self._start_episode()
        self._seed += 1
        return f"a new episode from seed {self._seed - 1}"

    def _on_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == "fault" and parameter.value not in FAULTS:
                return SetParametersResult(successful=False, reason=f"choose one of: {', '.join(FAULTS)}")
        for parameter in parameters:
            if parameter.name == "fault":
                self._play(parameter.value)
            elif parameter.name == "seed":
                self._seed = parameter.value
        return SetParametersResult(successful=True)

    def _diagnose(self) -> None:
        follower, fault = self._follower, self._faults.fault
        level, message = (reporting.WARN, f"plays a fault: {fault}") if fault != "none" else (reporting.OK, "simulated")
        values = {
            "fault": fault,
            "commanded": not follower.silent,
            "timeouts": follower.timeouts,
            "refused": follower.refused,
            "seed": self._seed,
        }
        status = reporting.entry(f"{self.get_name()}: arm", level, message, values, self.contract.robot)
        self._diagnostics_topic.publish(reporting.stamped([status], self.get_clock().now().to_msg()))


def _make_env(contract: RobotContract, cameras: bool) -> TidyDrawerEnv:
    """The environment that the contract fits."""
    try:
        from robo_policies.envs.tidy_drawer.env import STATE_NAMES, TidyDrawerEnv
    except ImportError as error:
        raise HardwareError(
            f"the simulated arm needs robo-rm with its simulator in this Python ({error}): pip install 'robo-rm[sim]'"
        ) from error
    from robo_core.errors import RoboError

    if contract.joint_names != STATE_NAMES:
        raise HardwareError(
            f"contract {contract.robot}: its joints are not the simulated arm's ({', '.join(STATE_NAMES)})"
        )
    if (
        contract.command_interface not in ("joint_trajectory", "forward_command")
        or contract.gripper_command is not None
    ):
        raise HardwareError(
            "the simulated arm takes joint_trajectory and forward_command, with the gripper among the joints"
        )
    sizes = {(camera.width, camera.height) for camera in contract.cameras}
    if len(sizes) > 1 or any(width != height for width, height in sizes):
        raise HardwareError("the simulated arm's cameras are square and all of one size; see the contract's cameras")
    try:
        size = next(iter(sizes), (128, 128))[0]
        env = TidyDrawerEnv(image_size=size)
        if cameras and contract.cameras:
            env.render_cameras([camera.name for camera in contract.cameras])  # a missing driver shows here, not later
        return env
    except RoboError as error:
        raise HardwareError(str(error)) from error


NODE = MujocoArmNode
