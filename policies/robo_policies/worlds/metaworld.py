"""Meta-World's 50 tasks as worlds: keyed observations, true stage and progress, exact seeds, fast rendering."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from robo_core.errors import ConfigError, MissingPartError
from robo_policies.rendering import MAX_IMAGE_SIZE, CameraRenderer, check_preset, import_mujoco, lighten
from robo_policies.worlds.metaworld_tasks import TASKS, Start, stage_and_progress, way_left
from robo_policies.worlds.world import Actions

SUFFIX = "-v3"
CONTROL_HZ = 80
"""Meta-World's own control rate: 5 physics steps of 2.5 ms."""
ACTION_REPEAT = 2
"""Control steps that an action lasts: decisions at 40 Hz, at which the scripted experts succeed as at 80."""
MAX_CONTROL_STEPS = 500
"""Meta-World's own limit."""
SETTLING = 10
"""Control steps at the start of an episode in which things come to rest before anybody looks."""
CAMERAS = {"front": "corner4", "wrist": "gripperPOV"}
"""Names that every world of an arm has, and what Meta-World calls them; its own names do as well."""

STATE_NAMES = ("hand_x", "hand_y", "hand_z", "gripper")
ACTION_NAMES = ("move_x", "move_y", "move_z", "grip")
_AXES = "xyz"
ENVIRONMENT_STATE_NAMES = (
    *(f"objects_{number}" for number in range(14)),
    *(f"goal_{axis}" for axis in _AXES),
    *(f"object_from_hand_{axis}" for axis in _AXES),
    *(f"goal_from_object_{axis}" for axis in _AXES),
)
WORLDS_FIX = "pip install 'robo-rm[worlds]'"


class MetaWorld(gymnasium.Env[Any, np.ndarray]):
    """One Meta-World task, its goal visible, at 40 decisions a second.

    Action (4,) float32 in [-1, 1]: the hand's way in x, y and z (1 is one centimetre a control step) and the grip (1
    closes), held for ``action_repeat`` control steps. Observation: ``observation.state`` (4,) hand and gripper opening,
    ``observation.environment_state`` (23,) Meta-World's own pose of the objects (14,), the goal, and the ways from hand
    to object and from object to goal, and ``observation.images.<camera>`` (H, W, 3) uint8 for each of ``cameras``.

    ``info`` has ``success``, ``stage``, ``stage_name`` and ``progress`` as every world, ``dense_reward`` (Meta-World's
    own, 0 to 10) and the rest of Meta-World's own ``info``. An episode that has succeeded stays a success, as
    Meta-World counts, also where the hand goes on and moves the object too far. Reward is 1 on success, which
    terminates, and 0 before; ``max_steps`` decisions truncate. Two environments given the same seed and actions do the
    same, bit for bit.

    Raises:
        ConfigError: unknown task, preset or camera, bad size, limit or repeat; an action of the wrong shape.
        MissingPartError: Meta-World or MuJoCo is missing, or, once something is rendered, a GL backend.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ // ACTION_REPEAT}  # noqa: RUF012
    render_mode = "rgb_array"
    state_names = STATE_NAMES
    environment_state_names = ENVIRONMENT_STATE_NAMES
    action_names = ACTION_NAMES
    absolute_actions = None
    """Actions are bounded speeds."""

    def __init__(
        self,
        task: str,
        render: str = "fast",
        image_size: int = 128,
        cameras: Sequence[str] = (),
        max_steps: int | None = None,
        action_repeat: int | None = None,
    ) -> None:
        short = task_name(task)
        check_preset(render)
        if not 8 <= image_size <= MAX_IMAGE_SIZE:
            raise ConfigError(f"image_size={image_size} is out of range; choose between 8 and {MAX_IMAGE_SIZE} pixels")
        repeat = ACTION_REPEAT if action_repeat is None else action_repeat
        if not 1 <= repeat <= 20:
            raise ConfigError(f"action_repeat={repeat} is out of range; choose between 1 and 20 control steps")
        if max_steps is not None and max_steps < 1:
            raise ConfigError(f"max_steps={max_steps} must be at least 1")
        self._mujoco = import_mujoco()
        self.name, self.task = f"metaworld/{short}{SUFFIX}", f"{_sentence(short)}."
        self.facts = TASKS[short]
        self.stages = self.facts.stages
        self._inner = _make_inner(f"{short}{SUFFIX}")
        self.model, self.data = self._inner.model, self._inner.data
        lighten(self.model, render)
        self._known_cameras = [self.model.camera(number).name for number in range(self.model.ncam)]
        self.preset, self.image_size, self.action_repeat = render, image_size, repeat
        self.cameras = tuple(cameras)
        self._check_cameras(cameras)
        self.fps = CONTROL_HZ / repeat if CONTROL_HZ % repeat else CONTROL_HZ // repeat
        self.max_steps = MAX_CONTROL_STEPS // repeat if max_steps is None else max_steps
        self._renderer: CameraRenderer | None = None
        self._steps = 0
        self._raw: np.ndarray = np.zeros(39)
        self._inner_info: dict[str, Any] = {}
        self._reward = 0.0
        self._start = Start(1.0, 1.0, 0.0)
        self._succeeded = False
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.observation_space = spaces.Dict(
            {
                "observation.state": spaces.Box(-np.inf, np.inf, (len(STATE_NAMES),), np.float32),
                "observation.environment_state": spaces.Box(
                    -np.inf, np.inf, (len(ENVIRONMENT_STATE_NAMES),), np.float32
                ),
                **{
                    f"observation.images.{camera}": spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
                    for camera in self.cameras
                },
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode from Meta-World's own range of starts. ``options`` are not used."""
        super().reset(seed=seed)
        inner = self._inner
        inner.seed(int(self.np_random.integers(2**31)) if seed is None else seed)
        inner.reset()
        # Things may still fall or swing, and the first observation is of poses that were not yet computed.
        for _ in range(SETTLING):
            self._advance(np.array([0.0, 0.0, 0.0, -1.0]))
        inner.curr_path_length = 0
        self._steps, self._succeeded = 0, bool(self._inner_info["success"])
        way = way_left(self.facts, self._raw, self._inner_info)
        distance = float(np.linalg.norm(inner.tcp_center - self._raw[4:7]))
        self._start = Start(way, distance, float(self._raw[6]))
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Carry out one decision: ``action_repeat`` control steps, fewer where they succeed."""
        wanted = np.asarray(action, dtype=np.float64)
        if wanted.shape != (4,) or not np.isfinite(wanted).all():
            raise ConfigError(
                f"an action of {self.name} is 4 finite numbers ({', '.join(ACTION_NAMES)}); got {np.asarray(action)!r}"
            )
        wanted = np.minimum(np.maximum(wanted, -1.0), 1.0)
        # The limit of decisions is ours; Meta-World refuses to go on past its own.
        self._inner.curr_path_length = 0
        for _ in range(self.action_repeat):
            self._advance(wanted)
            if self._inner_info["success"]:
                self._succeeded = True
                break
        self._steps += 1
        info = self._info()
        terminated = info["success"]
        truncated = not terminated and self._steps >= self.max_steps
        return self._observation(), float(terminated), terminated, truncated, info

    def demonstrate(self, quality: str, random: np.random.Generator) -> Actions:
        """Actions of one demonstration around Meta-World's own expert; step the environment between them."""
        from robo_policies.worlds.metaworld_operator import demonstrate

        return demonstrate(self, quality, random)

    def expert_action(self) -> np.ndarray:
        """What Meta-World's own expert does now, (4,) float64 in [-1, 1]."""
        from metaworld.policies import ENV_POLICY_MAP

        policy: Any = ENV_POLICY_MAP[self.name.removeprefix("metaworld/")]
        with warnings.catch_warnings():
            # The experts ask for more than the hand can do and say so each time; it is clipped.
            warnings.filterwarnings("ignore", message="Constant")
            action: np.ndarray = np.clip(policy().get_action(self._raw), -1.0, 1.0).astype(np.float64)
        return action

    def hand(self) -> np.ndarray:
        """The hand's place, (3,) m."""
        return self._raw[:3].copy()

    def object_from_fingers(self) -> np.ndarray:
        """The way from between the fingers to the object, (3,) m."""
        way: np.ndarray = self._raw[4:7] - self._inner.tcp_center
        return way

    def stage(self) -> int:
        """The present stage, an index into ``stages``."""
        return self._situation()[0]

    def progress(self) -> float:
        """The present progress, in [0, 1]."""
        return self._situation()[1]

    def goal(self) -> np.ndarray:
        """Where the object (in reaching tasks: the hand) has to come to, (3,) m."""
        return self._raw[36:39].copy()

    def render_cameras(self, cameras: Sequence[str] = tuple(CAMERAS)) -> dict[str, np.ndarray]:
        """Images of the present state, keyed ``observation.images.<camera>``, each (H, W, 3) uint8 RGB."""
        self._check_cameras(cameras)
        if self._renderer is None:
            self._renderer = CameraRenderer(self.model, self.image_size, self.preset)
        self._mujoco.mj_camlight(self.model, self.data)
        return {
            f"observation.images.{camera}": self._picture(self._renderer, CAMERAS.get(camera, camera))
            for camera in cameras
        }

    def _picture(self, renderer: CameraRenderer, camera: str) -> np.ndarray:
        picture = renderer.render(self.data, camera)
        number = self.model.camera(camera).id
        fixed = self.model.cam_bodyid[number] == 0
        # Some of Meta-World's cameras hang upside down: their y axis points at the ground.
        return picture[::-1, ::-1].copy() if fixed and self.data.cam_xmat[number, 7] < 0 else picture

    def render(self) -> np.ndarray:
        """The front camera's image, (H, W, 3) uint8 RGB."""
        return self.render_cameras(("front",))["observation.images.front"]

    def close(self) -> None:
        """Free the GL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _advance(self, action: np.ndarray) -> None:
        self._raw, self._reward, _, _, self._inner_info = self._inner.step(action)

    def _situation(self) -> tuple[int, float]:
        if self._succeeded:
            return len(self.stages) - 1, 1.0
        return stage_and_progress(self.facts, self._start, self._raw, self._inner.tcp_center, self._inner_info)

    def _info(self) -> dict[str, Any]:
        stage, progress = self._situation()
        own = {key: float(value) for key, value in self._inner_info.items() if key != "success"}
        return {
            **own,
            "dense_reward": float(self._reward),
            "success": self._succeeded,
            "stage": stage,
            "stage_name": self.stages[stage],
            "progress": progress,
        }

    def _observation(self) -> dict[str, np.ndarray]:
        raw = self._raw
        hand, thing, goal = raw[:3], raw[4:7], raw[36:39]
        observation = {
            "observation.state": raw[:4].astype(np.float32),
            "observation.environment_state": np.concatenate([raw[4:18], goal, thing - hand, goal - thing]).astype(
                np.float32
            ),
        }
        if self.cameras:
            observation.update(self.render_cameras(self.cameras))
        return observation

    def _check_cameras(self, cameras: Sequence[str]) -> None:
        known = [*CAMERAS, *self._known_cameras]
        for camera in cameras:
            if camera not in known:
                raise ConfigError(f"cameras={list(cameras)}: no camera {camera!r}; choose among: {', '.join(known)}")
        if len(set(cameras)) != len(cameras):
            raise ConfigError(f"cameras={list(cameras)}: a camera comes twice")


def task_name(task: str) -> str:
    """A task's name without its version: ``drawer-open`` for ``drawer-open-v3`` and for itself.

    Raises:
        ConfigError: there is no such task; names the nearest ones.
    """
    short = task.removesuffix(SUFFIX)
    if short not in TASKS:
        from difflib import get_close_matches

        near = get_close_matches(short, TASKS, 3, 0.3) or list(TASKS)
        raise ConfigError(
            f"env=metaworld/{task} is no Meta-World task; perhaps {', '.join(name + SUFFIX for name in near)}"
            f" (docs/worlds.md lists all {len(TASKS)})"
        )
    return short


def _sentence(short: str) -> str:
    return short.replace("-", " ").capitalize()


def _make_inner(full: str) -> Any:
    """Meta-World's environment with the goal in view and starts drawn from its seed."""
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "metaworld":
            raise
        raise MissingPartError(f"Meta-World is not installed: {WORLDS_FIX}") from error
    inner: Any = ALL_V3_ENVIRONMENTS[full]()
    inner._partially_observable = False
    inner._freeze_rand_vec = False
    inner.seeded_rand_vec = True
    inner._set_task_called = True
    # Computed while the goal was still hidden, with zeros for its bounds.
    inner.__dict__.pop("sawyer_observation_space", None)
    pads = [inner.data.geom(name).id for name in ("leftpad_geom", "rightpad_geom")]
    inner.touching_object = lambda thing: both_press(inner.data, pads, thing)
    return inner


def both_press(data: Any, pads: Sequence[int], thing: int) -> bool:
    """Whether each of the geoms ``pads`` presses on the geom ``thing``: Meta-World's ``touching_object``.

    Meta-World's own walks through all contacts in Python, which takes half the time of a step.
    """
    pairs = data.contact.geom
    on_thing = (pairs == thing).any(axis=1)
    if not on_thing.any():
        return False
    forces = data.efc_force[data.contact.efc_address]
    return all(forces[on_thing & (pairs == pad).any(axis=1)].sum() > 0 for pad in pads)
