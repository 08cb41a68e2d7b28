"""Running a policy in several copies of an environment at once, one process, one inference for all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

import gymnasium
import numpy as np
import numpy.typing as npt

from robo_core.arrays import Array
from robo_core.errors import ConfigError, ModelError
from robo_policies.cloning.chunks import ChunkPlayer
from robo_policies.cloning.settings import Execution
from robo_policies.cloning.windows import ACTION
from robo_policies.envs.base import IMAGES, Action, Observation

if TYPE_CHECKING:
    from gymnasium import spaces

# Episodes that share their inferences. Fixed, and not a setting: the size of a batch changes the last bits of an
# action, and so the fate of a close call, so it must not depend on the number of cores.
WAVE = 10


DEFAULT_SIZE = 128
"""Pixels of an environment's images where no others are asked for."""

Env = gymnasium.Env[Observation, Action]
Info = Mapping[str, bool | int | float | str]


class Policy(Protocol):
    """What can be evaluated.

    It may have ``cameras``, key -> (H, W) of the images it takes; ``observation_steps``, how many observations it takes
    at once, oldest first; and ``follows_episodes``, true where ``act`` also takes ``which``, (B,): the episodes of the
    wave that its rows belong to.
    """

    @property
    def dims(self) -> Mapping[str, int]:
        """Key -> D of the observation keys and the action."""

    @property
    def chunk_size(self) -> int:
        """Actions in a chunk."""

    @property
    def execution_horizon(self) -> int:
        """How many of them to execute by default."""

    def act(self, observation: Mapping[str, npt.NDArray[np.generic]]) -> Array:
        """Observations (B, D) -> chunks (B, H, A)."""

    def reset(self) -> None:
        """Start new episodes."""


@dataclass(frozen=True)
class Rollout:
    """How one episode went.

    Attributes:
        episode: its number in the evaluation.
        seed: what the environment was reset with.
        success: whether it succeeded.
        steps: control steps until success or the end.
        seconds: the same in seconds of the environment's own time.
        stage: the furthest stage reached, an index into the environment's stages.
        last_stage: the stage at the end.
        progress: true progress at the end, in [0, 1].
        best_progress: its maximum.
        total_reward: sum of the rewards.
    """

    episode: int
    seed: int
    success: bool
    steps: int
    seconds: float
    stage: int
    last_stage: int
    progress: float
    best_progress: float
    total_reward: float

    def as_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass
class _Running:
    """One episode in progress."""

    episode: int
    seed: int
    env: Env
    player: ChunkPlayer
    observation: Observation
    history: deque[Observation]
    steps: int = 0
    stage: int = -1
    best_progress: float = 0.0
    total_reward: float = 0.0
    frames: list[np.ndarray] = field(default_factory=list)


def check_fits(policy: Policy, env: Env) -> None:
    """Compare what a policy was trained on with an environment: sizes, cameras, and the order of the joints.

    Raises:
        ModelError: names the key and both sizes, the camera, or the first joint in another place.
    """
    name = getattr(env.unwrapped, "name", type(env.unwrapped).__name__)
    space = cast("spaces.Dict", env.observation_space)
    for key, size in policy.dims.items():
        if key == ACTION:
            shape = env.action_space.shape
        elif key not in space.spaces:
            held = ", ".join(sorted(space.spaces))
            raise ModelError(f"the policy needs {key!r}, which {name} does not give; it gives {held}")
        else:
            shape = space[key].shape
        if shape != (size,):
            raise ModelError(
                f"the policy was trained with {key!r} of {size} values and {name} has shape {shape}; "
                "train on demonstrations of this environment"
            )
    _check_order(policy, tuple(getattr(env.unwrapped, "action_names", ())), name)
    for key in _cameras(policy):
        try:
            # After a reset: environments may have nothing to render before their first start.
            observation, _ = env.reset(seed=0)
            _image(env, observation, key)
        except ConfigError as error:
            raise ModelError(f"the policy looks through {key!r}, which {name} does not have: {error}") from error


def _check_order(policy: Policy, joints: Sequence[str], env: str) -> None:
    """The same joints in another order have the right size and are wrong; other names may just be other words."""
    trained = getattr(policy, "card", {}).get("actions")
    if not isinstance(trained, list | tuple) or sorted(trained) != sorted(joints):
        return
    for place, (one, other) in enumerate(zip(trained, joints, strict=True)):
        if one != other:
            raise ModelError(
                f"the policy was trained with {one!r} as value {place} of its actions, which is {other!r} in {env}; "
                "the order of the joints differs. Train on demonstrations of this environment"
            )


def image_size_of(policy: Policy) -> int | None:
    """Pixels of the images that a policy's environments should render; None for the environment's own.

    A policy that takes smaller images shrinks them itself, as it did in training.
    """
    largest = max((max(size) for size in _cameras(policy).values()), default=0)
    return largest if largest > DEFAULT_SIZE else None


def _cameras(policy: Policy) -> Mapping[str, tuple[int, int]]:
    return getattr(policy, "cameras", None) or {}


def _image(env: Env, observation: Observation, key: str) -> np.ndarray:
    """A camera's view of the present state, rendered now where the observation does not carry it."""
    if key in observation:
        return observation[key]
    if not hasattr(env.unwrapped, "render_cameras"):
        raise ConfigError(f"its observation carries no {key!r}")
    image: np.ndarray = env.unwrapped.render_cameras((key.removeprefix(IMAGES),))[key]
    return image


def frames_per_second(env: Env) -> float:
    """Control steps per second of an environment."""
    return float(getattr(env.unwrapped, "fps", None) or env.metadata.get("render_fps") or 20.0)


def run_wave(
    policy: Policy,
    envs: Sequence[Env],
    episodes: Sequence[int],
    seeds: Sequence[int],
    execution: Execution,
    filmed: Callable[[int], bool] | None = None,
    on_video: Callable[[Rollout, list[np.ndarray]], None] | None = None,
) -> list[Rollout]:
    """Run one episode in each of ``envs``, in lockstep, until all have ended.

    Args:
        policy: asked for chunks of all environments that need one at the same time.
        envs: as many environments as there are episodes.
        episodes: the numbers of the episodes.
        seeds: what each environment is reset with.
        execution: how chunks are executed.
        filmed: whether to keep the frames of an episode.
        on_video: given a finished episode and its frames.

    Returns:
        One rollout per episode, in the order given.
    """
    policy.reset()
    keys = [key for key in policy.dims if key != ACTION]
    cameras, steps = list(_cameras(policy)), int(getattr(policy, "observation_steps", 1))
    slots = {episode: slot for slot, episode in enumerate(episodes)}
    horizon = min(execution.horizon or policy.execution_horizon, policy.chunk_size)
    running = []
    for episode, seed, env in zip(episodes, seeds, envs, strict=True):
        observation, info = env.reset(seed=int(seed))
        player = ChunkPlayer(horizon, execution.ensemble)
        state = _Running(episode, int(seed), env, player, observation, deque(maxlen=steps))
        _note(state, info, 0.0)
        _see(state, keys, cameras, rendering=steps > 1)
        running.append(state)
    done: dict[int, Rollout] = {}
    while running:
        asking = [state for state in running if state.player.wants_chunk]
        if asking:
            if steps == 1:
                # Rendering costs far more than physics: only what the policy is about to take.
                for state in asking:
                    _see(state, keys, cameras, rendering=True)
            batch = {key: np.stack([_seen(state, key, steps) for state in asking]) for key in (*keys, *cameras)}
            following = getattr(policy, "follows_episodes", False)
            extra = {"which": np.array([slots[state.episode] for state in asking])} if following else {}
            for state, chunk in zip(asking, policy.act(batch, **extra), strict=True):
                state.player.add(chunk)
        still = []
        for state in running:
            rendering = filmed is not None and filmed(state.episode)
            if rendering:
                state.frames.append(np.asarray(state.env.render()))
            state.observation, reward, terminated, truncated, info = state.env.step(state.player.next())
            state.steps += 1
            _note(state, info, float(reward))
            if steps > 1:
                _see(state, keys, cameras, rendering=True)
            if not (terminated or truncated or info.get("success", False)):
                still.append(state)
                continue
            done[state.episode] = _finish(state, info)
            if rendering and on_video is not None:
                state.frames.append(np.asarray(state.env.render()))
                on_video(done[state.episode], state.frames)
        running = still
    return [done[episode] for episode in episodes]


def _see(state: _Running, keys: Sequence[str], cameras: Sequence[str], rendering: bool) -> None:
    """Remember what the policy takes of the present state."""
    seen: Observation = {key: state.observation[key] for key in keys}
    if rendering:
        seen |= {key: _image(state.env, state.observation, key) for key in cameras}
    state.history.append(seen)


def _seen(state: _Running, key: str, steps: int) -> np.ndarray:
    """The last observation of ``key``, or the last ``steps`` with the first repeated where there are fewer."""
    if steps == 1:
        return state.history[-1][key]
    seen = [one[key] for one in state.history]
    return np.stack([seen[0]] * (steps - len(seen)) + seen)


def _note(state: _Running, info: Info, reward: float) -> None:
    state.stage = max(state.stage, int(info.get("stage", -1)))
    state.best_progress = max(state.best_progress, float(info.get("progress", 0.0)))
    state.total_reward += reward


def _finish(state: _Running, info: Info) -> Rollout:
    return Rollout(
        episode=state.episode,
        seed=state.seed,
        success=bool(info.get("success", False)),
        steps=state.steps,
        seconds=state.steps / frames_per_second(state.env),
        stage=state.stage,
        last_stage=int(info.get("stage", -1)),
        progress=float(info.get("progress", 0.0)),
        best_progress=state.best_progress,
        total_reward=state.total_reward,
    )
