"""Tidy drawer: open the drawer, put the cube inside, close the drawer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from robo_core.errors import ConfigError
from robo_policies.rendering import MAX_IMAGE_SIZE, CameraRenderer, check_preset, import_mujoco
from robo_policies.worlds.progress import STAGES, Situation, is_success, progress_of
from robo_policies.worlds.scene import (
    ARM_JOINTS,
    ARM_RANGES,
    CAMERAS,
    CONTROL_HZ,
    CUBE_HALF,
    FINGER_TRAVEL,
    SUBSTEPS,
    scene_xml,
)
from robo_policies.worlds.world import Actions

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
"""Places in qpos, after 6 arm joints and 2 fingers."""


class TidyDrawer(gymnasium.Env[Any, np.ndarray]):
    """The task as a Gymnasium environment at 20 Hz.

    Action (7,) float32: targets of the six arm joints (rad) and of the gripper (0 closed to 1 open); clipped to their
    limits. Observation: ``observation.state`` (7,) the same seven measured, ``observation.environment_state`` (15,)
    (``ENVIRONMENT_STATE_NAMES``; the cube's heading as cosine and sine of four times its yaw, since a cube looks the
    same after a quarter turn), and ``observation.images.<camera>`` (H, W, 3) uint8 for each of ``cameras``.

    Reward is 1 on success and 0 otherwise. ``info`` has ``success`` (bool), ``stage`` (index into ``stages``),
    ``stage_name`` and ``progress`` (in [0, 1]). Success terminates; ``max_steps`` truncates. Two environments given the
    same seed and actions do the same, bit for bit.

    Raises:
        ConfigError: unknown preset or camera, bad size or limit; an action of the wrong shape or not finite.
        MissingPartError: MuJoCo or, once something is rendered, a GL backend is missing.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012 - Gymnasium's own convention
    render_mode = "rgb_array"
    name = "tidy_drawer"
    stages: tuple[str, ...] = STAGES
    task = TASK
    fps = CONTROL_HZ
    absolute_actions = (6,)
    """Actions that are absolute commands (the gripper); the others are joint targets."""
    state_names = STATE_NAMES
    environment_state_names = ENVIRONMENT_STATE_NAMES
    action_names = STATE_NAMES

    def __init__(
        self,
        render: str = "fast",
        image_size: int = 128,
        cameras: Sequence[str] = (),
        max_steps: int = MAX_STEPS,
    ) -> None:
        check_preset(render)
        check_cameras(cameras)
        if not 8 <= image_size <= MAX_IMAGE_SIZE:
            raise ConfigError(f"image_size={image_size} is out of range; choose between 8 and {MAX_IMAGE_SIZE} pixels")
        if max_steps < 1:
            raise ConfigError(f"max_steps={max_steps} must be at least 1")
        self._mujoco = import_mujoco()
        self.model = self._mujoco.MjModel.from_xml_string(scene_xml(render))
        self.data = self._mujoco.MjData(self.model)
        self.preset, self.image_size, self.cameras, self.max_steps = render, image_size, tuple(cameras), max_steps
        self._renderer: CameraRenderer | None = None
        self._tip = self.model.site("tip").id
        self._handle = self.model.site("handle").id
        self._cube_body = self.model.body("cube").id
        self._steps = 0
        low, high = (np.array(bound, np.float32) for bound in zip(*ARM_RANGES, (0.0, 1.0), strict=True))
        self._low, self._high = low.astype(np.float64), high.astype(np.float64)
        self.action_space = spaces.Box(low, high, dtype=np.float32)
        unbounded = np.inf
        self.observation_space = spaces.Dict(
            {
                "observation.state": spaces.Box(-unbounded, unbounded, (len(STATE_NAMES),), np.float32),
                "observation.environment_state": spaces.Box(
                    -unbounded, unbounded, (len(ENVIRONMENT_STATE_NAMES),), np.float32
                ),
                **{
                    f"observation.images.{camera}": spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
                    for camera in self.cameras
                },
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode: random cube pose, drawer opening and arm pose. ``options`` are not used."""
        super().reset(seed=seed)
        self._mujoco.mj_resetData(self.model, self.data)
        self._arrange(self.np_random)
        self._mujoco.mj_forward(self.model, self.data)
        self._steps = 0
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Advance 50 ms towards the joint targets ``action`` (7,)."""
        target = np.asarray(action, dtype=np.float64)
        if target.shape != (7,) or not np.isfinite(target).all():
            raise ConfigError(
                f"an action of {self.name} is 7 finite numbers ({', '.join(STATE_NAMES)}); got {np.asarray(action)!r}"
            )
        target = np.minimum(np.maximum(target, self._low), self._high)
        joints = self.data.qpos[:6]
        self.data.ctrl[:6] = np.minimum(np.maximum(target[:6], joints - MAX_JOINT_STEP), joints + MAX_JOINT_STEP)
        self.data.ctrl[6] = target[6] * FINGER_TRAVEL
        self._mujoco.mj_step(self.model, self.data, nstep=SUBSTEPS)
        # mj_step leaves positions of bodies and sites one substep behind the joints.
        self._mujoco.mj_kinematics(self.model, self.data)
        self._steps += 1
        info = self._info()
        terminated = info["success"]
        truncated = not terminated and self._steps >= self.max_steps
        return self._observation(), float(terminated), terminated, truncated, info

    def demonstrate(self, quality: str, random: np.random.Generator) -> Actions:
        """Actions of one demonstration from the present state; step the environment between them."""
        from robo_policies.worlds.qualities import demonstrate

        return demonstrate(self, quality, random)

    def look(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Observation and info of the present state, for whoever moves ``data`` without ``step``."""
        return self._observation(), self._info()

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

    def render_cameras(self, cameras: Sequence[str] = CAMERAS) -> dict[str, np.ndarray]:
        """Images of the present state, keyed ``observation.images.<camera>``, each (H, W, 3) uint8 RGB."""
        check_cameras(cameras)
        if self._renderer is None:
            self._renderer = CameraRenderer(self.model, self.image_size, self.preset)
        self._mujoco.mj_camlight(self.model, self.data)
        return {f"observation.images.{camera}": self._renderer.render(self.data, camera) for camera in cameras}

    def render(self) -> np.ndarray:
        """The front camera's image, (H, W, 3) uint8 RGB."""
        return self.render_cameras(("front",))["observation.images.front"]

    def close(self) -> None:
        """Free the GL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def judge(self) -> tuple[bool, int, float]:
        """Success, stage (an index into ``stages``) and progress of the present state."""
        situation = self.situation()
        return is_success(situation), *progress_of(situation)

    def _arrange(self, random: np.random.Generator) -> None:
        data = self.data
        data.qpos[:6] = np.array(HOME) + random.uniform(-1, 1, 6) * (0.30, 0.10, 0.10, 0.05, 0.10, 0.20)
        data.qpos[6:8] = FINGER_TRAVEL * random.uniform(0.3, 1.0)
        data.qpos[DRAWER] = random.uniform(0.0, START_OPENING)
        yaw = random.uniform(-CUBE_YAW, CUBE_YAW)
        data.qpos[CUBE : CUBE + 7] = (
            random.uniform(*CUBE_X), random.uniform(*CUBE_Y), CUBE_HALF, math.cos(yaw / 2), 0, 0, math.sin(yaw / 2),
        )  # fmt: skip
        data.ctrl[:] = data.qpos[:7]

    def _info(self) -> dict[str, Any]:
        success, stage, progress = self.judge()
        return {"success": success, "stage": stage, "stage_name": self.stages[stage], "progress": progress}

    def _observation(self) -> dict[str, np.ndarray]:
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
        observation = {"observation.state": state, "observation.environment_state": environment}
        if self.cameras:
            observation.update(self.render_cameras(self.cameras))
        return observation


def check_cameras(cameras: Sequence[str]) -> None:
    """Raise ``ConfigError`` where a name is no camera of this world, or comes twice."""
    for camera in cameras:
        if camera not in CAMERAS:
            raise ConfigError(f"cameras={list(cameras)}: no camera {camera!r}; choose among: {', '.join(CAMERAS)}")
    if len(set(cameras)) != len(cameras):
        raise ConfigError(f"cameras={list(cameras)}: a camera comes twice")
