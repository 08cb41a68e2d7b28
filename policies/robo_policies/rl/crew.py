"""Worlds that carry out whole decisions, in this process or in another: what `DecisionWorlds` steps.

Carrying out is split in two, ``start`` and ``finish``, so that worlds in other processes work while this one learns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt

from robo_core.errors import ModelError

Floats = npt.NDArray[np.float32]

STATE = "observation.state"
ENVIRONMENT_STATE = "observation.environment_state"


@dataclass(frozen=True)
class Carried:
    """What a reset or a decision came to.

    Attributes:
        observation: the last one, by key.
        info: the last one.
        golds: reward of each control step taken; empty for a reset.
        terminated: the task ended.
        truncated: the time ended, and not the task.
        pictures: (H, W, 3) uint8 by key, of the cameras asked for; none where the task ended.
    """

    observation: Mapping[str, npt.NDArray[Any]]
    info: dict[str, Any]
    golds: list[float] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False
    pictures: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)


class Member(Protocol):
    """One world of a crew."""

    def start_reset(self, seed: int, cameras: Sequence[str]) -> None:
        """Begin an episode; `finish` tells the rest."""

    def start(self, commands: Floats, cameras: Sequence[str]) -> None:
        """Carry out commands (k, A) until they or the episode end; `finish` tells the rest."""

    def finish(self) -> Carried:
        """What the last start came to.

        Raises:
            ModelError: an observation is not finite, or the world's process failed.
        """


class LocalWorld:
    """A world in this process, which works when it is finished with."""

    def __init__(self, world: gymnasium.Env[Any, Any]) -> None:
        self._world = world
        self._asked: tuple[int | Floats, Sequence[str]] = (0, ())

    def start_reset(self, seed: int, cameras: Sequence[str]) -> None:
        """Remember what to do."""
        self._asked = (seed, cameras)

    def start(self, commands: Floats, cameras: Sequence[str]) -> None:
        """Remember what to do."""
        self._asked = (commands, cameras)

    def finish(self) -> Carried:
        """Do it."""
        asked, cameras = self._asked
        if isinstance(asked, int):
            return begin(self._world, asked, cameras)
        return carry_out(self._world, asked, cameras)


def begin(world: gymnasium.Env[Any, Any], seed: int, cameras: Sequence[str]) -> Carried:
    """Reset a world and look at it with the cameras given."""
    observation, info = world.reset(seed=seed)
    return Carried(observation, info, pictures=_pictures(world, cameras))


def carry_out(world: gymnasium.Env[Any, Any], commands: Floats, cameras: Sequence[str]) -> Carried:
    """Step a world through commands (k, A) until they or the episode end; look at it once, at the end.

    Raises:
        ModelError: an observation is not finite.
    """
    golds: list[float] = []
    observation: Mapping[str, Any] = {}
    info: dict[str, Any] = {}
    terminated = truncated = False
    for command in commands:
        observation, reward, terminated, truncated, info = world.step(command)
        golds.append(float(reward))
        # A number that is none must not hide between two decisions.
        flat(observation)
        if terminated or truncated:
            break
    # What a terminal state looks like counts for nothing.
    pictures = {} if terminated else _pictures(world, cameras)
    return Carried(observation, info, golds, bool(terminated), bool(truncated and not terminated), pictures)


def flat(observation: Mapping[str, npt.NDArray[Any]]) -> Floats:
    """The state and, where there is one, the environment's state, as one vector.

    Raises:
        ModelError: a value is not finite; learning from it would spoil everything.
    """
    keys = [key for key in (STATE, ENVIRONMENT_STATE) if key in observation]
    vector = np.concatenate([np.asarray(observation[key], dtype=np.float32).ravel() for key in keys])
    if not np.isfinite(vector).all():
        place = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise ModelError(f"value {place} of the observation ({' + '.join(keys)}) is {vector[place]}")
    return vector


def _pictures(world: gymnasium.Env[Any, Any], cameras: Sequence[str]) -> Mapping[str, npt.NDArray[np.uint8]]:
    inner: Any = world.unwrapped
    return inner.render_cameras(tuple(cameras)) if cameras else {}
