"""The base of the simulated environments: a Gymnasium ``Env`` whose observations have the keys of a demo store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from robo_core.arrays import Array
from robo_core.errors import ConfigError
from robo_policies.rendering import MAX_IMAGE_SIZE, CameraRenderer, check_preset, import_mujoco

if TYPE_CHECKING:
    import mujoco

STATE = "observation.state"
ENVIRONMENT_STATE = "observation.environment_state"
IMAGES = "observation.images."
ENVS_FIX = "pip install 'robo-rm[envs]'"

Observation = dict[str, Array]
"""Feature key to float32 vector (D,) or uint8 RGB image (H, W, 3)."""
Action = Array
Info = dict[str, bool | int | float | str]
"""``success``, ``stage``, ``stage_name``, ``progress``, and what else an environment reports."""


class EnvSettings(TypedDict, total=False):
    """Settings that all environments share; `make_env` explains each."""

    render: str
    image_size: int
    cameras: Sequence[str]
    max_steps: int | None
    action_repeat: int | None


class TaskState(NamedTuple):
    """How far the task is, from the true state.

    Attributes:
        success: the task is done.
        stage: index into the environment's ``stages``.
        progress: in [0, 1], exactly 1 on success.
    """

    success: bool
    stage: int
    progress: float


class MujocoEnv(gymnasium.Env[Observation, Action], ABC):
    """One task on a MuJoCo model: what the subclasses have in common.

    A step is one action, held for ``action_repeat`` control steps. The reward is 1 on success, which terminates, and 0
    before; ``max_steps`` steps truncate. ``info`` of `reset` and `step` holds ``success`` (bool), ``stage`` (index into
    ``stages``), ``stage_name`` and ``progress`` (in [0, 1], the true one). Two environments given the same seed and
    actions are bit-identical.

    A subclass builds its model, calls ``super().__init__`` and implements `apply`, `task_state`, ``_begin`` and
    ``_vectors``.

    Args:
        model: the compiled model.
        data: its state.
        control_hz: control steps per second.
        control_steps: limit of an episode where ``max_steps`` is not given, in control steps.
        low: lower bounds of an action, (A,).
        high: upper bounds, (A,).
        camera_names: name that a user may give to name in the model.
        settings: see `EnvSettings`.

    Attributes:
        name: what `make_env` calls it.
        task: the instruction, one sentence.
        stages: names of the stages, in order.
        fps: actions per second.
        state_names: names of the values of ``observation.state``.
        environment_state_names: names of the values of ``observation.environment_state``; empty where it has none.
        action_names: names of the values of an action.
        absolute_actions: indices of the actions that are absolute commands, the others being joint targets; None where
            actions are bounded velocities or unknown.

    Raises:
        ConfigError: unknown preset or camera; size, limit or repeat out of range; `step`: an action of the wrong shape
            or not finite.
        MissingPartError: MuJoCo is missing or, once something is rendered, a GL backend.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - Gymnasium's own convention
    render_mode = "rgb_array"
    default_action_repeat = 1
    name: str
    task: str
    stages: tuple[str, ...]
    state_names: tuple[str, ...]
    environment_state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...]
    absolute_actions: tuple[int, ...] | None = None
    observation_space: spaces.Dict  # type: ignore[assignment]

    def __init__(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        control_hz: float,
        control_steps: int,
        low: npt.ArrayLike,
        high: npt.ArrayLike,
        camera_names: Mapping[str, str],
        **settings: Unpack[EnvSettings],
    ) -> None:
        self.model, self.data = model, data
        self.preset, self.image_size = settings.get("render", "fast"), settings.get("image_size", 128)
        self.cameras, self._camera_names = tuple(settings.get("cameras", ())), dict(camera_names)
        check_preset(self.preset)
        if not 8 <= self.image_size <= MAX_IMAGE_SIZE:
            raise ConfigError(
                f"image_size={self.image_size} is out of range; choose between 8 and {MAX_IMAGE_SIZE} pixels"
            )
        self._check_cameras(self.cameras)
        repeat, max_steps = settings.get("action_repeat"), settings.get("max_steps")
        self.action_repeat = self.default_action_repeat if repeat is None else repeat
        if not 1 <= self.action_repeat <= 20:
            raise ConfigError(f"action_repeat={repeat} is out of range; choose between 1 and 20 control steps")
        self.max_steps = max(control_steps // self.action_repeat, 1) if max_steps is None else max_steps
        if self.max_steps < 1:
            raise ConfigError(f"max_steps={max_steps} must be at least 1")
        # Whole rates stay whole numbers, as stores hold them.
        whole = control_hz % self.action_repeat == 0
        self.fps = control_hz // self.action_repeat if whole else control_hz / self.action_repeat
        self.metadata = {**self.metadata, "render_fps": round(self.fps)}
        self._mujoco: ModuleType = import_mujoco()
        self._renderer: CameraRenderer | None = None
        self._steps = 0
        self.action_space = spaces.Box(np.asarray(low, np.float32), np.asarray(high, np.float32), dtype=np.float32)
        self._low, self._high = (bound.astype(np.float64) for bound in (self.action_space.low, self.action_space.high))
        sizes = {STATE: len(self.state_names), ENVIRONMENT_STATE: len(self.environment_state_names)}
        image = spaces.Box(0, 255, (self.image_size, self.image_size, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {
                **{key: spaces.Box(-np.inf, np.inf, (size,), np.float32) for key, size in sizes.items() if size},
                **{IMAGES + camera: image for camera in self.cameras},
            }
        )

    # -- what a subclass implements -----------------------------------------------------------------------------

    @abstractmethod
    def apply(self, action: Action) -> bool:
        """Advance by one control step under ``action`` (A,), which is not checked or clipped.

        Returns:
            Whether the episode is over: the task is done, or the simulation can only fail.
        """

    @abstractmethod
    def task_state(self) -> TaskState:
        """Success, stage and progress of the present state."""

    @abstractmethod
    def _begin(self, seed: int | None) -> None:
        """Set up the first state of an episode; ``np_random`` is seeded already."""

    @abstractmethod
    def _vectors(self) -> Observation:
        """The observation without images."""

    def _clip(self, action: Action) -> Action:
        """The nearest action that may be carried out."""
        return np.minimum(np.maximum(action, self._low), self._high)

    def _extra_info(self) -> Info:
        """What ``info`` holds beside the task's state."""
        return {}

    def _render_camera(self, renderer: CameraRenderer, camera: str) -> npt.NDArray[np.uint8]:
        """The view of a camera of the model, (H, W, 3) uint8 RGB."""
        return renderer.render(self.data, camera)

    # -- Gymnasium ----------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[Observation, Info]:
        """Start an episode, fixed by ``seed``. ``options`` are not used."""
        super().reset(seed=seed)
        self._steps = 0
        self._begin(seed)
        return self.observe()

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, Info]:
        """Take one action (A,), clipped to its bounds, for ``action_repeat`` control steps or until it succeeds."""
        target: Action = np.asarray(action, dtype=np.float64)
        if target.shape != self._low.shape or not np.isfinite(target).all():
            names = f" ({', '.join(self.action_names)})" if len(self.action_names) < 10 else ""
            raise ConfigError(
                f"an action of {self.name} is {len(self._low)} finite numbers{names}; got {np.asarray(action)!r}"
            )
        target = self._clip(target)
        over = False
        for _ in range(self.action_repeat):
            over = self.apply(target)
            if over:
                break
        self._steps += 1
        observation, info = self.observe()
        terminated = bool(info["success"] or over)
        truncated = not terminated and self._steps >= self.max_steps
        return observation, float(info["success"]), terminated, truncated, info

    def render(self) -> npt.NDArray[np.uint8]:
        """The front camera's image, (H, W, 3) uint8 RGB."""
        return self.render_cameras(("front",))[f"{IMAGES}front"]

    def close(self) -> None:
        """Free the GL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    # -- beyond Gymnasium ---------------------------------------------------------------------------------------

    def observe(self) -> tuple[Observation, Info]:
        """Observation and info of the present state, for callers that move the robot by `apply`."""
        state = self.task_state()
        info: Info = {
            **self._extra_info(),
            "success": state.success,
            "stage": state.stage,
            "stage_name": self.stages[state.stage],
            "progress": state.progress,
        }
        observation = self._vectors()
        if self.cameras:
            observation |= self.render_cameras(self.cameras)
        return observation, info

    def render_cameras(self, cameras: Sequence[str] | None = None) -> dict[str, npt.NDArray[np.uint8]]:
        """Images of the present state, keyed ``observation.images.<camera>``, each (H, W, 3) uint8 RGB.

        Args:
            cameras: their names; None for ``front`` and, where there is one, ``wrist``.

        Raises:
            ConfigError: there is no such camera, or one is named twice.
            MissingPartError: there is no GL backend; says what to install.
        """
        if cameras is None:
            cameras = [name for name in ("front", "wrist") if name in self._camera_names]
        self._check_cameras(cameras)
        if self._renderer is None:
            self._renderer = CameraRenderer(self.model, self.image_size, self.preset)
        self._mujoco.mj_camlight(self.model, self.data)
        return {IMAGES + name: self._render_camera(self._renderer, self._camera_names[name]) for name in cameras}

    def _check_cameras(self, cameras: Sequence[str]) -> None:
        for camera in cameras:
            if camera not in self._camera_names:
                known = ", ".join(self._camera_names)
                raise ConfigError(f"cameras={list(cameras)}: no camera {camera!r}; choose among: {known}")
        if len(set(cameras)) != len(cameras):
            raise ConfigError(f"cameras={list(cameras)}: a camera is named twice")
