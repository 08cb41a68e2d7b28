"""A scripted operator for Meta-World: its expert with the faults of people around it.

The same names as in tidy-drawer:

======================  ==============================================================================================
``clean``               straight through, at a pace that differs between operators
``slow``                slower, and hesitating: mostly when a stage begins, now and then within one
``wandering``           detours from the way, an unsteady hand, some hesitation
``drop_and_regrasp``    lets go of the object on its way and draws the hand back, once or twice; then continues
``stops_partway``       the operator gives up at some point and keeps still until the recording ends: a failure
``wrong_order``         the hand goes where the object should come to before it has the object (where nothing is
                        grasped: the other way), and leaves it at that: a failure
======================  ==============================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robo_policies.envs.demonstrations import QUALITIES, Actions, check_quality
from robo_policies.envs.metaworld.env import MetaWorldEnv
from robo_policies.envs.metaworld.tasks import GRASPING

LONGEST_SECONDS = 14.0
"""After this the operator has tried for long enough, whatever the quality."""
GRIP_OPEN = -1.0
ABOVE = 0.07
"""Horizontal distance (m) from the object at which the hand counts as over it."""


@dataclass(frozen=True)
class Style:
    """How an operator moves; drawn per episode.

    ``pace``: limit of the hand's speed along each axis, where 1 is the expert's own. ``tremor``: standard deviation of
    what the hand adds to each axis of the action. ``think_chance`` when a stage begins and ``pause_chance`` per second;
    ``pause``: range of both, s. ``detour_chance`` per second.
    """

    pace: float = 0.7
    tremor: float = 0.04
    think_chance: float = 0.0
    pause_chance: float = 0.0
    pause: tuple[float, float] = (0.5, 2.0)
    detour_chance: float = 0.0


def demonstrate(env: MetaWorldEnv, quality: str, random: np.random.Generator) -> Actions:
    """Actions (4,) float32 of one demonstration from the environment's present state; step the env between them.

    Raises:
        ConfigError: ``quality`` is unknown.
    """
    check_quality(quality)
    return _SCRIPTS[quality](env, random)


class Operator:
    """Drives one environment with its expert; every random draw comes from ``random``."""

    def __init__(self, env: MetaWorldEnv, random: np.random.Generator, style: Style) -> None:
        self.env, self.random, self.style = env, random, style
        self._wander: np.ndarray = np.zeros(3)
        self._grip = GRIP_OPEN
        self._stage = -1

    def work(self, until: Callable[[float], bool] = lambda progress: False) -> Actions:
        """Follow the expert until ``until(progress)``, or until it takes too long."""
        for _ in range(round(LONGEST_SECONDS * self.env.fps)):
            _, stage, progress = self.env.task_state()
            if until(progress):
                return
            begun, self._stage = stage > self._stage, stage
            second = 1.0 / self.env.fps
            if (begun and self._happens(self.style.think_chance)) or self._happens(self.style.pause_chance * second):
                yield from self.hold(self.random.uniform(*self.style.pause))
            if self._happens(self.style.detour_chance * second):
                yield from self.detour()
            wanted = self.env.expert_action()
            self._grip = float(wanted[3])
            yield self._action(self._slowed(wanted[:3]))

    def hold(self, seconds: float) -> Actions:
        """Keep still, but for the tremor, with the grip as it is."""
        for _ in range(max(1, round(seconds * self.env.fps))):
            yield self._action(np.zeros(3), tremor=0.2)

    def detour(self) -> Actions:
        """Leave the way in some direction, upwards rather than down, and look around."""
        way = self.random.normal(size=3)
        way[2] = abs(way[2])
        yield from self.drift(way / np.linalg.norm(way) * self.style.pace, self.random.uniform(0.3, 0.8))
        yield from self.hold(self.random.uniform(0.1, 0.5))

    def drift(self, speed: np.ndarray, seconds: float) -> Actions:
        """Move along ``speed`` (3,), the xyz of an action, for some time."""
        for _ in range(max(1, round(seconds * self.env.fps))):
            yield self._action(speed)

    def let_go(self) -> Actions:
        """Open the grip and draw the hand back, up and away from the goal."""
        self._grip = GRIP_OPEN
        back = self.env.hand() - self.env.goal()
        back[2] = max(back[2], 0.0) + 0.05
        yield from self.hold(0.2)
        yield from self.drift(0.6 * back / (np.linalg.norm(back) + 1e-6), self.random.uniform(0.25, 0.5))
        yield from self.hold(self.random.uniform(0.1, 0.6))

    def go_to(self, place: np.ndarray, seconds: float) -> Actions:
        """Bring the hand towards ``place`` (3,) m for at most ``seconds``, whatever the object does."""
        for _ in range(round(seconds * self.env.fps)):
            left = place - self.env.hand()
            if np.linalg.norm(left) < 0.02:
                return
            yield self._action(self._slowed(10.0 * left))

    def _slowed(self, way: np.ndarray) -> np.ndarray:
        # The experts close the grip while they descend, so over the object, until it is held, they keep their own
        # speed; and a limit, not a factor, leaves their fine motions the strength to overcome friction.
        descending = np.linalg.norm(self.env.object_from_fingers()[:2]) < ABOVE
        if descending and self.env.task_state().stage < len(self.env.stages) - 1:
            return np.clip(way, -1.0, 1.0)
        fastest = float(np.abs(way).max())
        return way * min(1.0, self.style.pace / max(fastest, 1e-6))

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self.random.random() < chance

    def _action(self, way: np.ndarray, tremor: float = 1.0) -> np.ndarray:
        # An Ornstein-Uhlenbeck wander with a time constant of about a third of a second, as a hand has.
        keep = math.exp(-3.0 / self.env.fps)
        drawn = math.sqrt(1 - keep**2) * self.random.standard_normal(3)
        self._wander = keep * self._wander + drawn * self.style.tremor
        return np.append(np.clip(way + tremor * self._wander, -1.0, 1.0), self._grip).astype(np.float32)


def _clean(env: MetaWorldEnv, random: np.random.Generator) -> Actions:
    yield from Operator(env, random, Style(pace=random.uniform(0.6, 0.9))).work()


def _slow(env: MetaWorldEnv, random: np.random.Generator) -> Actions:
    yield from Operator(env, random, _slow_style(random)).work()


def _wandering(env: MetaWorldEnv, random: np.random.Generator) -> Actions:
    style = Style(
        pace=random.uniform(0.55, 0.85),
        tremor=0.12,
        think_chance=0.3,
        pause=(0.3, 1.0),
        detour_chance=random.uniform(0.4, 1.0),
    )
    yield from Operator(env, random, style).work()


def _drop_and_regrasp(env: MetaWorldEnv, random: np.random.Generator) -> Actions:
    operator = Operator(env, random, Style(pace=random.uniform(0.6, 0.85), think_chance=0.2))
    for _ in range(1 + (random.random() < 0.35)):
        # With one stage only there is nothing to lose: it draws back halfway.
        given_up_at = random.uniform(0.3, 0.7) if len(env.stages) == 1 else random.uniform(0.55, 0.8)
        yield from operator.work(until=lambda progress, limit=given_up_at: progress > limit)  # type: ignore[misc]
        yield from operator.let_go()
    yield from operator.work()


def _stops_partway(env: MetaWorldEnv, random: np.random.Generator) -> Actions:
    style = _slow_style(random) if random.random() < 0.4 else Style(pace=random.uniform(0.6, 0.85))
    operator = Operator(env, random, style)
    limit = random.uniform(0.1, 0.75)
    yield from operator.work(until=lambda progress: progress > limit)
    yield from operator.hold(random.uniform(3.0, 6.0))


def _wrong_order(env: MetaWorldEnv, random: np.random.Generator) -> Actions:
    operator = Operator(env, random, Style(pace=random.uniform(0.6, 0.85), think_chance=0.3))
    if random.random() < 0.5:
        yield from operator.work(until=lambda progress: progress > 0.2)
    place = env.goal() + np.array([0.0, 0.0, 0.12])
    if env.stages != GRASPING:
        # There the goal lies behind what is pushed, or is the hand's own; the wrong place is the opposite one.
        place = env.hand() - (env.goal() - env.hand())
    yield from operator.go_to(place, random.uniform(1.0, 2.0))
    yield from operator.hold(random.uniform(0.5, 2.0))


def _slow_style(random: np.random.Generator) -> Style:
    return Style(pace=random.uniform(0.3, 0.5), tremor=0.06, think_chance=0.8, pause_chance=0.15, pause=(0.5, 2.0))


_SCRIPTS: dict[str, Callable[[MetaWorldEnv, np.random.Generator], Actions]] = dict(
    zip(QUALITIES, (_clean, _slow, _wandering, _drop_and_regrasp, _stops_partway, _wrong_order), strict=True)
)
