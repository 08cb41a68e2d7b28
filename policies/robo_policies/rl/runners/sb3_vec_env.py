"""Macro-action environments as Stable-Baselines3's vector environment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from robo_core.errors import ConfigError
from robo_policies.rl.envs.vector_env import MacroActionVectorEnv, StepResult
from robo_policies.rl.types import Floats

Indices: TypeAlias = int | Iterable[int] | None


class MacroActionVecEnv(VecEnv):
    """Macro-actions as steps; episodes that end start again at once, as Stable-Baselines3 expects.

    Args:
        envs: the run resets them.
        record: stores what a step led to and returns its rewards (N,).
    """

    def __init__(self, envs: MacroActionVectorEnv, record: Callable[[StepResult], npt.NDArray[np.float64]]) -> None:
        self._envs, self._record = envs, record
        self.actions: Floats = np.zeros((envs.num_envs, envs.action_size), np.float32)
        super().__init__(
            envs.num_envs,
            spaces.Box(-np.inf, np.inf, (envs.observation_size + 1,), np.float32),
            spaces.Box(-1.0, 1.0, (envs.action_size,), np.float32),
        )

    def reset(self) -> Floats:
        """The present observations; the run has started the episodes."""
        return self._envs.observations()

    def step_async(self, actions: npt.NDArray[np.float32]) -> None:
        """Store the actions (N, A)."""
        self.actions = np.asarray(actions, dtype=np.float32)

    def step_wait(self) -> VecEnvStepReturn:
        """Carry them out."""
        result = self._envs.step(self.actions)
        rewards = self._record(result)
        transitions = result.transitions
        infos: list[dict[str, object]] = [{} for _ in range(self.num_envs)]
        for index in np.flatnonzero(result.done).tolist():
            # The observations returned are the next episode's, so the last one of this episode goes into the info.
            last = np.append(transitions["next_observation"][index], transitions["next_potential"][index])
            infos[index] = {
                "terminal_observation": last.astype(np.float32),
                "TimeLimit.truncated": bool(transitions["truncated"][index]),
            }
        return self._envs.observations(), rewards.astype(np.float32), result.done.copy(), infos

    def close(self) -> None:
        """The run closes its environments."""

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[object]:
        """Attributes of the environments."""
        values = self._envs.envs.get_attr(attr_name)
        return [values[index] for index in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: object, indices: Indices = None) -> None:
        """Nothing can be set from outside."""
        raise ConfigError(f"{attr_name} of an environment cannot be set by the learner")

    def env_method(self, method_name: str, *args: object, indices: Indices = None, **kwargs: object) -> list[object]:
        """Call a method of the environments."""
        values = self._envs.envs.call(method_name, *args, **kwargs)
        return [values[index] for index in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Indices = None) -> list[bool]:
        """No wrapper of Stable-Baselines3's is used."""
        return [False for _ in self._get_indices(indices)]

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Episodes have seeds of their own."""
        return [None] * self.num_envs
