"""A scripted operator's hand: smooth tool motions solved by inverse kinematics, and the skills of tidy-drawer.

Skills are generators of actions; they look at the true state when they begin and between their motions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from robo_core.errors import MissingPartError
from robo_policies.envs.demonstrations import Actions
from robo_policies.envs.tidy_drawer import scene
from robo_policies.envs.tidy_drawer.env import TidyDrawerEnv
from robo_policies.envs.tidy_drawer.progress import SHUT, cube_held, cube_in_tray
from robo_policies.rendering import SIM_FIX, import_mujoco

Point = tuple[float, float, float]

TRAVEL_HEIGHT = 0.125
"""z (m) at which the hand travels between places."""
CARRY_HEIGHT = 0.115
PULLED = 0.095
"""Drawer opening (m) an operator pulls to."""
GRIP_OPEN, GRIP_SHUT = 0.95, 0.05
SPEED = 0.17
"""Mean speed of the tool tip along a motion, m/s, at pace 1."""
FASTEST_JOINT_STEP = 0.14
"""rad a control step, so 2.8 rad/s."""
_LONGEST_REACH = 0.97 * scene.ARM_LENGTH


@dataclass(frozen=True)
class Style:
    """How an operator moves; drawn per episode.

    ``pace``: factor on speed. ``tremor``: standard deviation of the tool's wander, m. ``aim``: standard deviation of
    the places grasped and released at, m. ``pause_chance`` per control step within a motion; ``think_chance`` at the
    start of each skill; ``pause`` range of both, s. ``detour_chance`` per free motion; ``detour_reach`` range, m.
    """

    pace: float = 1.0
    tremor: float = 0.002
    aim: float = 0.003
    pause_chance: float = 0.0
    think_chance: float = 0.0
    pause: tuple[float, float] = (0.5, 1.5)
    detour_chance: float = 0.0
    detour_reach: tuple[float, float] = (0.05, 0.12)


class Operator:
    """Moves the tool of one environment; every random draw comes from ``random``.

    Raises:
        MissingPartError: mink is not installed.
    """

    def __init__(self, env: TidyDrawerEnv, random: np.random.Generator, style: Style) -> None:
        self.env, self.random, self.style = env, random, style
        self._ik = _InverseKinematics(env.data.qpos[:6])
        self._place = np.array(env.situation().tip)
        rotation = env.data.site("tip").xmat.reshape(3, 3)
        self._yaw = math.atan2(rotation[1, 2], rotation[0, 2])
        # Fingers that hold something stand open by its width, and must go on pressing.
        self._gripper = GRIP_SHUT if cube_held(env.situation()) else env.situation().gripper
        self._wander: np.ndarray = np.zeros(3)

    # -- motions ------------------------------------------------------------------------------------------------

    def go(self, points: Sequence[Point], yaw: float | None = None, pace: float = 1.0, free: bool = False) -> Actions:
        """Move the tip along straight lines through ``points`` (m), rounding corners, turning to ``yaw`` (rad).

        ``free``: nothing holds the hand where it is, so a wandering operator may make a detour first.
        """
        if free and self.style.detour_chance and self.random.random() < self.style.detour_chance:
            yield from self._detour(np.array(points[0]))
        path = np.array([self._place, *points])
        lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
        reached = np.concatenate([[0.0], np.cumsum(lengths)])
        goal_yaw = self._yaw if yaw is None else yaw
        first_yaw = self._yaw
        turn_length = abs(goal_yaw - first_yaw) * 0.08
        seconds = max(reached[-1], turn_length) / (SPEED * self.style.pace * pace)
        steps = max(4, math.ceil(seconds * scene.CONTROL_HZ))
        carrot = path[0]
        for step in range(1, steps + 4):
            if self.style.pause_chance and self.random.random() < self.style.pause_chance:
                yield from self.pause()
            share = _min_jerk(min(step / steps, 1.0))
            along = share * reached[-1]
            carrot = np.array([np.interp(along, reached, path[:, axis]) for axis in range(3)])
            # Following the carrot with a lag rounds the corners as a hand does.
            self._place = self._place + 0.5 * (carrot - self._place)
            self._yaw = first_yaw + share * (goal_yaw - first_yaw)
            yield self._action()
        self._place = carrot

    def grip(self, opening: float) -> Actions:
        """Open or close the gripper to ``opening`` (0 to 1) in about 0.35 s, and let it settle."""
        steps = max(3, round(7 / max(self.style.pace, 0.6)))
        first = self._gripper
        for step in range(1, steps + 1):
            self._gripper = first + (opening - first) * step / steps
            yield self._action()

    def hold(self, seconds: float) -> Actions:
        """Keep still (but for the tremor)."""
        for _ in range(max(1, round(seconds * scene.CONTROL_HZ))):
            yield self._action(tremor=0.3)

    def pause(self) -> Actions:
        """Hesitate for as long as the style says."""
        yield from self.hold(self.random.uniform(*self.style.pause))

    def think(self) -> Actions:
        """Perhaps hesitate, as people do between two parts of a task."""
        if self.style.think_chance and self.random.random() < self.style.think_chance:
            yield from self.pause()

    # -- skills -------------------------------------------------------------------------------------------------

    def open_drawer(self, pull_to: float = PULLED) -> Actions:
        """Take the handle from above and pull; then let go and rise."""
        yield from self.think()
        x, y, z = self._handle()
        x, y = x + self._aim(), y + self._aim() * 2
        yield from self.go([(x, y, TRAVEL_HEIGHT)], yaw=0.0, free=True)
        yield from self._ready_gripper()
        yield from self.go([(x, y, z)], pace=0.7)
        yield from self.grip(0.1)
        for _ in range(2):
            left = pull_to - self.env.situation().opening
            yield from self.go([(self._place[0] - left - 0.004, y, z)], pace=0.7)
            if self.env.situation().opening > pull_to - 0.015:
                break
        yield from self.grip(GRIP_OPEN)
        yield from self.go([(float(self._place[0]), y, TRAVEL_HEIGHT)], pace=1.2)

    def reach(self) -> Actions:
        """Travel to a place over the cube, gripper open and turned to the cube's faces."""
        yield from self.think()
        x, y, z = self.env.situation().cube
        yield from self._rise()
        yield from self.go(
            [(x + self._aim(), y + self._aim(), max(TRAVEL_HEIGHT - 0.045, z + 0.05))],
            self._cube_yaw(),
            free=True,
        )
        yield from self._ready_gripper()

    def grasp(self) -> Actions:
        """Descend on the cube, close on it and lift it."""
        yield from self.think()
        x, y, z = self.env.situation().cube
        yield from self.go([(x + self._aim(), y + self._aim(), z)], self._cube_yaw(), pace=0.7)
        yield from self.grip(GRIP_SHUT)
        yield from self.go([(x, y, z + 0.045)], pace=0.8)

    def carry(self, goal: Point | None = None, let_go_at: float = 0.012) -> Actions:
        """Carry what is held over ``goal`` (the tray's middle where None), lower it and let go ``let_go_at`` m up."""
        yield from self.think()
        if goal is None:
            goal = self._tray()
        x, y = goal[0] + 1.5 * self._aim(), goal[1] + 3 * self._aim()
        start = self._place
        over = max(CARRY_HEIGHT, goal[2] + 0.045)
        yield from self.go(
            [
                (0.8 * float(start[0]) + 0.2 * x, 0.8 * float(start[1]) + 0.2 * y, over),
                (x, y, over),
                (x, y, goal[2] + let_go_at),
            ],
            yaw=0.0,
            free=True,
        )
        yield from self.grip(GRIP_OPEN)
        yield from self.go([(x, y, max(TRAVEL_HEIGHT, over))], pace=1.2)

    def drop(self) -> Actions:
        """Let go wherever the hand is, as by mistake, and take a moment to see it."""
        yield from self.grip(GRIP_OPEN)
        yield from self.hold(self.random.uniform(0.3, 1.0))

    def retreat(self) -> Actions:
        """Rise from wherever the hand is, and wait there for a moment."""
        yield from self._rise()
        yield from self.hold(self.random.uniform(0.2, 0.6))

    def close_drawer(self) -> Actions:
        """Come down before the handle with the gripper shut, push the drawer home and back off a little."""
        yield from self.think()
        x, y, z = self._handle()
        y += 2 * self._aim()
        yield from self._rise()
        yield from self.go([(x - 0.045, y, TRAVEL_HEIGHT)], yaw=0.0, free=True)
        yield from self.grip(GRIP_SHUT)
        yield from self.go([(x - 0.045, y, z)], pace=0.8)
        for push in (0.004, 0.0):
            yield from self.go([(scene.DRAWER_FRONT_X - push, y, z)], pace=0.8)
            yield from self.hold(0.3)
            if self.env.situation().opening < SHUT:
                break
        yield from self.go([(scene.DRAWER_FRONT_X - 0.04, y, z)], pace=0.8)

    def fetch_cube(self, tries: int = 3) -> Actions:
        """Reach for the cube and grasp it; again where it slipped."""
        for _ in range(tries):
            yield from self.reach()
            yield from self.grasp()
            if self.holding():
                return
            yield from self.grip(GRIP_OPEN)

    def store_cube(self, tries: int = 3) -> Actions:
        """Fetch the cube and put it into the drawer; again where it fell beside."""
        for _ in range(tries):
            yield from self.fetch_cube()
            yield from self.carry()
            if cube_in_tray(self.env.situation()):
                return

    def holding(self) -> bool:
        """Whether the cube is in the gripper."""
        return cube_held(self.env.situation())

    # -- inside -------------------------------------------------------------------------------------------------

    def _action(self, tremor: float = 1.0) -> np.ndarray:
        # An Ornstein-Uhlenbeck wander with a time constant of half a second, as a hand has.
        amplitude = self.style.tremor * tremor
        self._wander = 0.9 * self._wander + math.sqrt(1 - 0.81) * amplitude * self.random.standard_normal(3)
        joints = self._ik.solve(self._place + self._wander, self._yaw)
        return np.append(joints, self._gripper).astype(np.float32)

    def _aim(self) -> float:
        return float(np.clip(self.random.normal(0, self.style.aim), -2.5 * self.style.aim, 2.5 * self.style.aim))

    def _handle(self) -> Point:
        opening = self.env.situation().opening
        return (scene.DRAWER_FRONT_X + 0.004 - opening, scene.DRAWER_Y, scene.HANDLE_HEIGHT)

    def _tray(self) -> Point:
        opening = self.env.situation().opening
        # The part of the tray still under the cabinet's top cannot be reached from above: aim at the free part.
        free_from, free_to = scene.DRAWER_FRONT_X - opening + 0.008, scene.DRAWER_FRONT_X + 0.008
        return ((free_from + free_to) / 2, scene.DRAWER_Y, scene.TRAY_FLOOR + scene.CUBE_HALF)

    def _cube_yaw(self) -> float:
        yaw = self.env.cube_yaw()
        return yaw - math.pi / 2 * round(yaw / (math.pi / 2))

    def _rise(self) -> Actions:
        if self._place[2] < TRAVEL_HEIGHT - 0.045:
            yield from self.go([(float(self._place[0]), float(self._place[1]), TRAVEL_HEIGHT)], pace=1.2)

    def _ready_gripper(self) -> Actions:
        if self._gripper < GRIP_OPEN - 0.02:
            yield from self.grip(GRIP_OPEN)

    def _detour(self, goal: np.ndarray) -> Actions:
        # Wander off the way to a place nearby, look around, and come back by the next motion.
        direction = self.random.normal(size=3)
        direction[2] = abs(direction[2]) * 0.4
        offset = direction / np.linalg.norm(direction) * self.random.uniform(*self.style.detour_reach)
        middle = (self._place + goal) / 2 + offset
        low, high = np.array([0.11, -0.20, TRAVEL_HEIGHT - 0.02]), np.array([0.25, 0.16, 0.19])
        steadfast, self.style = self.style, replace(self.style, detour_chance=0.0)
        up = (float(self._place[0]), float(self._place[1]), max(float(self._place[2]), TRAVEL_HEIGHT - 0.02))
        yield from self.go([up, tuple(np.clip(middle, low, high).tolist())], pace=0.8)
        if self.random.random() < 0.5:
            yield from self.hold(self.random.uniform(0.2, 0.8))
        self.style = steadfast


class _InverseKinematics:
    """Joint targets for a tool pointing straight down, by differential inverse kinematics (mink)."""

    def __init__(self, joints: np.ndarray) -> None:
        try:
            import mink
        except ModuleNotFoundError as error:
            if error.name != "mink":
                raise
            raise MissingPartError(
                f"mink is not installed; the scripted expert solves its motions with it: {SIM_FIX}"
            ) from error
        self._mink = mink
        model = import_mujoco().MjModel.from_xml_string(scene.arm_xml())
        self._configuration = mink.Configuration(model, q=np.array(joints, dtype=np.float64))
        self._tip = mink.FrameTask("tip", "site", position_cost=1.0, orientation_cost=0.1, lm_damping=1e-3)
        # The forearm's roll is redundant while the tool points down; this keeps it near zero.
        posture = mink.PostureTask(model, cost=np.array([0, 0, 0, 3e-3, 0, 0]))
        posture.set_target(np.zeros(6))
        self._tasks = [self._tip, posture]
        speed = mink.VelocityLimit(model, dict.fromkeys(scene.ARM_JOINTS, np.array([FASTEST_JOINT_STEP])))
        self._limits = [mink.ConfigurationLimit(model), speed]

    def solve(self, place: np.ndarray, yaw: float) -> np.ndarray:
        """Joint angles (6,) rad that bring the tip to ``place`` (3,) m, the fingers closing along ``yaw`` (rad).

        Places too far for a tool that points down are drawn in along the horizontal.
        """
        place = _within_reach(place)
        cosine, sine = math.cos(yaw), math.sin(yaw)
        rotation = np.array([[0.0, -sine, cosine], [0.0, cosine, sine], [-1.0, 0.0, 0.0]])
        mink = self._mink
        self._tip.set_target(mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(rotation), place))
        # One Gauss-Newton step a frame follows the smooth motion closely: what is left over enters the next one.
        velocity = mink.solve_ik(self._configuration, self._tasks, 1.0, "daqp", damping=1e-6, limits=self._limits)
        self._configuration.integrate_inplace(velocity, 1.0)
        joints: np.ndarray = self._configuration.q.copy()
        return joints


def _within_reach(place: np.ndarray) -> np.ndarray:
    # A stretched arm is singular: solutions would jump between elbow up and elbow down.
    height = place[2] + scene.WRIST_TO_TIP - scene.SHOULDER_HEIGHT
    farthest = math.sqrt(max(_LONGEST_REACH**2 - height**2, 0.01))
    across = math.hypot(place[0], place[1])
    if across <= farthest:
        return place
    return np.array([place[0] * farthest / across, place[1] * farthest / across, place[2]])


def _min_jerk(t: float) -> float:
    return t * t * t * (10 - 15 * t + 6 * t * t)
