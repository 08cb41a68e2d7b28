"""Tidy drawer: open the drawer, put the cube inside, close the drawer."""

from __future__ import annotations

import math
from typing import Unpack

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError
from robo_policies.envs.base import ENVIRONMENT_STATE, STATE, Action, EnvSettings, MujocoEnv, Observation, TaskState
from robo_policies.envs.tidy_drawer.progress import STAGES, Situation, is_success, progress_of
from robo_policies.envs.tidy_drawer.scene import (
    ARM_JOINTS,
    ARM_RANGES,
    CAMERAS,
    CONTROL_HZ,
    CUBE_HALF,
    FINGER_TRAVEL,
    SUBSTEPS,
    TIMESTEP,
    scene_xml,
)
from robo_policies.rendering import import_mujoco

MAX_STEPS = 600
HOME = (0.0, 0.0, 0.0, 0.0, 1.57, 0.0)
"""Arm joints (rad) around which episodes start: the hand above the table's middle, pointing down."""
CUBE_X, CUBE_Y = (0.145, 0.225), (-0.150, -0.070)
CUBE_YAW = 0.40
START_OPENING = 0.015
MAX_JOINT_STEP = 0.20
"""How far (rad) a joint's target may lie from the joint, per control step: the servos' speed limit, 4 rad/s."""
TASK = "Open the drawer, put the cube inside and close it."

STATE_NAMES = (*ARM_JOINTS, "gripper")
ENVIRONMENT_STATE_NAMES = (
    "cube_x", "cube_y", "cube_z", "cube_cos", "cube_sin", "drawer_opening", "tip_x", "tip_y", "tip_z",
    "cube_from_tip_x", "cube_from_tip_y", "cube_from_tip_z",
    "handle_from_tip_x", "handle_from_tip_y", "handle_from_tip_z",
)  # fmt: skip

DRAWER, CUBE = 8, 9
"""Indices into qpos, after 6 arm joints and 2 fingers."""


class TidyDrawerEnv(MujocoEnv):
    """The task at 20 Hz.

    Action (7,) float32: targets of the six arm joints (rad) and of the gripper (0 closed to 1 open), clipped to their
    limits and to ``MAX_JOINT_STEP`` from where the joints are. Observation: ``observation.state`` (7,) the same seven
    measured, ``observation.environment_state`` (15,) (``ENVIRONMENT_STATE_NAMES``; the cube's heading as cosine and
    sine of four times its yaw, since a cube looks the same after a quarter turn), and ``observation.images.<camera>``
    (H, W, 3) uint8 for each of ``cameras``.

    Args:
        settings: see `EnvSettings`; the action rate is fixed.

    Raises:
        ConfigError, MissingPartError: see `MujocoEnv`.
    """

    name = "tidy_drawer"
    task = TASK
    stages: tuple[str, ...] = STAGES
    absolute_actions = (6,)
    state_names = action_names = STATE_NAMES
    environment_state_names = ENVIRONMENT_STATE_NAMES
    default_max_steps = MAX_STEPS
    physics_seconds = TIMESTEP
    """Duration of one physics step; a control step has ``SUBSTEPS``."""

    def __init__(self, **settings: Unpack[EnvSettings]) -> None:
        repeat = settings.get("action_repeat")
        if repeat not in (None, 1):
            raise ConfigError(f"action_repeat={repeat}: tidy_drawer has a fixed action rate; leave it out")
        mujoco = import_mujoco()
        model = mujoco.MjModel.from_xml_string(scene_xml(settings.get("render", "fast")))
        self._tip, self._handle = model.site("tip").id, model.site("handle").id
        self._cube_body = model.body("cube").id
        low, high = zip(*ARM_RANGES, (0.0, 1.0), strict=True)
        cameras = {camera: camera for camera in CAMERAS}
        super().__init__(
            model, mujoco.MjData(model), CONTROL_HZ, self.default_max_steps, low, high, cameras, **settings
        )

    def apply(self, action: Action, physics_steps: int = SUBSTEPS) -> bool:
        """Hold the targets ``action`` (7,) for some physics steps, unclipped, as the servos of an arm do.

        Returns:
            False: this alone ends no episode.
        """
        control = self.data.ctrl
        control[:] = action
        control[6] *= FINGER_TRAVEL
        self._mujoco.mj_step(self.model, self.data, nstep=physics_steps)
        # mj_step leaves positions of bodies and sites one physics step behind the joints.
        self._mujoco.mj_kinematics(self.model, self.data)
        return False

    def joint_positions(self) -> npt.NDArray[np.float64]:
        """The six arm joints (rad) and the gripper (0 to 1), (7,)."""
        return self._joints(self.data.qpos)

    def joint_velocities(self) -> npt.NDArray[np.float64]:
        """The same per second, (7,)."""
        return self._joints(self.data.qvel)

    def copy_state(self, other: TidyDrawerEnv) -> None:
        """Take the pose of everything in ``other``, to render it here."""
        self.data.qpos[:] = other.data.qpos
        self._mujoco.mj_kinematics(self.model, self.data)

    def situation(self) -> Situation:
        """What stage and progress are computed from."""
        data = self.data
        return Situation(
            tip=tuple(data.site_xpos[self._tip].tolist()),
            cube=tuple(data.xpos[self._cube_body].tolist()),
            opening=float(data.qpos[DRAWER]),
            gripper=float(data.qpos[6]) / FINGER_TRAVEL,
        )

    def cube_yaw(self) -> float:
        """The cube's heading about the vertical, rad, in (-pi, pi]."""
        w, x, y, z = self.data.qpos[CUBE + 3 : CUBE + 7].tolist()
        return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))

    def task_state(self) -> TaskState:
        """Success, stage and progress of the present state."""
        situation = self.situation()
        return TaskState(is_success(situation), *progress_of(situation))

    def _begin(self, seed: int | None) -> None:
        self._mujoco.mj_resetData(self.model, self.data)
        self._arrange(self.np_random)
        self._mujoco.mj_forward(self.model, self.data)

    def _arrange(self, random: np.random.Generator) -> None:
        """Draw the first pose of arm, drawer and cube."""
        data = self.data
        data.qpos[:6] = np.array(HOME) + random.uniform(-1, 1, 6) * (0.30, 0.10, 0.10, 0.05, 0.10, 0.20)
        data.qpos[6:8] = FINGER_TRAVEL * random.uniform(0.3, 1.0)
        data.qpos[DRAWER] = random.uniform(0.0, START_OPENING)
        yaw = random.uniform(-CUBE_YAW, CUBE_YAW)
        data.qpos[CUBE : CUBE + 7] = (
            random.uniform(*CUBE_X), random.uniform(*CUBE_Y), CUBE_HALF, math.cos(yaw / 2), 0, 0, math.sin(yaw / 2),
        )  # fmt: skip
        data.ctrl[:] = data.qpos[:7]

    def _clip(self, action: Action) -> Action:
        target = super()._clip(action)
        arm, joints = target[:6], self.data.qpos[:6]
        np.maximum(arm, joints - MAX_JOINT_STEP, out=arm)
        np.minimum(arm, joints + MAX_JOINT_STEP, out=arm)
        return target

    def _joints(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        joints = values[:7].copy()
        joints[6] /= FINGER_TRAVEL
        return joints

    def _vectors(self) -> Observation:
        data = self.data
        state = data.qpos[:7].astype(np.float32)
        state[6] /= FINGER_TRAVEL
        tip, cube, handle = data.site_xpos[self._tip], data.xpos[self._cube_body], data.site_xpos[self._handle]
        quarter = 4 * self.cube_yaw()
        environment = np.empty(len(ENVIRONMENT_STATE_NAMES), np.float32)
        environment[:3] = cube
        environment[3:6] = math.cos(quarter), math.sin(quarter), data.qpos[DRAWER]
        environment[6:9] = tip
        environment[9:12] = cube - tip
        environment[12:15] = handle - tip
        return {STATE: state, ENVIRONMENT_STATE: environment}
