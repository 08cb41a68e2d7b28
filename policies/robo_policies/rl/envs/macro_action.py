"""Macro-actions: one action in [-1, 1]^A carried out for several control steps.

Learning at the control rate is hopeless on a small machine, so the learner acts a few times a second. What an action
means depends on the environment:

- ``hold``: environments whose own actions lie in [-1, 1] (Meta-World's hand velocities); the action is held.
- ``targets``: environments that take joint targets; the action is the displacement of the joints at the end of the
  macro-action, in units of ``reach``, and the commands in between lie on the straight line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.types import Floats

HOLD, TARGETS = "hold", "targets"
STATE = "observation.state"
ENVIRONMENT_STATE = "observation.environment_state"
IMAGES = "observation.images."

Array: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64] | npt.NDArray[np.uint8]
Observation: TypeAlias = Mapping[str, Array]
Environment: TypeAlias = gymnasium.Env[dict[str, Array], Floats]
Info: TypeAlias = dict[str, object]


class SimulatedEnv(Protocol):
    """What our environments have beside Gymnasium's interface, as far as it is used here."""

    @property
    def fps(self) -> float:
        """Control steps per second."""

    @property
    def task(self) -> str:
        """The instruction."""

    def render_cameras(self, cameras: Sequence[str]) -> Mapping[str, npt.NDArray[np.uint8]]:
        """Images (H, W, 3) by key."""


@dataclass(frozen=True)
class ActionMap:
    """From actions in [-1, 1]^A to commands of the environment and back.

    Attributes:
        kind: ``hold`` or ``targets``.
        action_repeat: control steps in a macro-action.
        low: (A,) lowest command.
        high: (A,) highest command.
        reach: (A,) displacement that an action of 1 asks for; infinite where the action is absolute.
    """

    kind: str
    action_repeat: int
    low: Floats
    high: Floats
    reach: Floats

    def commands(self, state: Floats, action: Floats) -> Floats:
        """(action_repeat, A) commands that carry out an action (A,) from the measured state (A, ...).

        With q the measured joints, d the reach and k = action_repeat, the i-th of k commands is

            q + i/k d a           for displacements: evenly along the straight line
            mid + half a          for absolute commands, such as a gripper's, and held actions: at once
        """
        clipped = np.clip(action, -1.0, 1.0)
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        if self.kind == HOLD:
            return np.repeat((middle + half * clipped)[None], self.action_repeat, axis=0).astype(np.float32)
        absolute = ~np.isfinite(self.reach)
        here = state[: len(clipped)]
        # infinity * 0 would be NaN, so absolute entries are computed with a reach of 1 and then replaced.
        move = np.where(absolute, 0.0, np.where(absolute, 1.0, self.reach) * clipped)
        goal = np.where(absolute, middle + half * clipped, here + move)
        fraction = (np.arange(self.action_repeat) + 1.0)[:, None] / self.action_repeat
        path = np.where(absolute, goal, here + fraction * (goal - here))
        return np.clip(path, self.low, self.high).astype(np.float32)

    def action(self, state: Floats, commands: Floats) -> Floats:
        """The action (A,) that comes nearest to commands (n, A) given from a measured state."""
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        if self.kind == HOLD:
            return np.clip((commands.mean(axis=0) - middle) / half, -1.0, 1.0).astype(np.float32)
        absolute = ~np.isfinite(self.reach)
        goal = commands[-1]
        relative = (goal - state[: len(goal)]) / np.where(absolute, 1.0, self.reach)
        return np.clip(np.where(absolute, (goal - middle) / half, relative), -1.0, 1.0).astype(np.float32)


def action_map(space: gymnasium.Space[Floats], action_repeat: int, reach: Sequence[float] | None = None) -> ActionMap:
    """How actions are carried out in an environment with this action space.

    Args:
        space: of the environment; bounded.
        action_repeat: control steps in a macro-action.
        reach: (A,) for environments that take joint targets, infinite for commands that are absolute; None where
            actions are held.

    Raises:
        ConfigError: an unbounded or multi-dimensional action space, an action_repeat below 1, or a reach of another
            length.
    """
    if action_repeat < 1:
        raise ConfigError(f"action_repeat={action_repeat}: give 1 control step or more")
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not space.is_bounded():
        raise ConfigError(f"learning needs a bounded vector of actions; this environment has {space}")
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    if reach is None:
        return ActionMap(HOLD, action_repeat, low, high, np.full(len(low), np.inf, np.float32))
    asked = np.asarray(reach, dtype=np.float32)
    if asked.shape != low.shape or not (asked > 0).all():
        raise ConfigError(f"reach must be {len(low)} numbers above 0, got {list(reach)}")
    return ActionMap(TARGETS, action_repeat, low, high, asked)


class MacroActionEnv(gymnasium.Wrapper[dict[str, Array], Floats, dict[str, Array], Floats]):
    """An environment that is stepped by macro-actions.

    ``info`` of a step holds ``rewards`` (list of the k steps' task rewards), ``progress`` where the environment
    reports it, and ``images`` (key -> (H, W, 3)) of the cameras given, rendered once, at the end. A terminal state is
    not rendered, since its potential counts as 0. The reward of a step is the plain sum.

    ``reset(options={"actions": {seed: [action, ...]}})`` carries out these actions at once, and ``info["history"]``
    holds the (observation, info) of the reset and of each of the actions.

    Args:
        env: one environment.
        actions: how actions are carried out.
        cameras: names of the cameras to render.
    """

    def __init__(self, env: Environment, actions: ActionMap, cameras: Sequence[str] = ()) -> None:
        super().__init__(env)
        self.action_space = spaces.Box(-1.0, 1.0, actions.low.shape, np.float32)
        self._actions, self._cameras = actions, tuple(cameras)
        self._state: Floats = np.zeros(0, np.float32)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Mapping[int, Sequence[Sequence[float]]]] | None = None
    ) -> tuple[dict[str, Array], Info]:
        """Start an episode, and carry out the actions that ``options`` has for its seed."""
        observation, info = self.env.reset(seed=seed)
        report = self._report(observation, info)
        if options is None or "actions" not in options or seed is None:
            return observation, report
        history = [(_copied(observation), report)]
        for action in options["actions"][seed]:
            observation, _, _, _, report = self.step(np.array(action, dtype=np.float32))
            history.append((_copied(observation), report))
        return observation, {"history": history}

    def step(self, action: Floats) -> tuple[dict[str, Array], float, bool, bool, Info]:
        """Carry out one macro-action, or as much of it as the episode allows."""
        rewards: list[float] = []
        for command in self._actions.commands(self._state, action):
            observation, reward, terminated, truncated, info = self.env.step(command)
            rewards.append(float(reward))
            # NaN must not hide between two macro-actions: the vector environment refuses the observation.
            if terminated or truncated or not _is_finite(observation):
                break
        report = self._report(observation, info, render=not terminated)
        truncated = bool(truncated and not terminated)
        return observation, float(sum(rewards)), bool(terminated), truncated, {**report, "rewards": rewards}

    def _report(self, observation: Observation, info: Mapping[str, object], render: bool = True) -> Info:
        self._state = np.asarray(observation[STATE], dtype=np.float32)
        report: Info = {key: info[key] for key in ("progress",) if key in info}
        if self._cameras and render:
            report["images"] = dict(cast(SimulatedEnv, self.env.unwrapped).render_cameras(self._cameras))
        return report


def make_macro_action_env(
    make_env: Callable[[], Environment], actions: ActionMap, cameras: Sequence[str]
) -> MacroActionEnv:
    """One environment under macro-actions, made here or in a process of its own (this module imports no torch).

    Args:
        make_env: makes the environment.
        actions: how actions are carried out.
        cameras: keys of the images that are read; those that the observations lack are rendered.
    """
    env = make_env()
    assert isinstance(env.observation_space, spaces.Dict)
    observed = env.observation_space.spaces
    return MacroActionEnv(env, actions, [camera_name(key) for key in cameras if key not in observed])


def camera_name(key: str) -> str:
    """``front`` of ``observation.images.front``."""
    return key.removeprefix(IMAGES)


def flatten(observation: Observation) -> Floats:
    """The state and, where there is one, the environment's state, as one vector.

    Raises:
        ModelError: a value is not finite; learning from it would spoil everything.
    """
    keys = [key for key in (STATE, ENVIRONMENT_STATE) if key in observation]
    vector: Floats = np.concatenate([np.asarray(observation[key], dtype=np.float32).ravel() for key in keys])
    if not np.isfinite(vector).all():
        index = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise ModelError(f"value {index} of the observation ({' + '.join(keys)}) is {vector[index]}")
    return vector


def _copied(observation: dict[str, Array]) -> dict[str, Array]:
    return {key: value.copy() for key, value in observation.items()}


def _is_finite(observation: Observation) -> bool:
    return all(np.isfinite(observation[key]).all() for key in (STATE, ENVIRONMENT_STATE) if key in observation)
