"""The arm of tidy_drawer in MuJoCo, in real time, driven as a real one: try everything without hardware."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robo_datasets.errors import RoboError
from robo_hw.contract import RobotContract
from robo_policies.robots.arm import ArmError, CameraFrame, Reading

_LONGEST_CATCH_UP = 0.1
"""Seconds of simulation made up for after the computer was busy; more than that is lost."""
_ENVIRONMENT = "observation.environment_state"


@dataclass(frozen=True)
class SimulatedSettings:
    """The simulated arm."""

    seed: int = 0
    """Start of the episode: cube, drawer and arm pose."""
    cameras: bool = True
    """Render the contract's cameras."""


class SimulatedArm:
    """A position controller in front of the simulated arm: it holds the last command, as a servo does.

    Raises:
        ArmError: the contract is not of this arm.
        MissingPartError: MuJoCo is not installed.
    """

    name = "simulated"
    at_disconnect = "the simulated arm is gone with this command"

    def __init__(self, settings: SimulatedSettings, contract: RobotContract) -> None:
        from robo_policies.envs.tidy_drawer.env import ENVIRONMENT_STATE_NAMES, STATE_NAMES, TidyDrawerEnv
        from robo_policies.rendering import import_mujoco

        if contract.joint_names != tuple(STATE_NAMES):
            raise ArmError(
                f"contract {contract.robot}: its joints are not the simulated arm's ({', '.join(STATE_NAMES)}); "
                "use contract=tidy_drawer"
            )
        sizes = {(camera.width, camera.height) for camera in contract.cameras}
        if len(sizes) > 1 or any(width != height for width, height in sizes):
            raise ArmError("the simulated arm's cameras are square and all of one size; see the contract's cameras")
        self._contract, self._settings = contract, settings
        self._mujoco = import_mujoco()
        self._world: Any = TidyDrawerEnv(image_size=next(iter(sizes), (128, 128))[0])
        self.vector_names: Mapping[str, Sequence[str]] = {_ENVIRONMENT: tuple(ENVIRONMENT_STATE_NAMES)}
        self.stages: Sequence[str] = self._world.stages
        self._lock = threading.Lock()
        self._connected = False
        self._frames: dict[str, CameraFrame] = {}
        self._closing = threading.Event()
        self._cameras = threading.Thread(target=self._render, name="cameras", daemon=True)
        self._problem = ""
        self._succeeded = False

    def connect(self) -> None:
        """Set the scene up."""
        self._world.reset(seed=self._settings.seed)
        self._simulated = time.monotonic()
        self._connected = True
        if self._settings.cameras and self._contract.cameras:
            self._cameras.start()

    @property
    def connected(self) -> bool:
        """Whether it is there."""
        return self._connected

    def read(self) -> Reading:
        """Simulate up to now, and look."""
        from robo_policies.envs.tidy_drawer.scene import FINGER_TRAVEL

        world = self._world
        with self._lock:
            self._advance()
            observation, info = world.look()
            positions = np.array(world.data.qpos[:7])
            positions[6] /= FINGER_TRAVEL
            frames, self._frames = self._frames, {}
        self._succeeded = self._succeeded or bool(info["success"])
        return Reading(
            self._contract.joint_names,
            positions,
            frames,
            {_ENVIRONMENT: (self.vector_names[_ENVIRONMENT], observation[_ENVIRONMENT])},
            problems={"cameras": self._problem} if self._problem else {},
            success=self._succeeded,
            stage=int(info["stage"]),
        )

    def write(self, positions: np.ndarray) -> None:
        """Take targets (7,); the servos hold them until the next."""
        from robo_policies.envs.tidy_drawer.scene import FINGER_TRAVEL

        with self._lock:
            self._advance()
            self._world.data.ctrl[:6] = positions[:6]
            self._world.data.ctrl[6] = positions[6] * FINGER_TRAVEL

    def disconnect(self) -> None:
        """End the simulation."""
        self._closing.set()
        if self._cameras.ident is not None:
            self._cameras.join(3.0)
        self._connected = False

    def _render(self) -> None:
        """Look at a copy of the scene at the cameras' rate: a slow renderer must not hold the arm up."""
        from robo_policies.envs.tidy_drawer.env import TidyDrawerEnv

        cameras = self._contract.cameras
        period = 1.0 / max(camera.rate for camera in cameras)
        names = [camera.name for camera in cameras]
        scene = TidyDrawerEnv(image_size=cameras[0].width)
        try:
            while not self._closing.wait(period):
                with self._lock:
                    scene.data.qpos[:] = self._world.data.qpos
                    at = time.monotonic()
                self._mujoco.mj_kinematics(scene.model, scene.data)
                images = scene.render_cameras(names)
                frames = {name: CameraFrame(images[f"observation.images.{name}"], at) for name in names}
                with self._lock:
                    self._frames = frames
        except RoboError as error:  # no GL driver: the cameras stay silent, and the core says so
            self._problem = str(error)
        finally:
            scene.close()

    def _advance(self) -> None:
        world, now = self._world, time.monotonic()
        step = float(world.model.opt.timestep)
        self._simulated = max(self._simulated, now - _LONGEST_CATCH_UP)
        while self._simulated + step <= now:
            self._simulated += step
            self._mujoco.mj_step(world.model, world.data)
        self._mujoco.mj_kinematics(world.model, world.data)
