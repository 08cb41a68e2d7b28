"""How well a demonstration of tidy-drawer goes: from clean to a part left undone, as uneven teleoperation has it.

======================  ==============================================================================================
``clean``               straight through, at a pace that differs between operators
``slow``                slower, and hesitating: mostly between two parts of the task, now and then within a motion
``wandering``           detours from the way, missed grasps, some hesitation
``drop_and_regrasp``    the gripper opens in mid-carry, once or twice; the cube is fetched again
``stops_partway``       the operator gives up at some point and keeps still until the recording ends: a failure
``wrong_order``         cube first with the drawer shut, drawer shut too early, or the cube left beside it: a failure
======================  ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np

from robo_policies.envs.demonstrations import QUALITIES, Actions, check_quality
from robo_policies.envs.tidy_drawer import scene
from robo_policies.envs.tidy_drawer.env import TidyDrawerEnv
from robo_policies.envs.tidy_drawer.operator import GRIP_OPEN, GRIP_SHUT, TRAVEL_HEIGHT, Operator, Style
from robo_policies.envs.tidy_drawer.progress import cube_in_tray

ROOF = (scene.DRAWER_FRONT_X + 0.03, scene.DRAWER_Y, scene.CABINET_TOP + scene.CUBE_HALF)
BESIDE = (0.20, -0.02, scene.CUBE_HALF)


def demonstrate(env: TidyDrawerEnv, quality: str, random: np.random.Generator) -> Actions:
    """Actions (7,) float32 of one demonstration from the environment's present state; step the env between them.

    Raises:
        ConfigError: ``quality`` is unknown.
        MissingPartError: mink is not installed.
    """
    check_quality(quality)
    return _SCRIPTS[quality](env, random)


def _clean(env: TidyDrawerEnv, random: np.random.Generator) -> Actions:
    yield from _through(Operator(env, random, Style(pace=random.uniform(0.85, 1.15))))


def _slow(env: TidyDrawerEnv, random: np.random.Generator) -> Actions:
    yield from _through(Operator(env, random, slow_style(random)))


def _wandering(env: TidyDrawerEnv, random: np.random.Generator) -> Actions:
    style = Style(
        pace=random.uniform(0.75, 1.05),
        tremor=0.004,
        think_chance=0.3,
        pause=(0.4, 1.2),
        detour_chance=random.uniform(0.3, 0.7),
    )
    operator = Operator(env, random, style)
    yield from operator.open_drawer()
    if random.random() < 0.5:
        yield from miss(operator)
    yield from operator.store_cube()
    yield from operator.close_drawer()


def _drop_and_regrasp(env: TidyDrawerEnv, random: np.random.Generator) -> Actions:
    operator = Operator(env, random, Style(pace=random.uniform(0.8, 1.1), think_chance=0.2))
    yield from operator.open_drawer()
    for _ in range(1 + (random.random() < 0.35)):
        yield from operator.fetch_cube()
        yield from cut(operator.carry(), int(random.integers(6, 22)) / operator.style.pace)
        yield from operator.drop()
        if cube_in_tray(env.situation()):
            break
    if not cube_in_tray(env.situation()):
        yield from operator.store_cube()
    yield from operator.close_drawer()


def _stops_partway(env: TidyDrawerEnv, random: np.random.Generator) -> Actions:
    style = slow_style(random) if random.random() < 0.4 else Style(pace=random.uniform(0.8, 1.1))
    operator = Operator(env, random, style)
    parts = (operator.open_drawer, operator.reach, operator.grasp, operator.carry, operator.close_drawer)
    last = int(random.integers(0, len(parts)))
    for part in parts[:last]:
        yield from part()
    # Closing is cut early, before the drawer can be home.
    longest = 20 if last == len(parts) - 1 else 45
    yield from cut(parts[last](), int(random.integers(0, longest)) / style.pace)
    yield from operator.hold(random.uniform(5.0, 12.0))


def _wrong_order(env: TidyDrawerEnv, random: np.random.Generator) -> Actions:
    operator = Operator(env, random, Style(pace=random.uniform(0.7, 1.1), think_chance=0.3))
    variant = random.choice(["cube_first", "shut_too_early", "left_beside", "put_back"], p=[0.4, 0.2, 0.2, 0.2])
    if variant == "cube_first":
        yield from operator.fetch_cube()
        opens_then = random.random() < 0.5
        yield from operator.carry(BESIDE if opens_then else ROOF)
        if opens_then:
            yield from operator.open_drawer()
    elif variant == "shut_too_early":
        yield from operator.open_drawer()
        yield from operator.close_drawer()
        yield from operator.fetch_cube()
        yield from operator.carry(ROOF)
    elif variant == "left_beside":
        yield from operator.open_drawer()
        yield from operator.fetch_cube()
        yield from operator.carry(BESIDE)
        yield from operator.close_drawer()
    else:
        x, y, _ = env.situation().cube
        yield from operator.fetch_cube()
        yield from operator.carry((x, y, scene.CUBE_HALF))
        yield from operator.open_drawer()
        yield from operator.close_drawer()
    yield from operator.hold(random.uniform(0.5, 2.0))


def slow_style(random: np.random.Generator) -> Style:
    """Of an operator who is slow and hesitates."""
    return Style(
        pace=random.uniform(0.6, 0.85),
        tremor=0.003,
        pause_chance=0.004,
        think_chance=0.8,
        pause=(0.5, 2.5),
    )


def _through(operator: Operator) -> Actions:
    yield from operator.open_drawer()
    yield from operator.store_cube()
    yield from operator.close_drawer()


def miss(operator: Operator) -> Actions:
    """Close beside or above the cube, then rise and open again."""
    yield from operator.reach()
    x, y, z = operator.env.situation().cube
    side = operator.random.choice([-1.0, 1.0]) * 0.035
    yield from operator.go([(x, y + side, z + 0.03)], pace=0.8)
    yield from operator.grip(GRIP_SHUT)
    yield from operator.go([(x, y + side, TRAVEL_HEIGHT)])
    yield from operator.grip(GRIP_OPEN)


def cut(actions: Actions, steps: float) -> Actions:
    """The first ``steps`` of ``actions``."""
    yield from islice(actions, int(steps))


_SCRIPTS: dict[str, Callable[[TidyDrawerEnv, np.random.Generator], Actions]] = dict(
    zip(QUALITIES, (_clean, _slow, _wandering, _drop_and_regrasp, _stops_partway, _wrong_order), strict=True)
)
