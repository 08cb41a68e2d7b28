"""The environments of an evaluation and the seeds of their starts."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium

from robo_core.errors import ConfigError
from robo_policies.envs import make_env
from robo_policies.evaluation.rollouts import Env

EnvSource = str | Callable[[], Env] | Env
"""The name of an environment, a function that makes one, or one environment."""


def start_seed(seed: int, episode: int) -> int:
    """The seed that episode ``episode`` of evaluation ``seed`` is reset with."""
    return seed * 1_000_000 + episode


class EnvironmentPool:
    """Environments made when they are first needed and used again for the next episodes.

    Args:
        env: the name of an environment, a function that makes one, or one environment.
        image_size: pixels of the images of an environment given by name; None for its own.
    """

    def __init__(self, env: EnvSource, image_size: int | None = None) -> None:
        self.single = isinstance(env, gymnasium.Env)
        self._env = env
        self._image_size = image_size
        self._made: list[Env] = [env] if isinstance(env, gymnasium.Env) else []

    def take(self, count: int) -> list[Env]:
        """``count`` environments; an environment that was given is the only one there is."""
        while len(self._made) < count:
            self._made.append(self._make())
        return self._made[:count]

    def close(self) -> None:
        """Close the environments that were made here."""
        if not self.single:
            for env in self._made:
                env.close()

    def _make(self) -> Env:
        if isinstance(self._env, str):
            return make_env(self._env) if self._image_size is None else make_env(self._env, image_size=self._image_size)
        if isinstance(self._env, gymnasium.Env):
            raise ConfigError("one environment cannot run two episodes at once")
        return self._env()
