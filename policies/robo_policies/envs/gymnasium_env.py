"""Environments of gymnasium-robotics and gym-aloha: keyed observations, success, stages where there are any."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack, cast

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from robo_core.errors import ConfigError, MissingPartError
from robo_policies.envs.base import (
    ENVIRONMENT_STATE,
    ENVS_FIX,
    STATE,
    Action,
    EnvSettings,
    Info,
    MujocoEnv,
    Observation,
    TaskState,
)
from robo_policies.rendering import CameraRenderer, import_mujoco, lighten

if TYPE_CHECKING:
    import mujoco

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


class GymnasiumEnv(MujocoEnv):
    """One registered environment with a continuous action, under the keys of a store.

    ``observation.state`` is the environment's ``observation`` (or ``agent_pos``), ``observation.environment_state``
    what goal environments have beside it: the desired goal and the way to it from the achieved one; in gym-aloha the
    pose of the objects. Stages: in gym-aloha the four steps that its reward counts, in FrankaKitchen how many parts
    are done, otherwise one. Progress: the steps done, in goal environments the fraction of the way to the goal. The
    environment's own reward is ``info["dense_reward"]``.

    Args:
        env_id: its id in Gymnasium's registry.
        settings: see `EnvSettings`.

    Raises:
        ConfigError: unknown id, no continuous action, no MuJoCo; and see `MujocoEnv`.
        MissingPartError: the environment's package is missing or, once something is rendered, a GL backend.
    """

    def __init__(self, env_id: str, **settings: Unpack[EnvSettings]) -> None:
        import_mujoco()
        made = _make_inner(env_id)
        # Untyped: the attributes of other packages' environments.
        self._inner = cast("Any", made.unwrapped)
        self._aloha = env_id.startswith(ALOHA)
        box = self._inner.action_space
        if not isinstance(box, spaces.Box):
            raise ConfigError(f"env=gym/{env_id} has no continuous action, so nothing here can drive it")
        if self._aloha:
            physics = self._inner._env.physics
            model, data = physics.model.ptr, physics.data.ptr
            # Its observations would render three large images a step; ours render when asked.
            self._inner._env.task.get_observation = lambda physics: {}
        elif hasattr(self._inner, "model"):
            model, data = self._inner.model, self._inner.data
        else:
            raise ConfigError(f"env=gym/{env_id} does not run in MuJoCo, so nothing here can look at it")
        self.name, self.task = f"gym/{env_id}", _sentence(env_id)
        self._first_distance = 1.0
        self._reward, self._own_info = 0.0, dict[str, Any]()
        self._parts = _parts(self._inner)
        self.stages = ("do the task",)
        if self._aloha:
            self.stages = ALOHA_STAGES[self._inner.task]
        elif self._parts:
            self.stages = tuple(f"part {number + 1} of {self._parts}" for number in range(self._parts))
        low, high = box.low, box.high
        if self._aloha:
            # Its own bounds are -1 and 1, yet its actions are joint targets in radians, of which some lie beyond.
            low, high = np.full(box.shape, -np.pi), np.full(box.shape, np.pi)
        self._observed = self._start(0)
        sizes = {key: len(value) for key, value in self._vectors().items()}
        self.state_names = _numbered("state", sizes[STATE])
        self.environment_state_names = _numbered("environment", sizes.get(ENVIRONMENT_STATE, 0))
        self.action_names = _numbered("action", len(low))
        control_hz = float(self._inner.metadata.get("render_fps") or 25)
        limit = (made.spec.max_episode_steps if made.spec else None) or 500
        super().__init__(model, data, control_hz, limit, low, high, _cameras(model), **settings)
        lighten(model, self.preset)

    def apply(self, action: Action) -> bool:
        """Take one control step; returns whether it succeeds or the environment itself ends the episode."""
        if self._aloha:
            return self._apply_aloha(action) or self._success()
        observed, reward, terminated, _, self._own_info = self._inner.step(action.astype(np.float32))
        self._observed, self._reward = _as_mapping(observed), float(reward)
        return bool(terminated) or self._success()

    def task_state(self) -> TaskState:
        """Success, stage and progress of the present state."""
        last = len(self.stages) - 1
        if self._success():
            return TaskState(True, last, 1.0)
        if self._aloha or self._parts:
            done = int(self._reward) if self._aloha else len(self._own_info.get("episode_task_completions", ()))
            return TaskState(False, min(done, last), min(done / len(self.stages), 0.999))
        if self._first_distance <= 0:
            return TaskState(False, 0, 0.0)
        return TaskState(False, 0, float(np.clip(1.0 - self._distance() / self._first_distance, 0.0, 0.999)))

    def close(self) -> None:
        """Free the GL context and what the environment itself holds."""
        super().close()
        self._inner.close()

    def _begin(self, seed: int | None) -> None:
        self._observed = self._start(int(self.np_random.integers(2**31)) if seed is None else seed)
        self._first_distance = self._distance()

    def _start(self, seed: int) -> Mapping[str, object]:
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

    def _apply_aloha(self, action: Action) -> bool:
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

    def _aloha_observation(self) -> dict[str, object]:
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

    def _extra_info(self) -> Info:
        own = {key: float(value) for key, value in self._own_info.items() if np.ndim(value) == 0 and _is_number(value)}
        return {**own, "dense_reward": self._reward}

    def _vectors(self) -> Observation:
        observed = self._observed
        vectors: Observation = {STATE: _flat(observed["observation"]).astype(np.float32)}
        if "objects" in observed:
            vectors[ENVIRONMENT_STATE] = _flat(observed["objects"]).astype(np.float32)
        elif "desired_goal" in observed:
            goal, achieved = _flat(observed["desired_goal"]), _flat(observed["achieved_goal"])
            vectors[ENVIRONMENT_STATE] = np.concatenate([goal, goal - achieved]).astype(np.float32)
        return vectors

    def _render_camera(self, renderer: CameraRenderer, camera: str) -> npt.NDArray[np.uint8]:
        if camera != FREE:
            return renderer.render(self.data, camera)
        view = self._mujoco.MjvCamera()
        self._mujoco.mjv_defaultFreeCamera(self.model, view)
        own = getattr(self._inner, "mujoco_renderer", None)
        for key, value in (getattr(own, "default_cam_config", None) or {}).items():
            if isinstance(value, np.ndarray):
                getattr(view, key)[:] = value
            elif key in ("distance", "azimuth", "elevation", "trackbodyid"):
                setattr(view, key, value)
        return renderer.render(self.data, view)


def _cameras(model: mujoco.MjModel) -> dict[str, str]:
    """The model's cameras by name, ``front`` and ``wrist`` where some will do for them, and the free one."""
    known = {name: name for name in (model.camera(number).name for number in range(model.ncam))}
    for alias, candidates in (("front", FRONT), ("wrist", WRIST)):
        found = [name for name in candidates if name in known]
        if found or alias == "front":
            known[alias] = found[0] if found else FREE
    return known | {FREE: FREE}


def _make_inner(env_id: str) -> gymnasium.Env[object, object]:
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
        raise MissingPartError(f"{error.name} is not installed: {ENVS_FIX}") from error
    except gymnasium.error.Error as error:
        beginning = env_id.split("/")[-1][:4].lower()
        known = [name for name in gymnasium.registry if name.split("/")[-1][:4].lower() == beginning]
        near = f"; perhaps {', '.join(sorted(known)[-6:])}" if known else ""
        raise ConfigError(
            f"env=gym/{env_id} is not an environment of Gymnasium ({str(error).rstrip('.')}){near}"
        ) from error


def _parts(inner: object) -> int:
    """How many parts a FrankaKitchen environment has; 0 elsewhere."""
    parts = getattr(inner, "tasks_to_complete", None)
    return len(parts) if isinstance(parts, list | set | tuple) else 0


def _as_mapping(observed: object) -> Mapping[str, object]:
    return observed if isinstance(observed, Mapping) else {"observation": observed}


def _flat(value: object) -> npt.NDArray[np.float64]:
    if isinstance(value, Mapping):
        return np.concatenate([_flat(value[key]) for key in sorted(value)])
    return np.asarray(value, dtype=np.float64).reshape(-1)


def _is_number(value: object) -> bool:
    return isinstance(value, bool | int | float | np.bool_ | np.number)


def _numbered(word: str, size: int) -> tuple[str, ...]:
    return tuple(f"{word}_{number}" for number in range(size))


def _sentence(env_id: str) -> str:
    words = env_id.split("/")[-1].rsplit("-", 1)[0].replace("_", " ")
    spaced = "".join(f" {one.lower()}" if one.isupper() and i else one for i, one in enumerate(words))
    return f"{' '.join(spaced.split())}."
