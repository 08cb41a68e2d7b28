"""Stage and true progress of tidy-drawer, as functions of the state alone.

Every stage measures what is left of it by the way the hand (or the cube) still has to travel, lifted over obstacles,
so progress rises along a clean run and falls back when the cube is dropped or the drawer shut too early.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from robo_policies.envs.tidy_drawer.scene import (
    CUBE_HALF,
    DRAWER_FRONT_X,
    DRAWER_TRAVEL,
    DRAWER_Y,
    HANDLE_HEIGHT,
    TRAY_CENTRE_X,
    TRAY_FLOOR,
    TRAY_HALF_X,
    TRAY_HALF_Y,
    TRAY_WALL_TOP,
)

STAGES = (
    "open the drawer",
    "reach for the cube",
    "grasp the cube",
    "carry the cube into the drawer",
    "close the drawer",
)
STAGE_SHARES = (0.22, 0.22, 0.09, 0.21, 0.26)
"""Share of each stage in the time of a clean run; progress at the start of a stage is the sum of those before it."""

OPEN_ENOUGH = 0.05
"""Drawer opening (m) from which the cube can be put inside."""
SHUT = 0.008
"""Drawer opening (m) below which it counts as shut."""
TRAVEL_Z = 0.12
"""Height (m) at which the hand travels between places."""
NEAR = 0.035
"""Way left (m) to the cube at which reaching has become grasping."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What stage and progress depend on.

    ``tip`` and ``cube``: positions (x, y, z) in metres; ``opening``: of the drawer, in metres; ``gripper``: 0 closed to
    1 open.
    """

    tip: tuple[float, float, float]
    cube: tuple[float, float, float]
    opening: float
    gripper: float


def way_left(start: tuple[float, float, float], goal: tuple[float, float, float]) -> float:
    """Metres from ``start`` to ``goal`` when the way goes up to ``TRAVEL_Z``, across and down."""
    across = math.hypot(start[0] - goal[0], start[1] - goal[1])
    height = start[2] - goal[2]
    # Within 2 cm nothing stands in the way.
    travel_height = (TRAVEL_Z - goal[2]) * _smooth((across - 0.02) / 0.05)
    return across + abs(height - travel_height) + travel_height


def cube_in_tray(situation: Situation) -> bool:
    """Whether the cube lies between the tray's walls."""
    x, y, z = situation.cube
    return (
        abs(x - (TRAY_CENTRE_X - situation.opening)) < TRAY_HALF_X
        and abs(y - DRAWER_Y) < TRAY_HALF_Y
        and z < TRAY_WALL_TOP - 0.004
    )


def cube_held(situation: Situation) -> bool:
    """Whether the cube is between the fingers, judged by distance and finger opening."""
    return math.dist(situation.tip, situation.cube) < 0.022 and situation.gripper < 0.62


def is_success(situation: Situation) -> bool:
    """The task is done: the cube lies in the tray, out of the gripper, and the drawer is shut."""
    return situation.opening < SHUT and cube_in_tray(situation) and not cube_held(situation)


def stage_of(situation: Situation) -> int:
    """Index into ``STAGES``."""
    if cube_in_tray(situation) and not cube_held(situation):
        return 4
    if situation.opening < OPEN_ENOUGH:
        return 0
    if cube_held(situation) and (situation.cube[2] > CUBE_HALF + 0.012 or cube_in_tray(situation)):
        return 3
    if way_left(situation.tip, situation.cube) < NEAR:
        return 2
    return 1


def progress_of(situation: Situation) -> tuple[int, float]:
    """Stage index and progress in [0, 1]; exactly 1 on success."""
    stage = stage_of(situation)
    if stage == 4 and is_success(situation):
        return stage, 1.0
    fraction = min(max(_FRACTIONS[stage](situation), 0.0), 1.0)
    return stage, min(_BEFORE[stage] + STAGE_SHARES[stage] * fraction, 0.999)


_BEFORE = tuple(sum(STAGE_SHARES[:stage]) for stage in range(len(STAGES)))


def _smooth(x: float) -> float:
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def _handle(opening: float) -> tuple[float, float, float]:
    return (DRAWER_FRONT_X + 0.004 - opening, DRAWER_Y, HANDLE_HEIGHT)


def _opening_fraction(s: Situation) -> float:
    hand = 1 - way_left(s.tip, _handle(s.opening)) / 0.30
    return 0.7 * max(hand, 0.0) + 0.3 * s.opening / OPEN_ENOUGH


def _reach_fraction(s: Situation) -> float:
    # The hand may still be pulling the drawer wider; that counts as way made, so progress does not dip.
    unpulled = max(0.095 - s.opening, 0.0)
    return 1 - (way_left(s.tip, s.cube) - NEAR + 2 * unpulled) / 0.42


def _grasp_fraction(s: Situation) -> float:
    descended = 1 - way_left(s.tip, s.cube) / NEAR
    closed = min(max((1 - s.gripper) / 0.5, 0.0), 1.0)
    lifted = (s.cube[2] - CUBE_HALF) / 0.012
    return 0.3 * max(descended, 0.0) + 0.4 * closed + 0.3 * min(max(lifted, 0.0), 1.0)


def _carry_fraction(s: Situation) -> float:
    over_tray = (TRAY_CENTRE_X - s.opening, DRAWER_Y, TRAY_FLOOR + CUBE_HALF)
    return 1 - way_left(s.cube, over_tray) / 0.38


def _close_fraction(s: Situation) -> float:
    handle = _handle(s.opening)
    # Anywhere close before the handle will do to push it.
    before = min(max(s.tip[0], handle[0] - 0.05), handle[0] - 0.008)
    hand = 1 - way_left(s.tip, (before, handle[1], handle[2])) / 0.20
    return 0.5 * max(hand, 0.0) + 0.5 * (1 - s.opening / DRAWER_TRAVEL)


_FRACTIONS = (_opening_fraction, _reach_fraction, _grasp_fraction, _carry_fraction, _close_fraction)
