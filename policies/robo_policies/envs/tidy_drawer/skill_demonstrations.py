"""Demonstrations of parts of tidy-drawer, in the same qualities as of the whole.

======================  ==============================================================================================
``clean``, ``slow``     as in the whole task
``wandering``           detours, an unsteady hand, and a missed grasp where there is one
``drop_and_regrasp``    breaks off in mid-way, letting go of what is held, and begins again
``stops_partway``       gives up at some point and keeps still until the recording ends: a failure
``wrong_order``         does another part of the task than the one asked for: a failure
======================  ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robo_policies.envs.demonstrations import Actions, check_quality
from robo_policies.envs.tidy_drawer import scene
from robo_policies.envs.tidy_drawer.demonstrations import BESIDE, ROOF, cut, miss, slow_style
from robo_policies.envs.tidy_drawer.operator import Operator, Style
from robo_policies.envs.tidy_drawer.progress import cube_in_tray
from robo_policies.envs.tidy_drawer.skills import TidyDrawerSkillEnv

_LENGTHS = (60, 45, 32, 55, 75)
"""About how many control steps each part takes an operator of pace 1."""


def demonstrate(env: TidyDrawerSkillEnv, quality: str, random: np.random.Generator) -> Actions:
    """Actions (7,) float32 of one demonstration from the environment's present state; step the env between them.

    Raises:
        ConfigError: ``quality`` is unknown.
        MissingPartError: mink is not installed.
    """
    check_quality(quality)
    return _actions(env, quality, random)


def _actions(env: TidyDrawerSkillEnv, quality: str, random: np.random.Generator) -> Actions:
    style = {
        "slow": lambda: slow_style(random),
        "wandering": lambda: Style(
            pace=random.uniform(0.75, 1.05), tremor=0.004, think_chance=0.3, pause=(0.4, 1.2), detour_chance=0.5
        ),
    }.get(quality, lambda: Style(pace=random.uniform(0.85, 1.15)))()
    operator = Operator(env, random, style)
    length = sum(_LENGTHS[env.first : env.last + 1]) / style.pace
    if quality == "drop_and_regrasp":
        yield from cut(_through(env, operator), random.uniform(0.3, 0.7) * length)
        yield from operator.drop()
        yield from operator.retreat()
        yield from _through(env, operator)
    elif quality == "stops_partway":
        yield from cut(_through(env, operator), random.uniform(0.0, 0.6) * length)
        yield from operator.hold(random.uniform(2.0, 5.0))
    elif quality == "wrong_order":
        yield from _wrong(env, operator)
        yield from operator.hold(random.uniform(0.5, 2.0))
    else:
        if quality == "wandering" and env.first <= 2 <= env.last and random.random() < 0.5:
            yield from miss(operator)
        yield from _through(env, operator)


def _through(env: TidyDrawerSkillEnv, operator: Operator) -> Actions:
    for part in _parts(env, operator):
        yield from part


def _parts(env: TidyDrawerSkillEnv, operator: Operator) -> Iterator[Actions]:
    first, last = env.first, env.last
    if first <= 0 <= last:
        yield operator.open_drawer()
    # Reaching ends where grasping begins, a little way down.
    if first <= 2 and last >= 1:
        yield operator.fetch_cube()
    if first <= 3 <= last:
        for _ in range(3):
            if not operator.holding():
                yield operator.fetch_cube()
            yield operator.carry()
            if cube_in_tray(env.situation()):
                break
    if last == 4:
        yield operator.close_drawer()


def _wrong(env: TidyDrawerSkillEnv, operator: Operator) -> Actions:
    if env.first == 0:
        yield from operator.fetch_cube()
        yield from operator.carry(ROOF)
    elif env.first < 3:
        yield from operator.close_drawer()
    elif env.first == 3:
        yield from operator.carry(BESIDE)
        if env.last == 4:
            yield from operator.close_drawer()
    else:
        yield from operator.open_drawer(scene.DRAWER_TRAVEL)
