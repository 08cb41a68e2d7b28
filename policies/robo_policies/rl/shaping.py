"""Gymnasium wrappers that give the shaped reward of `robo_rm.shaping`, for one environment and for a vector of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from robo_core.errors import ConfigError
from robo_rm.shaping.core import check_discount, decision_gold
from robo_rm.shaping.modes import Decisions, ShapingSettings, check_plain, compose_reward
from robo_rm.shaping.potential import TRUE_PROGRESS, Potential

POTENTIAL = "potential"
"""Key under which the potential is shown to the critic, in dictionaries of observations."""


class ShapedReward(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One environment with decisions of ``repeat`` steps, rewarded by gold and the potential.

    The observation gains the potential, on which the shaped reward depends (key ``potential`` of a dictionary, last
    entry of a vector). ``info`` gains ``gold`` (discounted sum over the decision), ``potential``, ``next_potential``
    and ``steps``. A decision that the episode's end cuts short counts the steps it took; at a terminal state the model
    is not asked, at a time limit it is.

    Args:
        env: the environment; its reward is taken for gold.
        potential: for one environment, looking every ``repeat`` steps.
        discount: g of the learner for one environment step. The learner discounts a decision by g^steps.
        settings: mode and scale.
        repeat: environment steps that an action is held.

    Raises:
        ConfigError: bad discount, mode or repeat; observations that are neither a dictionary nor a vector.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        potential: Potential,
        discount: float,
        settings: ShapingSettings | None = None,
        repeat: int = 1,
    ) -> None:
        super().__init__(env)
        check_discount(discount)
        self._settings = settings or ShapingSettings()
        check_plain(self._settings)
        if repeat < 1:
            raise ConfigError(f"repeat={repeat}: an action is held for one step at least")
        self._potential, self._discount, self._repeat = potential, discount, repeat
        self._here, self._start = 0.0, 0.0
        self.observation_space = _with_potential_space(env.observation_space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._potential.begin(_ONLY)
        self._here = self._start = self._score(observation, info)
        return _with_potential(observation, self._here), {**info, "potential": self._here}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Hold the action for ``repeat`` steps, or until the episode ends."""
        golds: list[float] = []
        terminated = truncated = False
        while len(golds) < self._repeat and not (terminated or truncated):
            observation, reward, terminated, truncated, info = self.env.step(action)
            golds.append(float(reward))
        after = 0.0 if terminated else self._score(observation, info)
        gold = decision_gold(golds, self._discount)
        decision = Decisions(
            gold=np.array([gold]),
            potential=np.array([self._here]),
            next_potential=np.array([after]),
            start_potential=np.array([self._start]),
            terminated=np.array([terminated]),
            truncated=np.array([truncated]),
            steps=np.array([len(golds)]),
        )
        shaped = float(compose_reward(self._settings, decision, self._discount)[0])
        told = {**info, "gold": gold, "potential": self._here, "next_potential": after, "steps": len(golds)}
        self._here = after
        return _with_potential(observation, after), shaped, bool(terminated), bool(truncated), told

    def _score(self, observation: Any, info: Mapping[str, Any]) -> float:
        seen: dict[str, npt.NDArray[Any]] = {}
        if isinstance(observation, Mapping):
            seen = {key: np.asarray(value)[None] for key, value in observation.items()}
        unseen = [key for key in self._potential.cameras if key not in seen]
        if unseen:
            images = _render(self.env.unwrapped, unseen)
            seen |= {key: image[None] for key, image in images.items()}
        if "progress" in info:
            seen[TRUE_PROGRESS] = np.array([info["progress"]], dtype=np.float64)
        return float(self._potential.score(seen, _ONLY)[0])


class ShapedVectorReward(gymnasium.vector.VectorWrapper):
    """A vector of environments, rewarded by gold and the potential, exact in both auto-reset modes.

    NEXT_STEP: the step after an episode's end only resets. Its row is no transition: its reward is 0, and
    ``infos["transition"]`` (N,) is False there; a learner must leave it out. SAME_STEP: the observation returned at an
    episode's end is already the next episode's; the potential of the old one's end is that of ``infos["final_obs"]``.

    ``infos`` gains ``gold``, ``potential``, ``next_potential`` and ``transition``, each (N,). The observations gain the
    potential as in `ShapedReward`. Where the environments themselves hold actions for several steps, wrap them one by
    one instead.

    Args:
        env: the vector environment; its rewards are taken for gold.
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
        env: gymnasium.vector.VectorEnv[Any, Any, Any],
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
        shown = env.single_observation_space
        keys = set(shown.spaces) if isinstance(shown, spaces.Dict) else set()
        unseen = [key for key in potential.cameras if key not in keys]
        if unseen and self._mode is AutoresetMode.SAME_STEP:
            raise ConfigError(
                f"the potential looks at {unseen[0]}, which the observations lack, and after a reset in the same step "
                "the final image cannot be rendered; make the environments with that camera, or use NEXT_STEP"
            )
        self._potential, self._discount = potential, discount
        self._here = np.zeros(env.num_envs)
        self._start = np.zeros(env.num_envs)
        self._ended = np.zeros(env.num_envs, dtype=bool)
        self.single_observation_space = _with_potential_space(shown)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, env.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every environment."""
        observations, infos = self.env.reset(seed=seed, options=options)
        everyone = np.arange(self.num_envs)
        self._begin(observations, infos, everyone)
        self._ended[:] = False
        return _with_potential(observations, self._here), {**infos, "potential": self._here.copy()}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step of every environment."""
        observations, golds, terminated, truncated, infos = self.env.step(actions)
        resets = self._ended if self._mode is AutoresetMode.NEXT_STEP else np.zeros(self.num_envs, dtype=bool)
        ended = terminated | truncated
        before, after = self._here.copy(), np.zeros(self.num_envs)
        # Where the observation returned is the one that the step led to, and it is not a terminal state.
        same_step = self._mode is AutoresetMode.SAME_STEP
        plain = np.flatnonzero(~resets & ~terminated & ~(truncated & same_step))
        after[plain] = self._score(observations, infos, plain)
        if same_step:
            cut = np.flatnonzero(truncated & ~terminated)
            after[cut] = self._score_final(infos, cut)
        shaped = compose_reward(
            self._settings,
            Decisions(
                np.where(resets, 0.0, golds), before, after, self._start.copy(), terminated, truncated,
                np.ones(self.num_envs, dtype=np.int64),
            ),
            self._discount,
        )  # fmt: skip
        self._here = after.copy()
        begun = np.flatnonzero(ended if same_step else resets)
        self._begin(observations, infos, begun)
        self._ended = ended & ~resets
        told = {
            **infos,
            "gold": np.where(resets, 0.0, golds),
            "potential": before,
            "next_potential": after,
            "transition": ~resets,
        }
        return _with_potential(observations, self._here), np.where(resets, 0.0, shaped), terminated, truncated, told

    def _begin(self, observations: Any, infos: Mapping[str, Any], which: npt.NDArray[np.int64]) -> None:
        if len(which):
            self._potential.begin(which)
            self._here[which] = self._score(observations, infos, which)
            self._start[which] = self._here[which]

    def _score(self, observations: Any, infos: Mapping[str, Any], which: npt.NDArray[np.int64]) -> Any:
        if not len(which):
            return np.zeros(0)
        seen: dict[str, npt.NDArray[Any]] = {}
        if isinstance(observations, Mapping):
            seen = {key: np.asarray(value)[which] for key, value in observations.items()}
        unseen = [key for key in self._potential.cameras if key not in seen]
        if unseen:
            vector: Any = self.env
            views = vector.call("render_cameras", tuple(_camera(key) for key in unseen))
            seen |= {key: np.stack([views[i][key] for i in which.tolist()]) for key in unseen}
        if "progress" in infos:
            seen[TRUE_PROGRESS] = np.asarray(infos["progress"], dtype=np.float64)[which]
        return self._potential.score(seen, which)

    def _score_final(self, infos: Mapping[str, Any], which: npt.NDArray[np.int64]) -> Any:
        if not len(which):
            return np.zeros(0)
        finals = [infos["final_obs"][i] for i in which.tolist()]
        seen: dict[str, npt.NDArray[Any]] = {}
        if isinstance(finals[0], Mapping):
            seen = {key: np.stack([final[key] for final in finals]) for key in finals[0]}
        told = infos.get("final_info", {})
        if "progress" in told:
            seen[TRUE_PROGRESS] = np.asarray(told["progress"], dtype=np.float64)[which]
        return self._potential.score(seen, which)


_ONLY = np.zeros(1, dtype=np.int64)


def _render(world: Any, keys: list[str]) -> Mapping[str, npt.NDArray[np.uint8]]:
    if not hasattr(world, "render_cameras"):
        raise ConfigError(f"the potential looks at {keys[0]}, which this environment neither shows nor can render")
    images: Mapping[str, npt.NDArray[np.uint8]] = world.render_cameras(tuple(_camera(key) for key in keys))
    return images


def _camera(key: str) -> str:
    return key.removeprefix("observation.images.")


def _with_potential_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    seen = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    if isinstance(space, spaces.Dict):
        return spaces.Dict({**space.spaces, POTENTIAL: seen})
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        low, high = np.append(space.low, -np.inf), np.append(space.high, np.inf)
        return spaces.Box(low.astype(space.dtype), high.astype(space.dtype), dtype=space.dtype.type)
    raise ConfigError(f"observations must be a dictionary or a vector of numbers, not {space}")


def _with_potential(observation: Any, potential: Any) -> Any:
    """The observation (of one environment or of N) with the potential (a number, or (N,)) added."""
    if isinstance(observation, Mapping):
        return {**observation, POTENTIAL: np.asarray(potential, dtype=np.float32)[..., None]}
    values = np.asarray(observation)
    return np.concatenate([values, np.asarray(potential, dtype=values.dtype)[..., None]], axis=-1)
