"""Parts of tidy-drawer as environments of their own: one skill, or the task from some stage to its end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Unpack

import numpy as np

from robo_core.errors import ConfigError
from robo_policies.envs.base import EnvSettings, TaskState
from robo_policies.envs.tidy_drawer import scene
from robo_policies.envs.tidy_drawer.env import (
    CUBE,
    CUBE_X,
    CUBE_Y,
    CUBE_YAW,
    DRAWER,
    MAX_STEPS,
    START_OPENING,
    TidyDrawerEnv,
)
from robo_policies.envs.tidy_drawer.progress import (
    STAGE_SHARES,
    STAGES,
    Situation,
    is_success,
    progress_of,
    stage_of,
    way_left,
)
from robo_policies.rendering import import_mujoco

if TYPE_CHECKING:
    import mujoco

SKILLS = ("open", "reach", "grasp", "carry", "close")
"""One for each of the stages; ``tidy_drawer/open`` is the first stage alone."""
FROM = "from_"
"""``tidy_drawer/from_carry`` begins with that stage and continues to the end of the task."""

SHORTEST_LIMIT = 100
OPENINGS = (0.080, 0.100)
"""Drawer opening (m) where an episode begins with the drawer open, as operators leave it."""
HAND_AWAY = (0.012, 0.012, 0.010)
"""How far (m) the hand may begin from its place."""
ABOVE_CUBE, LIFTED, ABOVE_TRAY = 0.060, 0.050, 0.125
"""Heights (m): of the hand over the cube's middle, of a held cube, and of the hand once it has let go."""
OPENING_STAGES = ("reach for the handle", "take the handle", "pull the drawer open")
CARRYING_STAGES = ("bring the cube over the drawer", "let the cube down into it")
NEAR_HANDLE = 0.030
"""Way left (m) to the handle at which reaching has become taking."""
PULLING = START_OPENING + 0.005
"""Drawer opening (m) that only a pull explains."""
_GRIPPED = 0.9999 * scene.CUBE_HALF / scene.FINGER_TRAVEL
_GRIP = 0.05
_SETTLING = 8
_TRIES = 20
_SENTENCES = (
    "Open the drawer.",
    "Bring the hand over the cube.",
    "Grasp the cube and lift it.",
    "Put the cube you hold into the drawer.",
    "Close the drawer.",
)


class TidyDrawerSkillEnv(TidyDrawerEnv):
    """Stages ``first`` to ``last`` of tidy-drawer, in the same scene and with the same actions and observations.

    An episode begins as the stage before would have ended, with some variation, and succeeds when the stage after
    the last one begins (after the last stage of all: when the whole task is done). Progress counts from 0 at
    the beginning of the first stage to 1 on success; falling back behind the first stage is 0. Stages count from 0;
    ``open`` and ``carry`` alone have finer ones, because a reward model learns from failures what stage they stayed in.

    Args:
        part: ``open``, ``reach``, ``grasp``, ``carry``, ``close``, or one of them after ``from_``.
        settings: see `EnvSettings`; ``max_steps`` defaults to these stages' fraction of the whole task's limit.

    Raises:
        ConfigError: an unknown part; and as `TidyDrawerEnv`.
    """

    def __init__(self, part: str, **settings: Unpack[EnvSettings]) -> None:
        self.first, self.last = stages_of(part)
        shares = STAGE_SHARES[self.first : self.last + 1]
        self.default_max_steps = max(SHORTEST_LIMIT, round(MAX_STEPS * sum(shares)))
        self.name = f"tidy_drawer/{part}"
        self._finer = _FINER.get((self.first, self.last))
        self.stages = self._finer[0] if self._finer else STAGES[self.first : self.last + 1]
        self.task = " ".join(_SENTENCES[self.first : self.last + 1])
        self._before, self._share = sum(STAGE_SHARES[: self.first]), sum(shares)
        super().__init__(**settings)

    def task_state(self) -> TaskState:
        """Success, stage and progress of the present state, counting these stages alone."""
        situation = self.situation()
        stage, whole = progress_of(situation)
        success = is_success(situation) if self.last == len(STAGES) - 1 else stage > self.last
        local = min(max(stage, self.first), self.last) - self.first
        if self._finer:
            local = self._finer[1](situation)
        progress = min(max((whole - self._before) / self._share, 0.0), 0.999)
        return TaskState(success, local, 1.0 if success else progress)

    def _arrange(self, random: np.random.Generator) -> None:
        super()._arrange(random)
        if self.first == 0:
            return
        resting = self.data.qpos.copy()
        for _ in range(_TRIES):
            self.data.qpos[:] = resting
            self.data.qvel[:] = 0
            self.data.qpos[DRAWER] = random.uniform(*OPENINGS)
            (self._before_reaching, self._over_cube, self._holding, self._released)[self.first - 1](random)
            if stage_of(self.situation()) == self.first or self.first == 2:
                return
        raise ConfigError(f"{self.name}: no start was found in {_TRIES} tries")  # pragma: no cover - never seen

    def _before_reaching(self, random: np.random.Generator) -> None:
        handle_x = scene.DRAWER_FRONT_X - float(self.data.qpos[DRAWER])
        self._put_hand((handle_x, scene.DRAWER_Y, ABOVE_TRAY), 0.0, random.uniform(0.9, 1.0), random)
        self._settle()

    def _over_cube(self, random: np.random.Generator) -> None:
        x, y, z = self.data.qpos[CUBE : CUBE + 3].tolist()
        self._put_hand((x, y, z + ABOVE_CUBE), self.cube_yaw(), random.uniform(0.9, 1.0), random)
        self._settle()

    def _holding(self, random: np.random.Generator) -> None:
        place = (random.uniform(*CUBE_X), random.uniform(*CUBE_Y), scene.CUBE_HALF + LIFTED)
        yaw = random.uniform(-CUBE_YAW, CUBE_YAW)
        self._put_hand(place, yaw, _GRIPPED, random)
        self._put_cube(self.data.site_xpos[self._tip], yaw)
        self.data.ctrl[6] = _GRIP * scene.FINGER_TRAVEL
        self._settle()

    def _released(self, random: np.random.Generator) -> None:
        middle = scene.TRAY_CENTRE_X - float(self.data.qpos[DRAWER])
        x, y = middle + random.uniform(-0.012, 0.012), scene.DRAWER_Y + random.uniform(-0.02, 0.02)
        self._put_hand((x, y, ABOVE_TRAY), 0.0, random.uniform(0.9, 1.0), random)
        self._put_cube(np.array([x, y, scene.TRAY_FLOOR + scene.CUBE_HALF + 0.002]), random.uniform(-0.2, 0.2))
        self._settle()

    def _put_hand(
        self, place: tuple[float, float, float], yaw: float, gripper: float, random: np.random.Generator
    ) -> None:
        data = self.data
        goal = np.array(place) + random.uniform(-1, 1, 3) * HAND_AWAY
        data.qpos[:6] = point_down(self.model, data, goal, yaw)
        data.qpos[6:8] = gripper * scene.FINGER_TRAVEL
        data.ctrl[:] = data.qpos[:7]
        self._mujoco.mj_kinematics(self.model, data)

    def _put_cube(self, place: np.ndarray, yaw: float) -> None:
        self.data.qpos[CUBE : CUBE + 7] = (*place, math.cos(yaw / 2), 0, 0, math.sin(yaw / 2))

    def _settle(self) -> None:
        self._mujoco.mj_step(self.model, self.data, nstep=_SETTLING * scene.SUBSTEPS)
        self._mujoco.mj_kinematics(self.model, self.data)
        self.data.time = 0.0


def opening_stage(situation: Situation) -> int:
    """Index into ``OPENING_STAGES``."""
    handle = (scene.DRAWER_FRONT_X + 0.004 - situation.opening, scene.DRAWER_Y, scene.HANDLE_HEIGHT)
    if situation.opening >= PULLING:
        return 2
    return 1 if way_left(situation.tip, handle) < NEAR_HANDLE else 0


def carrying_stage(situation: Situation) -> int:
    """Index into ``CARRYING_STAGES``."""
    x, y, _ = situation.cube
    middle = scene.TRAY_CENTRE_X - situation.opening
    return int(abs(x - middle) < scene.TRAY_HALF_X and abs(y - scene.DRAWER_Y) < scene.TRAY_HALF_Y)


_FINER: dict[tuple[int, int], tuple[tuple[str, ...], Callable[[Situation], int]]] = {
    (0, 0): (OPENING_STAGES, opening_stage),
    (3, 3): (CARRYING_STAGES, carrying_stage),
}
"""Names and rule of the finer stages of a skill, by its first and last stage in the whole task."""


def stages_of(part: str) -> tuple[int, int]:
    """First and last stage of a part, as indices into tidy-drawer's stages.

    Raises:
        ConfigError: it is no part; lists them.
    """
    skill = part.removeprefix(FROM)
    if skill not in SKILLS:
        known = ", ".join(f"tidy_drawer/{name}" for name in SKILLS)
        raise ConfigError(f"env=tidy_drawer/{part} is no part of the task; choose {known}, or tidy_drawer/{FROM}<part>")
    first = SKILLS.index(skill)
    return first, len(SKILLS) - 1 if part.startswith(FROM) else first


def point_down(
    model: mujoco.MjModel, data: mujoco.MjData, place: np.ndarray, yaw: float, iterations: int = 60
) -> np.ndarray:
    """Joint angles (6,) rad that bring the tip to ``place`` (3,) m, the tool pointing down, its fingers along ``yaw``.

    Damped least squares on the site's Jacobian, from the pose in ``data``, whose arm joints it moves.
    """
    mujoco = import_mujoco()
    site = model.site("tip").id
    low, high = np.array(scene.ARM_RANGES).T
    cosine, sine = math.cos(yaw), math.sin(yaw)
    wanted = np.array([[0.0, -sine, cosine], [0.0, cosine, sine], [-1.0, 0.0, 0.0]])
    across, turning = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    quaternion, turn = np.zeros(4), np.zeros(3)
    joints = data.qpos[:6]
    # The tool can turn about its own axis with the forearm or with the wrist; this keeps the forearm's roll near zero.
    rest = np.diag([0.0, 0.0, 0.0, 1e-3, 0.0, 0.0])
    for _ in range(iterations):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, across, turning, site)
        present = data.site_xmat[site].reshape(3, 3)
        mujoco.mju_mat2Quat(quaternion, (wanted @ present.T).ravel())
        mujoco.mju_quat2Vel(turn, quaternion, 1.0)
        left = np.concatenate([place - data.site_xpos[site], 0.1 * turn])
        jacobian = np.concatenate([across[:, :6], 0.1 * turning[:, :6]])
        step = np.linalg.solve(jacobian.T @ jacobian + rest + 1e-6 * np.eye(6), jacobian.T @ left - rest @ joints)
        joints[:] = np.clip(joints + np.clip(step, -0.3, 0.3), low, high)
        if np.abs(step).max() < 1e-4:
            break
    mujoco.mj_kinematics(model, data)
    return joints.copy()
