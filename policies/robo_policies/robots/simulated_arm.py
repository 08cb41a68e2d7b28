"""The arm of tidy_drawer in MuJoCo, in real time, driven as a real one: try everything without hardware."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robo_core.errors import RoboError
from robo_hw.contract.robot_contract import RobotContract
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
        from robo_policies.envs.tidy_drawer.env import STATE_NAMES, TidyDrawerEnv

        if contract.joint_names != tuple(STATE_NAMES):
            raise ArmError(
                f"contract {contract.robot}: its joints are not the simulated arm's ({', '.join(STATE_NAMES)}); "
                "use contract=tidy_drawer"
            )
        sizes = {(camera.width, camera.height) for camera in contract.cameras}
        if len(sizes) > 1 or any(width != height for width, height in sizes):
            raise ArmError("the simulated arm's cameras are square and all of one size; see the contract's cameras")
        self._contract, self._settings = contract, settings
        size = next(iter(sizes), (128, 128))[0]
        self._env = TidyDrawerEnv(image_size=size)
        # A copy for the camera thread: a slow renderer must not hold the arm up.
        self._view = TidyDrawerEnv(image_size=size)
        self._target = self._env.joint_positions()
        self.vector_names: Mapping[str, Sequence[str]] = {_ENVIRONMENT: self._env.environment_state_names}
        self.stages: Sequence[str] = self._env.stages
        self._lock = threading.Lock()
        self._connected = False
        self._frames: dict[str, CameraFrame] = {}
        self._closing = threading.Event()
        self._cameras = threading.Thread(target=self._render, name="cameras", daemon=True)
        self._problem = ""
        self._succeeded = False

    def connect(self) -> None:
        """Set the scene up."""
        self._env.reset(seed=self._settings.seed)
        self._target = self._env.joint_positions()
        self._simulated = time.monotonic()
        self._connected = True
        if self._settings.cameras and self._contract.cameras:
            self._cameras.start()

    @property
    def connected(self) -> bool:
        """Whether it is there."""
        return self._connected

    def read(self) -> Reading:
        """Simulate up to now, and observe."""
        with self._lock:
            self._advance()
            observation, info = self._env.observe()
            positions = self._env.joint_positions()
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
        with self._lock:
            self._advance()
            self._target = np.array(positions, dtype=np.float64)

    def disconnect(self) -> None:
        """End the simulation."""
        self._closing.set()
        if self._cameras.ident is not None:
            self._cameras.join(3.0)
        self._connected = False

    def _render(self) -> None:
        """Render the copy at the cameras' rate."""
        cameras = self._contract.cameras
        period = 1.0 / max(camera.rate for camera in cameras)
        names = [camera.name for camera in cameras]
        try:
            while not self._closing.wait(period):
                with self._lock:
                    self._view.copy_state(self._env)
                    at = time.monotonic()
                images = self._view.render_cameras(names)
                frames = {name: CameraFrame(images[f"observation.images.{name}"], at) for name in names}
                with self._lock:
                    self._frames = frames
        except RoboError as error:  # no GL driver: the cameras stay silent, and the core says so
            self._problem = str(error)
        finally:
            self._view.close()

    def _advance(self) -> None:
        now = time.monotonic()
        self._simulated = max(self._simulated, now - _LONGEST_CATCH_UP)
        due = int((now - self._simulated) / self._env.physics_seconds)
        if due:
            self._simulated += due * self._env.physics_seconds
            self._env.apply(self._target, due)
