"""Tidy-drawer with nothing to achieve, to probe reward models with: the operator mimes, or only moves about.

=================  ===================================================================================================
``empty_scene``    the operator goes through the task as ever, and there is no cube in the image
``wrong_object``   the same with a ball or a cylinder of another colour in the cube's place
``hovering_hand``  the hand moves about above the table for a while and touches nothing
=================  ===================================================================================================

In the empty scene the cube is neither seen nor felt: the fingers close on nothing. The wrong object is the cube with
another look, so that it is carried as a cube is. With no cube there, nobody can get beyond reaching for it: the true
stage is at most the second.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError
from robo_policies.envs.base import EnvSettings, TaskState
from robo_policies.envs.demonstrations import Actions
from robo_policies.envs.tidy_drawer import demonstrations
from robo_policies.envs.tidy_drawer.env import TidyDrawerEnv
from robo_policies.envs.tidy_drawer.operator import TRAVEL_HEIGHT, Operator, Style
from robo_policies.envs.tidy_drawer.progress import progress_of
from robo_policies.envs.tidy_drawer.scene import CUBE_HALF

PROBES = ("empty_scene", "wrong_object", "hovering_hand")
# Where the cube is for the truth when it is not in the image: out of reach.
AWAY = (10.0, 10.0, CUBE_HALF)
# Hues that nobody calls red, from yellow over green and blue to violet.
HUES = (0.14, 0.80)
# The hand's room above the table, m.
LOW, HIGH = (0.12, -0.16, TRAVEL_HEIGHT - 0.01), (0.24, 0.12, TRAVEL_HEIGHT + 0.06)


class TidyDrawerProbeEnv(TidyDrawerEnv):
    """Tidy-drawer as one of ``PROBES``.

    Args:
        probe: which one.
        settings: see `EnvSettings`.

    Raises:
        ConfigError: an unknown probe, or what `TidyDrawerEnv` raises.
    """

    def __init__(self, probe: str, **settings: Unpack[EnvSettings]) -> None:
        if probe not in PROBES:
            raise ConfigError(f"there is no probe {probe!r}; choose among: {', '.join(PROBES)}")
        super().__init__(**settings)
        self.probe = probe
        self._geom = self.model.geom("cube").id
        self._shape, self._colour = self._mujoco.mjtGeom.mjGEOM_SPHERE, (0.1, 0.3, 0.9, 1.0)
        if probe == "empty_scene":
            # It stays where it was put, for the operator to reach for, and nothing touches it.
            self.model.geom_contype[self._geom] = self.model.geom_conaffinity[self._geom] = 0
            self.model.body_gravcomp[self.model.body("cube").id] = 1.0

    def draw_object(self, random: np.random.Generator) -> None:
        """Choose shape and colour of the wrong object."""
        geom = self._mujoco.mjtGeom
        self._shape = (geom.mjGEOM_SPHERE, geom.mjGEOM_CYLINDER)[int(random.integers(2))]
        self._colour = (*colorsys.hsv_to_rgb(random.uniform(*HUES), 0.85, 0.85), 1.0)

    def render_cameras(self, cameras: Sequence[str] | None = None) -> dict[str, npt.NDArray[np.uint8]]:
        """Images (H, W, 3) uint8 by key, without the cube or with the wrong object."""
        geom, model = self._geom, self.model
        before = model.geom_rgba[geom].copy(), int(model.geom_type[geom]), model.geom_size[geom].copy()
        if self.probe == "empty_scene":
            model.geom_rgba[geom] = 0
        elif self.probe == "wrong_object":
            model.geom_rgba[geom], model.geom_type[geom] = self._colour, self._shape
            model.geom_size[geom] = 1.1 * CUBE_HALF
        try:
            return super().render_cameras(cameras)
        finally:
            model.geom_rgba[geom], model.geom_type[geom], model.geom_size[geom] = before

    def task_state(self) -> TaskState:
        """Success, stage and progress; with no cube in the scene it counts as out of reach."""
        if self.probe == "hovering_hand":
            return super().task_state()
        return TaskState(False, *progress_of(replace(self.situation(), cube=AWAY)))


def demonstrate(env: TidyDrawerProbeEnv, random: np.random.Generator) -> Actions:
    """Actions of the probe from the environment's present state; step the environment between them."""
    if env.probe == "hovering_hand":
        return _hover(env, random)
    if env.probe == "empty_scene":
        return _mime(env, random)
    env.draw_object(random)
    return demonstrations.demonstrate(env, "clean", random)


def _mime(env: TidyDrawerEnv, random: np.random.Generator) -> Actions:
    operator = Operator(env, random, Style(pace=random.uniform(0.85, 1.15)))
    for part in (operator.open_drawer, operator.reach, operator.grasp, operator.carry, operator.close_drawer):
        yield from part()
    yield from operator.hold(random.uniform(0.5, 2.0))


def _hover(env: TidyDrawerEnv, random: np.random.Generator) -> Actions:
    operator = Operator(env, random, Style(pace=random.uniform(0.7, 1.1), tremor=0.004))
    for _ in range(int(random.integers(8, 14))):
        yield from operator.go([tuple(random.uniform(LOW, HIGH).tolist())])
        if random.random() < 0.3:
            yield from operator.hold(random.uniform(0.3, 1.0))
