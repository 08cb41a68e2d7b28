"""Environments of gymnasium-robotics and gym-aloha as worlds: keyed observations, success, stages where there are."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from robo_core.errors import ConfigError, MissingPartError
from robo_policies.rendering import MAX_IMAGE_SIZE, CameraRenderer, check_preset, import_mujoco, lighten
from robo_policies.worlds.world import Actions

ALOHA = "gym_aloha/"
FREE = "free"
"""A camera that looks at the whole scene, for environments that have none of their own."""
FRONT = ("external_camera_0", "top", "fixed", "vil_camera")
WRIST = ("gripper_camera_rgb",)
"""Which of an environment's cameras ``front`` and ``wrist`` stand for, the first that it has."""
ALOHA_STAGES = {
    "transfer_cube": ("reach for the cube", "grasp the cube", "lift the cube", "hand the cube over"),
    "insertion": ("reach for peg and socket", "grasp peg and socket", "lift peg and socket", "insert the peg"),
}
WORLDS_FIX = "pip install 'robo-rm[worlds]'"


class GymWorld(gymnasium.Env[Any, np.ndarray]):
    """One registered environment with a continuous action, under the keys of a store.

    ``observation.state`` is the environment's ``observation`` (or ``agent_pos``), ``observation.environment_state``
    what goal environments have beside it: the desired goal and the way to it from the achieved one; in gym-aloha the
    pose of the objects. Stages: in gym-aloha the four steps that its reward counts, in FrankaKitchen how many parts
    are done, otherwise one. Progress: the steps done, in goal environments the share of the way to the goal. Reward is
    1 on success, which terminates; the environment's own is ``info["dense_reward"]``.

    Raises:
        ConfigError: unknown id, no continuous action, unknown preset or camera, bad size, limit or repeat.
        MissingPartError: the environment's package is missing or, once something is rendered, a GL backend.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012 - Gymnasium's own convention
    render_mode = "rgb_array"

    def __init__(
        self,
        env_id: str,
        render: str = "fast",
        image_size: int = 128,
        cameras: Sequence[str] = (),
        max_steps: int | None = None,
        action_repeat: int | None = None,
    ) -> None:
        check_preset(render)
        if not 8 <= image_size <= MAX_IMAGE_SIZE:
            raise ConfigError(f"image_size={image_size} is out of range; choose between 8 and {MAX_IMAGE_SIZE} pixels")
        self.action_repeat = 1 if action_repeat is None else action_repeat
        if not 1 <= self.action_repeat <= 20:
            raise ConfigError(f"action_repeat={action_repeat} is out of range; choose between 1 and 20 control steps")
        if max_steps is not None and max_steps < 1:
            raise ConfigError(f"max_steps={max_steps} must be at least 1")
        self._mujoco = import_mujoco()
        made = _make_inner(env_id)
        self._inner: Any = made.unwrapped
        self._aloha = env_id.startswith(ALOHA)
        if not isinstance(self._inner.action_space, spaces.Box):
            raise ConfigError(f"env=gym/{env_id} has no continuous action, so nothing here can drive it")
        if self._aloha:
            physics = self._inner._env.physics
            self.model, self.data = physics.model.ptr, physics.data.ptr
            # Its observations would render three large pictures a step; ours render when asked.
            self._inner._env.task.get_observation = lambda physics: {}
        elif hasattr(self._inner, "model"):
            self.model, self.data = self._inner.model, self._inner.data
        else:
            raise ConfigError(f"env=gym/{env_id} does not run in MuJoCo, so nothing here can look at it")
        lighten(self.model, render)
        self.name, self.task = f"gym/{env_id}", _sentence(env_id)
        self.fps = float(self._inner.metadata.get("render_fps") or 25) / self.action_repeat
        limit = (made.spec.max_episode_steps if made.spec else None) or 500
        self.max_steps = max(limit // self.action_repeat, 1) if max_steps is None else max_steps
        self.preset, self.image_size, self.cameras = render, image_size, tuple(cameras)
        self._known = {name: name for name in (self.model.camera(n).name for n in range(self.model.ncam))}
        for alias, candidates in (("front", FRONT), ("wrist", WRIST)):
            found = [name for name in candidates if name in self._known]
            if found or alias == "front":
                self._known[alias] = found[0] if found else FREE
        self._known[FREE] = FREE
        self._check_cameras(cameras)
        self._renderer: CameraRenderer | None = None
        self._steps = 0
        self._first_distance = 1.0
        self._reward, self._own_info = 0.0, dict[str, Any]()
        self._parts = _parts(self._inner)
        self.stages: tuple[str, ...] = ("do the task",)
        if self._aloha:
            self.stages = ALOHA_STAGES[self._inner.task]
        elif self._parts:
            self.stages = tuple(f"part {number + 1} of {self._parts}" for number in range(self._parts))
        self._observed = self._begin(0)
        first = self._observation()
        box = self._inner.action_space
        self._low, self._high = box.low.astype(np.float32), box.high.astype(np.float32)
        if self._aloha:
            # Its own bounds are -1 and 1, yet its actions are joint targets in radians, of which some lie beyond.
            self._low, self._high = np.full(box.shape, -np.pi, np.float32), np.full(box.shape, np.pi, np.float32)
        self.action_space = spaces.Box(self._low, self._high)
        self._sizes = {key: len(value) for key, value in first.items() if value.ndim == 1}
        self.observation_space = spaces.Dict(
            {
                **{key: spaces.Box(-np.inf, np.inf, (size,), np.float32) for key, size in self._sizes.items()},
                **{
                    f"observation.images.{camera}": spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
                    for camera in self.cameras
                },
            }
        )

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the values of ``observation.state``."""
        return _numbered("state", self._sizes["observation.state"])

    @property
    def environment_state_names(self) -> tuple[str, ...]:
        """Names of the values of ``observation.environment_state``; none where there is no such key."""
        return _numbered("environment", self._sizes.get("observation.environment_state", 0))

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the values of an action."""
        return _numbered("action", len(self._low))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode, fixed by ``seed``. ``options`` are not used."""
        super().reset(seed=seed)
        self._observed = self._begin(int(self.np_random.integers(2**31)) if seed is None else seed)
        self._steps = 0
        self._first_distance = self._distance()
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Carry out one decision: ``action_repeat`` control steps, fewer where they succeed."""
        wanted = np.asarray(action, dtype=np.float64)
        if wanted.shape != self._low.shape or not np.isfinite(wanted).all():
            raise ConfigError(
                f"an action of {self.name} is {len(self._low)} finite numbers; got {np.asarray(action)!r}"
            )
        wanted = np.clip(wanted, self._low, self._high)
        over = False
        for _ in range(self.action_repeat):
            over = self._advance(wanted)
            if over or self._success():
                break
        self._steps += 1
        info = self._info()
        terminated = bool(info["success"] or over)
        truncated = not terminated and self._steps >= self.max_steps
        return self._observation(), float(info["success"]), terminated, truncated, info

    def demonstrate(self, quality: str, random: np.random.Generator) -> Actions:
        """There is no scripted operator for these.

        Raises:
            ConfigError: always; says what to do instead.
        """
        raise ConfigError(
            f"{self.name} has no scripted operator to record; use env=tidy_drawer or env=metaworld/<task>, or import "
            "demonstrations with `robo-rm import`"
        )

    def render_cameras(self, cameras: Sequence[str] = ("front",)) -> dict[str, np.ndarray]:
        """Images of the present state, keyed ``observation.images.<camera>``, each (H, W, 3) uint8 RGB."""
        self._check_cameras(cameras)
        if self._renderer is None:
            self._renderer = CameraRenderer(self.model, self.image_size, self.preset)
        self._mujoco.mj_camlight(self.model, self.data)
        return {
            f"observation.images.{camera}": self._renderer.render(self.data, self._camera(self._known[camera]))
            for camera in cameras
        }

    def render(self) -> np.ndarray:
        """The front camera's image, (H, W, 3) uint8 RGB."""
        return self.render_cameras(("front",))["observation.images.front"]

    def close(self) -> None:
        """Free the GL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._inner.close()

    # -- the environment inside ---------------------------------------------------------------------------------

    def _begin(self, seed: int) -> Mapping[str, Any]:
        self._reward, self._own_info = 0.0, {}
        if self._aloha:
            from gym_aloha.tasks import sim
            from gym_aloha.utils import sample_box_pose, sample_insertion_pose

            # The pose of the objects goes through a global of the package, read when an episode begins.
            transfer = self._inner.task == "transfer_cube"
            sim.BOX_POSE[0] = sample_box_pose(seed) if transfer else np.concatenate(sample_insertion_pose(seed))
            self._inner._env.reset()
            return self._aloha_observation()
        observed, self._own_info = self._inner.reset(seed=seed)
        return _as_mapping(observed)

    def _advance(self, action: np.ndarray) -> bool:
        """One control step; returns whether the environment itself says that the episode is over."""
        if self._aloha:
            from dm_control.rl.control import PhysicsError

            try:
                self._reward = float(self._inner._env.step(action).reward or 0.0)
            except PhysicsError:
                # A wild action broke the simulation: the episode ends there, failed, at the last sound observation.
                self._reward, self._own_info = 0.0, {"is_success": False}
                return True
            self._own_info = {"is_success": self._reward == 4}
            self._observed = self._aloha_observation()
            return False
        observed, reward, terminated, _, self._own_info = self._inner.step(action.astype(np.float32))
        self._observed, self._reward = _as_mapping(observed), float(reward)
        return bool(terminated)

    def _aloha_observation(self) -> dict[str, Any]:
        task, physics = self._inner._env.task, self._inner._env.physics
        return {"observation": task.get_qpos(physics), "objects": task.get_env_state(physics)}

    def _success(self) -> bool:
        if self._parts:
            return len(self._own_info.get("episode_task_completions", ())) >= self._parts
        return bool(self._own_info.get("is_success", self._own_info.get("success", False)))

    def _distance(self) -> float:
        if "desired_goal" not in self._observed or self._parts:
            return 0.0
        return float(np.linalg.norm(_flat(self._observed["desired_goal"]) - _flat(self._observed["achieved_goal"])))

    def _info(self) -> dict[str, Any]:
        success = self._success()
        last = len(self.stages) - 1
        if self._aloha or self._parts:
            done = int(self._reward) if self._aloha else len(self._own_info.get("episode_task_completions", ()))
            stage, progress = min(done, last), min(done / len(self.stages), 0.999)
        else:
            stage, progress = 0, 0.0
            if self._first_distance > 0:
                progress = float(np.clip(1.0 - self._distance() / self._first_distance, 0.0, 0.999))
        if success:
            stage, progress = last, 1.0
        own = {key: float(value) for key, value in self._own_info.items() if np.ndim(value) == 0 and _is_number(value)}
        return {
            **own,
            "dense_reward": self._reward,
            "success": success,
            "stage": stage,
            "stage_name": self.stages[stage],
            "progress": progress,
        }

    def _observation(self) -> dict[str, np.ndarray]:
        observed = self._observed
        observation = {"observation.state": _flat(observed["observation"]).astype(np.float32)}
        extra = None
        if "objects" in observed:
            extra = _flat(observed["objects"])
        elif "desired_goal" in observed:
            goal, achieved = _flat(observed["desired_goal"]), _flat(observed["achieved_goal"])
            extra = np.concatenate([goal, goal - achieved])
        if extra is not None:
            observation["observation.environment_state"] = extra.astype(np.float32)
        if self.cameras:
            observation.update(self.render_cameras(self.cameras))
        return observation

    def _camera(self, name: str) -> Any:
        if name != FREE:
            return name
        camera = self._mujoco.MjvCamera()
        self._mujoco.mjv_defaultFreeCamera(self.model, camera)
        renderer = getattr(self._inner, "mujoco_renderer", None)
        for key, value in (getattr(renderer, "default_cam_config", None) or {}).items():
            if isinstance(value, np.ndarray):
                getattr(camera, key)[:] = value
            elif key in ("distance", "azimuth", "elevation", "trackbodyid"):
                setattr(camera, key, value)
        return camera

    def _check_cameras(self, cameras: Sequence[str]) -> None:
        for camera in cameras:
            if camera not in self._known:
                raise ConfigError(
                    f"cameras={list(cameras)}: no camera {camera!r}; choose among: {', '.join(self._known)}"
                )
        if len(set(cameras)) != len(cameras):
            raise ConfigError(f"cameras={list(cameras)}: a camera comes twice")


def _make_inner(env_id: str) -> Any:
    """The registered environment, with the packages that register it imported first."""
    try:
        # The package prints a note about its Adroit environments.
        quiet = io.StringIO()
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if env_id.startswith(ALOHA):
                import gym_aloha  # noqa: F401

                return gymnasium.make(env_id, obs_type="pixels_agent_pos", disable_env_checker=True)
            import gymnasium_robotics

            gymnasium.register_envs(gymnasium_robotics)
            return gymnasium.make(env_id, disable_env_checker=True)
    except ModuleNotFoundError as error:
        if error.name not in ("gym_aloha", "gymnasium_robotics", "dm_control"):
            raise
        raise MissingPartError(f"{error.name} is not installed: {WORLDS_FIX}") from error
    except gymnasium.error.Error as error:
        beginning = env_id.split("/")[-1][:4].lower()
        known = [name for name in gymnasium.registry if name.split("/")[-1][:4].lower() == beginning]
        near = f"; perhaps {', '.join(sorted(known)[-6:])}" if known else ""
        raise ConfigError(
            f"env=gym/{env_id} is no environment of Gymnasium ({str(error).rstrip('.')}){near}"
        ) from error


def _parts(inner: Any) -> int:
    """How many parts a FrankaKitchen environment has; 0 elsewhere."""
    parts = getattr(inner, "tasks_to_complete", None)
    return len(parts) if isinstance(parts, list | set | tuple) else 0


def _as_mapping(observed: Any) -> Mapping[str, Any]:
    return observed if isinstance(observed, Mapping) else {"observation": observed}


def _flat(value: Any) -> np.ndarray:
    if isinstance(value, Mapping):
        return np.concatenate([_flat(value[key]) for key in sorted(value)])
    return np.asarray(value, dtype=np.float64).reshape(-1)


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float | np.bool_ | np.number)


def _numbered(word: str, size: int) -> tuple[str, ...]:
    return tuple(f"{word}_{number}" for number in range(size))


def _sentence(env_id: str) -> str:
    words = env_id.split("/")[-1].rsplit("-", 1)[0].replace("_", " ")
    spaced = "".join(f" {one.lower()}" if one.isupper() and i else one for i, one in enumerate(words))
    return f"{' '.join(spaced.split())}."
