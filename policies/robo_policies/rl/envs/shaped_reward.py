"""Gymnasium wrappers that return the shaped reward of `robo_rm.shaping`: for one environment, and for a vector.

The potential is subtracted in `robo_rm.shaping.potential_based.shaped_reward`; these wrappers supply its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsFloat, cast

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from robo_core.errors import ConfigError
from robo_policies.rl.envs.macro_action import camera_name
from robo_rm.shaping.modes import ShapingSettings, Transitions, check_plain, compose_reward
from robo_rm.shaping.potential import TRUE_PROGRESS, Potential
from robo_rm.shaping.potential_based import check_discount, macro_action_reward

POTENTIAL = "potential"
"""Key of the potential in dictionaries of observations."""


class ShapedReward(gymnasium.Wrapper[object, object, object, object]):
    """One environment whose actions are held for ``action_repeat`` steps, with the shaped reward.

    The observation gains the potential, on which the shaped reward depends (key ``potential`` of a dictionary, last
    entry of a vector). ``info`` gains ``task_reward`` (discounted sum over the steps), ``potential``,
    ``next_potential`` and ``steps``, the number of steps really taken. A terminal state is not scored, the last
    state before a time limit is.

    Args:
        env: the environment; its reward is the task reward.
        potential: for one environment, scored every ``action_repeat`` steps.
        discount: g of the learner for one environment step. The learner discounts a step of this wrapper by g^steps.
        settings: mode and scale.
        action_repeat: environment steps that an action is held.

    Raises:
        ConfigError: bad discount, mode or action_repeat; observations that are neither a dictionary nor a vector.
    """

    def __init__(
        self,
        env: gymnasium.Env[object, object],
        potential: Potential,
        discount: float,
        settings: ShapingSettings | None = None,
        action_repeat: int = 1,
    ) -> None:
        super().__init__(env)
        check_discount(discount)
        self._settings = settings or ShapingSettings()
        check_plain(self._settings)
        if action_repeat < 1:
            raise ConfigError(f"action_repeat={action_repeat}: give 1 step or more")
        self._potential, self._discount, self._action_repeat = potential, discount, action_repeat
        self._phi, self._start_phi = 0.0, 0.0
        self.observation_space = _with_potential_space(env.observation_space)

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[object, dict[str, object]]:
        """Start an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._potential.begin(_ONLY)
        self._phi = self._start_phi = self._score(observation, info)
        return _with_potential(observation, self._phi), {**info, "potential": self._phi}

    def step(self, action: object) -> tuple[object, SupportsFloat, bool, bool, dict[str, object]]:
        """Hold the action for ``action_repeat`` steps, or until the episode ends."""
        rewards: list[float] = []
        terminated = truncated = False
        while len(rewards) < self._action_repeat and not (terminated or truncated):
            observation, reward, terminated, truncated, info = self.env.step(action)
            rewards.append(float(reward))
        # Phi of a terminal state is 0, whatever the model would say of it.
        next_phi = 0.0 if terminated else self._score(observation, info)
        task_reward = macro_action_reward(rewards, self._discount)
        transition = Transitions(
            task_reward=np.array([task_reward]),
            potential=np.array([self._phi]),
            next_potential=np.array([next_phi]),
            start_potential=np.array([self._start_phi]),
            terminated=np.array([terminated]),
            truncated=np.array([truncated]),
            steps=np.array([len(rewards)]),
        )
        shaped = float(compose_reward(self._settings, transition, self._discount)[0])
        phis = {"potential": self._phi, "next_potential": next_phi}
        self._phi = next_phi
        info = {**info, "task_reward": task_reward, **phis, "steps": len(rewards)}
        return _with_potential(observation, next_phi), shaped, bool(terminated), bool(truncated), info

    def _score(self, observation: object, info: Mapping[str, object]) -> float:
        inputs: dict[str, npt.NDArray[np.generic]] = {}
        if isinstance(observation, Mapping):
            inputs = {key: np.asarray(value)[None] for key, value in observation.items()}
        missing = [key for key in self._potential.cameras if key not in inputs]
        if missing:
            images = _render(self.env.unwrapped, missing)
            inputs |= {key: image[None] for key, image in images.items()}
        if "progress" in info:
            inputs[TRUE_PROGRESS] = np.array([info["progress"]], dtype=np.float64)
        return float(self._potential.score(inputs, _ONLY)[0])


class ShapedVectorReward(gymnasium.vector.VectorWrapper):
    """A vector of environments with the shaped reward, exact in both auto-reset modes.

    NEXT_STEP: the step after an episode's end only resets. Its row is not a transition: its reward is 0, and
    ``infos["transition"]`` (N,) is False there; a learner must leave it out. SAME_STEP: the observation returned at an
    episode's end is already the next episode's; the potential of the old one's end is that of ``infos["final_obs"]``.

    ``infos`` gains ``task_reward``, ``potential``, ``next_potential`` and ``transition``, each (N,). The observations
    gain the potential as in `ShapedReward`. Where the environments themselves hold actions for several steps, wrap
    them one by one instead.

    Args:
        env: the vector environment; its rewards are the task rewards.
        potential: for ``env.num_envs`` environments.
        discount: g of the learner for one step.
        settings: mode and scale.

    Raises:
        ConfigError: bad discount or mode; auto-reset switched off; observations neither dictionary nor vector;
            SAME_STEP with a potential whose cameras are not among the observations (a final image cannot be rendered
            after the reset).
    """

    def __init__(
        self,
        env: gymnasium.vector.VectorEnv[object, object, object],
        potential: Potential,
        discount: float,
        settings: ShapingSettings | None = None,
    ) -> None:
        super().__init__(env)
        check_discount(discount)
        self._settings = settings or ShapingSettings()
        check_plain(self._settings)
        self._mode = env.metadata.get("autoreset_mode")
        if self._mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
            raise ConfigError(f"the vector environment resets in mode {self._mode}; use NEXT_STEP or SAME_STEP")
        space = env.single_observation_space
        keys = set(space.spaces) if isinstance(space, spaces.Dict) else set()
        missing = [key for key in potential.cameras if key not in keys]
        if missing and self._mode is AutoresetMode.SAME_STEP:
            raise ConfigError(
                f"the potential reads {missing[0]}, which the observations lack, and after a reset in the same step "
                "the final image cannot be rendered; make the environments with that camera, or use NEXT_STEP"
            )
        self._potential, self._discount = potential, discount
        self._phi = np.zeros(env.num_envs)
        self._start_phi = np.zeros(env.num_envs)
        self._ended = np.zeros(env.num_envs, dtype=bool)
        self.single_observation_space = _with_potential_space(space)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, env.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[object, dict[str, object]]:
        """Start an episode in every environment."""
        observations, infos = self.env.reset(seed=seed, options=options)
        everyone = np.arange(self.num_envs)
        self._begin(observations, infos, everyone)
        self._ended[:] = False
        return _with_potential(observations, self._phi), {**infos, "potential": self._phi.copy()}

    def step(
        self, actions: object
    ) -> tuple[object, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, object]]:
        """One step of every environment."""
        observations, task_rewards, terminated, truncated, infos = self.env.step(actions)
        resets = self._ended if self._mode is AutoresetMode.NEXT_STEP else np.zeros(self.num_envs, dtype=bool)
        ended = terminated | truncated
        phi, next_phi = self._phi.copy(), np.zeros(self.num_envs)
        # Score the returned observation where the step led to it and it is not terminal; Phi is 0 elsewhere.
        same_step = self._mode is AutoresetMode.SAME_STEP
        plain = np.flatnonzero(~resets & ~terminated & ~(truncated & same_step))
        next_phi[plain] = self._score(observations, infos, plain)
        if same_step:
            cut = np.flatnonzero(truncated & ~terminated)
            next_phi[cut] = self._score_final(infos, cut)
        shaped = compose_reward(
            self._settings,
            Transitions(
                np.where(resets, 0.0, task_rewards), phi, next_phi, self._start_phi.copy(), terminated, truncated,
                np.ones(self.num_envs, dtype=np.int64),
            ),
            self._discount,
        )  # fmt: skip
        self._phi = next_phi.copy()
        begun = np.flatnonzero(ended if same_step else resets)
        self._begin(observations, infos, begun)
        self._ended = ended & ~resets
        infos = {
            **infos,
            "task_reward": np.where(resets, 0.0, task_rewards),
            "potential": phi,
            "next_potential": next_phi,
            "transition": ~resets,
        }
        return _with_potential(observations, self._phi), np.where(resets, 0.0, shaped), terminated, truncated, infos

    def _begin(self, observations: object, infos: Mapping[str, object], which: npt.NDArray[np.int64]) -> None:
        if len(which):
            self._potential.begin(which)
            self._phi[which] = self._score(observations, infos, which)
            self._start_phi[which] = self._phi[which]

    def _score(
        self, observations: object, infos: Mapping[str, object], which: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        if not len(which):
            return np.zeros(0)
        inputs: dict[str, npt.NDArray[np.generic]] = {}
        if isinstance(observations, Mapping):
            inputs = {key: np.asarray(value)[which] for key, value in observations.items()}
        missing = [key for key in self._potential.cameras if key not in inputs]
        if missing:
            vector = cast("SyncVectorEnv | AsyncVectorEnv", self.env)
            views = vector.call("render_cameras", tuple(camera_name(key) for key in missing))
            inputs |= {key: np.stack([views[i][key] for i in which.tolist()]) for key in missing}
        if "progress" in infos:
            inputs[TRUE_PROGRESS] = np.asarray(infos["progress"], dtype=np.float64)[which]
        return self._potential.score(inputs, which)

    def _score_final(self, infos: Mapping[str, object], which: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        if not len(which):
            return np.zeros(0)
        finals = cast("npt.NDArray[np.object_]", infos["final_obs"])[which].tolist()
        inputs: dict[str, npt.NDArray[np.generic]] = {}
        if isinstance(finals[0], Mapping):
            inputs = {key: np.stack([final[key] for final in finals]) for key in finals[0]}
        final_infos = cast("Mapping[str, npt.NDArray[np.float64]]", infos.get("final_info", {}))
        if "progress" in final_infos:
            inputs[TRUE_PROGRESS] = np.asarray(final_infos["progress"], dtype=np.float64)[which]
        return self._potential.score(inputs, which)


_ONLY = np.zeros(1, dtype=np.int64)


def _render(env: object, keys: list[str]) -> Mapping[str, npt.NDArray[np.uint8]]:
    if not hasattr(env, "render_cameras"):
        raise ConfigError(f"the potential reads {keys[0]}, which this environment neither observes nor can render")
    images: Mapping[str, npt.NDArray[np.uint8]] = env.render_cameras(tuple(camera_name(key) for key in keys))
    return images


def _with_potential_space(space: spaces.Space[object]) -> spaces.Space[object]:
    potential = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    if isinstance(space, spaces.Dict):
        return spaces.Dict({**space.spaces, POTENTIAL: potential})
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        low, high = np.append(space.low, -np.inf), np.append(space.high, np.inf)
        return spaces.Box(low.astype(space.dtype), high.astype(space.dtype), dtype=space.dtype.type)
    raise ConfigError(f"observations must be a dictionary or a vector of numbers, not {space}")


def _with_potential(observation: object, potential: object) -> object:
    """The observation (of one environment or of N) with the potential (a number, or (N,)) added."""
    if isinstance(observation, Mapping):
        return {**observation, POTENTIAL: np.asarray(potential, dtype=np.float32)[..., None]}
    values = np.asarray(observation)
    return np.concatenate([values, np.asarray(potential, dtype=values.dtype)[..., None]], axis=-1)
