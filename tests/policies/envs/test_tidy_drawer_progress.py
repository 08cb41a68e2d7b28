"""Stage, progress and success as functions of the state."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_policies.envs.tidy_drawer.progress import (
    OPEN_ENOUGH,
    STAGE_SHARES,
    STAGES,
    Situation,
    cube_held,
    cube_in_tray,
    is_success,
    progress_of,
    stage_of,
    way_left,
)
from robo_policies.envs.tidy_drawer.scene import CABINET_TOP, CUBE_HALF, DRAWER_Y, TRAY_CENTRE_X, TRAY_FLOOR

ON_TABLE = (0.19, -0.11, CUBE_HALF)
AWAY = (0.16, 0.0, 0.16)


def in_tray(opening: float) -> tuple[float, float, float]:
    return (TRAY_CENTRE_X - opening, DRAWER_Y, TRAY_FLOOR + CUBE_HALF)


START = Situation(tip=AWAY, cube=ON_TABLE, opening=0.01, gripper=1.0)


@pytest.mark.parametrize(
    ("situation", "stage"),
    [
        (START, "open the drawer"),
        (replace(START, opening=0.09), "reach for the cube"),
        (replace(START, opening=0.09, tip=(0.19, -0.11, 0.02)), "grasp the cube"),
        (
            replace(START, opening=0.09, tip=(0.2, 0, 0.1), cube=(0.2, 0, 0.1), gripper=0.45),
            "carry the cube into the drawer",
        ),
        (replace(START, opening=0.09, cube=in_tray(0.09)), "close the drawer"),
        (replace(START, opening=0.03, cube=in_tray(0.03)), "close the drawer"),
        # Wrong order: the cube in the hand, the drawer shut.
        (replace(START, tip=(0.2, 0, 0.1), cube=(0.2, 0, 0.1), gripper=0.45), "open the drawer"),
        # On top of the cabinet is not inside.
        (replace(START, opening=0.09, cube=(0.3, DRAWER_Y, CABINET_TOP + CUBE_HALF)), "reach for the cube"),
    ],
)
def test_stage_follows_from_the_state(situation: Situation, stage: str):
    assert STAGES[stage_of(situation)] == stage


def test_success_needs_cube_inside_drawer_shut_and_gripper_away():
    done = replace(START, opening=0.0, cube=in_tray(0.0))
    assert is_success(done)
    assert progress_of(done) == (4, 1.0)
    assert not is_success(replace(done, opening=0.02))
    assert not is_success(replace(done, cube=ON_TABLE))
    assert not is_success(replace(done, cube=(0.3, DRAWER_Y, CABINET_TOP + CUBE_HALF)))
    assert not is_success(replace(done, tip=done.cube, gripper=0.45))


def test_cube_still_in_the_gripper_is_not_yet_stored():
    inside = replace(START, opening=0.09, cube=in_tray(0.09), tip=in_tray(0.09), gripper=0.45)
    assert cube_in_tray(inside)
    assert cube_held(inside)
    assert STAGES[stage_of(inside)] == "carry the cube into the drawer"


def test_dropping_the_cube_sets_progress_back():
    carried = replace(START, opening=0.09, tip=(0.2, 0, 0.1), cube=(0.2, 0, 0.1), gripper=0.45)
    dropped = replace(carried, cube=(0.2, 0, CUBE_HALF), gripper=1.0)
    assert progress_of(dropped)[1] < progress_of(carried)[1] - 0.1


def test_shutting_the_drawer_too_early_sets_progress_back():
    opened = replace(START, opening=0.09)
    assert progress_of(START)[1] < progress_of(opened)[1] - 0.1


def test_shares_of_the_stages_sum_to_one():
    assert len(STAGE_SHARES) == len(STAGES) >= 5
    assert sum(STAGE_SHARES) == pytest.approx(1.0)


places = st.tuples(st.floats(-0.3, 0.5), st.floats(-0.4, 0.4), st.floats(0.0, 0.3))
situations = st.builds(Situation, tip=places, cube=places, opening=st.floats(0, 0.11), gripper=st.floats(0, 1))


@given(situations)
def test_progress_stays_in_its_stage(situation: Situation):
    stage, progress = progress_of(situation)
    before = sum(STAGE_SHARES[:stage])
    assert before - 1e-9 <= progress <= before + STAGE_SHARES[stage] + 1e-9
    assert (progress == 1.0) == is_success(situation)


@given(places, places)
def test_way_left_is_never_shorter_than_the_straight_line(start: tuple, goal: tuple):
    goal = (goal[0], goal[1], min(goal[2], 0.1))
    assert way_left(start, goal) >= math.dist(start, goal) - 1e-9
    assert way_left(goal, goal) == pytest.approx(0, abs=1e-9)


@given(st.floats(0, OPEN_ENOUGH - 1e-6), st.floats(0, OPEN_ENOUGH - 1e-6))
def test_pulling_the_drawer_raises_progress(first: float, second: float):
    low, high = sorted((first, second))
    near = replace(START, tip=(0.254, DRAWER_Y, 0.072))

    def at(opening: float) -> float:
        return progress_of(replace(near, opening=opening, tip=(0.254 - opening, DRAWER_Y, 0.072)))[1]

    assert at(low) <= at(high) + 1e-9
