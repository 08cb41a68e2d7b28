"""The recorder: episodes straight into a demo store, into a bag, or both, while anything drives the arm.

    ~/start        begins an episode; frames come at the contract's action rate
    ~/save         (SetBool: whether it succeeded) ends and keeps it;  ~/discard ends and forgets it
    ~/next_stage   the operator marks the next stage, so that a reward model trains on what was recorded as it is

A frame holds what was newest at its moment: joint states, images, further inputs, and the command sent to the
controller as the action. Nothing is filled in: where something is older than max_age the episode ends there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray, String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from robo_hw.contract.robot_contract import RobotContract
from robo_hw.contract.topic_rules import absolute
from robo_hw.errors import HardwareError
from robo_hw.observation.observation_buffer import IMAGES, STATE, parse_vectors
from robo_rm_bridge.conversions import latched_qos, qos, sensor_qos
from robo_rm_bridge.images import image_type
from robo_rm_bridge.listening import Listener
from robo_rm_bridge.nodes import Request, answering, steady_timer
from robo_rm_bridge.recording import Bag, RecordingError, begin_episode, open_store
from robo_rm_bridge.settings import Setting, declare

if TYPE_CHECKING:
    from rclpy.qos import QoSProfile

    from robo_datasets import DemoStore
    from robo_policies.robots.recording import RunEpisode

SETTINGS = (
    Setting("contract", "", "the robot contract: a YAML file, or the name of a packaged example", required=True),
    Setting("store", "", "demo store to record into, made where it is not there; empty: none"),
    Setting("bag", "", "folder for bags, one an episode; empty: none"),
    Setting("task", "", "the instruction that is being done", required=True),
    Setting("stages", [""], "names of the task's stages in order; needed to train a reward model"),
    Setting("stage_topic", "", "std_msgs/String with the present stage's name; empty: ~/next_stage counts"),
    Setting(
        "action_topic",
        "",
        "sensor_msgs/JointState with the commanded positions; empty: the contract's command topic",
    ),
    Setting("success_topic", "", "std_msgs/Bool; empty: ~/save says it"),
    Setting("vectors", [""], "further features, each observation.NAME=/topic (sensor_msgs/JointState)"),
    Setting("max_age", 0.3, "seconds that a sample may be old; an older one ends the episode", 0.01, 5.0),
)


class RecorderNode(Node):
    """See the module.

    Raises:
        HardwareError: a parameter, the contract or the store is wrong.
    """

    def __init__(self) -> None:
        super().__init__("robo_rm_recorder")
        self.settings = declare(self, SETTINGS)
        self.contract = RobotContract.load(self.settings.contract)
        if not self.settings.store and not self.settings.bag:
            raise RecordingError("nothing to record into: give the parameter store, bag, or both")
        self._vectors = parse_vectors(self.settings.vectors)
        self._listener = Listener(self, self.contract, self._vectors, self.settings.max_age)
        self._store: DemoStore | None = None
        self._episode: RunEpisode | None = None
        self._bag: Bag | None = None
        self._stage = -1
        self._success: bool | None = None
        self._action: np.ndarray | None = None
        self._action_at = self._began = self._framed_at = -np.inf
        self._recording = False
        topic, kind, quality = self._command_topic()
        self._command_name = topic
        self.create_subscription(kind, topic, self._on_command, quality)
        if self.settings.bag:
            self._keep_raw(kind, topic, quality)
            for states in self.contract.joint_states:
                self._keep_raw(JointState, states.name, qos(states))
            for camera in self.contract.cameras:
                self._keep_raw(image_type(camera.topic), camera.topic, sensor_qos())
            for vector in self._vectors:
                self._keep_raw(JointState, vector.topic, sensor_qos())
        if self.settings.stage_topic:
            self.create_subscription(String, self.settings.stage_topic, self._on_stage, 10)
        if self.settings.success_topic:
            self.create_subscription(Bool, self.settings.success_topic, self._on_success, latched_qos())
        self.create_service(Trigger, "~/start", answering(self._start))
        self.create_service(SetBool, "~/save", answering(self._save))
        self.create_service(Trigger, "~/discard", answering(self._discard))
        self.create_service(Trigger, "~/next_stage", answering(self._next_stage))
        steady_timer(self, 1.0 / self.contract.rates.actions, self._frame)

    def finish(self) -> bool:
        """An episode that is not saved is forgotten."""
        if self._recording:
            self._end(keep=False)
        self._listener.close()
        return True

    # What is received -------------------------------------------------------------------------------------------------

    def _keep_raw(self, kind: type, topic: str, quality: QoSProfile | int) -> None:
        """Have a topic written into the bags, byte for byte as it comes, under the name that the contract has for it:
        an import by the contract finds it, whatever the namespace and the remappings were."""
        name = absolute(topic)

        def on_bytes(data: bytes) -> None:
            if self._bag is not None:
                self._bag.write(name, kind, data, time.time_ns())

        self.create_subscription(kind, topic, on_bytes, quality, raw=True)

    def _command_topic(self) -> tuple[str, type, QoSProfile | int]:
        """Where positions of all joints are commanded: the contract's topic, or the parameter ``action_topic``."""
        command, interface = self.contract.command, self.contract.command_interface
        if self.settings.action_topic:
            return self.settings.action_topic, JointState, 10
        kinds = {"joint_trajectory": JointTrajectory, "forward_command": Float64MultiArray}
        if interface not in kinds or self.contract.gripper_command is not None:
            raise RecordingError(
                f"commands of the interface {interface}"
                + (" with a gripper of its own" if self.contract.gripper_command is not None else "")
                + " are not on one topic with all positions; name one in the parameter action_topic"
                " (sensor_msgs/JointState), such as robo_rm_policy/commanded"
            )
        return command.name, kinds[interface], qos(command)

    def _on_command(self, message: JointState | JointTrajectory | Float64MultiArray) -> None:
        if isinstance(message, Float64MultiArray):
            action = np.array(message.data)
        else:
            names, values = _named_positions(message)
            order = {name: place for place, name in enumerate(names)}
            if len(values) != len(names) or any(name not in order for name in self.contract.joint_names):
                return
            action = np.array([values[order[name]] for name in self.contract.joint_names])
        if action.shape == (len(self.contract.joints),) and np.isfinite(action).all():
            self._action, self._action_at = action, self._listener.clock.now()

    def _on_stage(self, message: String) -> None:
        if message.data in self.settings.stages:
            self._stage = self.settings.stages.index(message.data)
        else:
            known = ", ".join(self.settings.stages) or "none"
            self.get_logger().error(
                f"stage {message.data!r} is not among the parameter stages ({known})", throttle_duration_sec=5.0
            )

    def _on_success(self, message: Bool) -> None:
        self._success = bool(message.data)

    # Frames ---------------------------------------------------------------------------------------------------------

    def _frame(self) -> None:
        self._listener.poll()
        if not self._recording or self._episode is None:
            return
        now, age = self._listener.clock.now(), self.settings.max_age
        buffer, needs = self._listener.buffer, self._needs()
        missing = buffer.missing(needs, now, age)
        if self._action is None or now - self._action_at > age:
            missing.append(f"commands on {self._command_name} are missing or old")
        observation = None if missing else buffer.snapshot(needs, now, age=age)
        if observation is None or self._action is None:
            if not any("missing or old" in line for line in missing) and now - self._framed_at <= age:
                return  # an image between two joint states, or just overwritten: the next frame may be whole
            missing = missing or ["images were overwritten before they were read: the computer is overloaded"]
            if self._episode.frames:  # before the first frame it waits until everything has spoken
                self.get_logger().error(f"the episode ends: {'; '.join(missing)}")
                self._end(keep=True, success=None, reason="; ".join(missing))
            return
        frame: dict[str, np.ndarray] = {f"{IMAGES}{name}": image for name, image in observation.images.items()}
        frame |= dict(observation.arrays)
        frame[STATE] = observation.positions.astype(np.float32)
        frame["action"] = self._action.astype(np.float32)
        if self._episode.frames == 0:
            self._began = now
        self._framed_at = now
        if not self._episode.add(frame, now - self._began, self._stage):
            self._end(keep=False)

    def _needs(self) -> dict[str, tuple[int, ...]]:
        needs: dict[str, tuple[int, ...]] = {STATE: (len(self.contract.joints),)}
        needs |= {f"{IMAGES}{c.name}": (c.height, c.width, 3) for c in self.contract.cameras}
        names = self._listener.buffer.vector_names
        return needs | {vector.key: (len(names.get(vector.key, ())),) for vector in self._vectors}

    # What people ask ------------------------------------------------------------------------------------------------

    def _start(self, _: Request) -> str:
        if self._recording:
            raise HardwareError("an episode is being recorded; save or discard it first")
        if self.settings.store:
            missing = self._listener.buffer.missing(self._needs(), self._listener.clock.now())
            if missing:
                raise HardwareError("nothing can be recorded yet: " + "; ".join(missing))
            names = self._listener.buffer.vector_names
            vectors = {vector.key: names[vector.key] for vector in self._vectors}
            self._store = self._store or open_store(self.settings.store, self.contract, self.settings.stages, vectors)
            self._episode = begin_episode(self._store, self.settings.task)
        if self.settings.bag:
            self._bag = Bag(Path(self.settings.bag) / time.strftime("episode_%Y%m%d_%H%M%S"))
        self._stage = 0 if self.settings.stages and not self.settings.stage_topic else -1
        self._success, self._recording = None, True
        return "recording"

    def _save(self, request: Request) -> str:
        return self._end(keep=True, success=self._success if self.settings.success_topic else bool(request.data))

    def _discard(self, _: Request) -> str:
        return self._end(keep=False)

    def _next_stage(self, _: Request) -> str:
        if not self._recording or self.settings.stage_topic or not self.settings.stages:
            raise HardwareError("stages are marked while recording, with stages given and without a stage_topic")
        if self._stage + 1 >= len(self.settings.stages):
            raise HardwareError(f"{self.settings.stages[-1]!r} is the last stage")
        self._stage += 1
        return str(self.settings.stages[self._stage])

    def _end(self, keep: bool, success: bool | None = None, reason: str = "") -> str:
        if not self._recording:
            raise HardwareError("nothing is being recorded; call ~/start")
        self._recording = False
        episode, self._episode = self._episode, None
        bag, self._bag = self._bag, None
        results = []
        if bag is not None:
            bag.close()
            results.append(f"{bag.count} messages in {bag.path}")
        if episode is not None:
            results.append(episode.end(keep, success, reason))
            if episode.problem:
                raise RecordingError(results[-1])
        self.get_logger().info("; ".join(results))
        return "; ".join(results)


def _named_positions(message: JointState | JointTrajectory) -> tuple[list[str], Sequence[float]]:
    if isinstance(message, JointState):
        return message.name, message.position
    return message.joint_names, message.points[0].positions if message.points else ()


NODE = RecorderNode
