"""Meta-World's 50 tasks: keyed observations, true stage and progress, exact seeds, fast rendering."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

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
from robo_policies.envs.metaworld.tasks import TASKS, Start, stage_and_progress, way_left
from robo_policies.rendering import CameraRenderer, import_mujoco, lighten

if TYPE_CHECKING:
    import mujoco
    from metaworld.sawyer_xyz_env import SawyerXYZEnv

SUFFIX = "-v3"
CONTROL_HZ = 80
"""Meta-World's own control rate: 5 physics steps of 2.5 ms."""
ACTION_REPEAT = 2
"""Control steps that an action lasts: actions at 40 Hz, at which the scripted experts succeed as at 80."""
MAX_CONTROL_STEPS = 500
"""Meta-World's own limit."""
SETTLING = 10
"""Control steps at the start of an episode in which things come to rest before the first observation."""
CAMERAS = {"front": "corner4", "wrist": "gripperPOV"}
"""Names that every environment of an arm has, and what Meta-World calls them; its own names work as well."""

STATE_NAMES = ("hand_x", "hand_y", "hand_z", "gripper")
ACTION_NAMES = ("move_x", "move_y", "move_z", "grip")
_AXES = "xyz"
ENVIRONMENT_STATE_NAMES = (
    *(f"objects_{number}" for number in range(14)),
    *(f"goal_{axis}" for axis in _AXES),
    *(f"object_from_hand_{axis}" for axis in _AXES),
    *(f"goal_from_object_{axis}" for axis in _AXES),
)

Vector = npt.NDArray[np.float64]


class MetaWorldEnv(MujocoEnv):
    """One Meta-World task, its goal visible, at 40 actions per second.

    Action (4,) float32 in [-1, 1]: the hand's way in x, y and z (1 is one centimetre a control step) and the grip (1
    closes). Observation: ``observation.state`` (4,) hand and gripper opening, ``observation.environment_state`` (23,)
    Meta-World's own pose of the objects (14,), the goal, and the ways from hand to object and from object to goal, and
    ``observation.images.<camera>`` (H, W, 3) uint8 for each of ``cameras``.

    ``info`` also has ``dense_reward`` (Meta-World's own, 0 to 10) and the rest of Meta-World's own ``info``. An episode
    that has succeeded stays a success, as Meta-World counts, also where the hand goes on and moves the object too far.

    Args:
        task: ``drawer-open-v3`` or ``drawer-open``.
        settings: see `EnvSettings`.

    Raises:
        ConfigError, MissingPartError: see `MujocoEnv`; unknown task, Meta-World is missing.
    """

    default_action_repeat = ACTION_REPEAT
    state_names = STATE_NAMES
    environment_state_names = ENVIRONMENT_STATE_NAMES
    action_names = ACTION_NAMES

    def __init__(self, task: str, **settings: Unpack[EnvSettings]) -> None:
        short = task_name(task)
        self.name, self.task = f"metaworld/{short}{SUFFIX}", f"{_sentence(short)}."
        self.facts = TASKS[short]
        self.stages = self.facts.stages
        import_mujoco()
        self._inner = _make_inner(f"{short}{SUFFIX}")
        model = self._inner.model
        names = [model.camera(number).name for number in range(model.ncam)]
        cameras = {**CAMERAS, **{name: name for name in names}}
        super().__init__(
            model, self._inner.data, CONTROL_HZ, MAX_CONTROL_STEPS, [-1.0] * 4, [1.0] * 4, cameras, **settings
        )
        lighten(model, self.preset)
        self._raw: Vector = np.zeros(39)
        self._inner_info: Mapping[str, float] = {}
        self._reward = 0.0
        self._start = Start(1.0, 1.0, 0.0)
        self._succeeded = False

    def apply(self, action: Action) -> bool:
        """Take one control step; returns whether it succeeds."""
        # The limit of steps is ours; Meta-World refuses to go on past its own.
        self._inner.curr_path_length = 0
        self._raw, self._reward, _, _, self._inner_info = self._inner.step(np.asarray(action, np.float64))
        done = bool(self._inner_info["success"])
        self._succeeded = self._succeeded or done
        return done

    def task_state(self) -> TaskState:
        """Success, stage and progress of the present state."""
        if self._succeeded:
            return TaskState(True, len(self.stages) - 1, 1.0)
        return TaskState(
            False,
            *stage_and_progress(self.facts, self._start, self._raw, self._inner.tcp_center, self._inner_info),
        )

    def expert_action(self) -> np.ndarray:
        """The action of Meta-World's own expert now, (4,) float64 in [-1, 1]."""
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

    def goal(self) -> np.ndarray:
        """Where the object (in reaching tasks: the hand) has to come to, (3,) m."""
        return self._raw[36:39].copy()

    def _begin(self, seed: int | None) -> None:
        inner = self._inner
        inner.seed(int(self.np_random.integers(2**31)) if seed is None else seed)
        inner.reset()
        # Things may still fall or swing, and the first observation is of poses that were not yet computed.
        for _ in range(SETTLING):
            self.apply(np.array([0.0, 0.0, 0.0, -1.0]))
        self._succeeded = bool(self._inner_info["success"])
        way = way_left(self.facts, self._raw, self._inner_info)
        distance = float(np.linalg.norm(inner.tcp_center - self._raw[4:7]))
        self._start = Start(way, distance, float(self._raw[6]))

    def _render_camera(self, renderer: CameraRenderer, camera: str) -> npt.NDArray[np.uint8]:
        image = renderer.render(self.data, camera)
        number = self.model.camera(camera).id
        fixed = self.model.cam_bodyid[number] == 0
        # Some of Meta-World's cameras hang upside down: their y axis points at the ground.
        return image[::-1, ::-1].copy() if fixed and self.data.cam_xmat[number, 7] < 0 else image

    def _extra_info(self) -> Info:
        own = {key: float(value) for key, value in self._inner_info.items() if key != "success"}
        return {**own, "dense_reward": float(self._reward)}

    def _vectors(self) -> Observation:
        raw = self._raw
        hand, thing, goal = raw[:3], raw[4:7], raw[36:39]
        objects = np.concatenate([raw[4:18], goal, thing - hand, goal - thing])
        return {STATE: raw[:4].astype(np.float32), ENVIRONMENT_STATE: objects.astype(np.float32)}


def task_name(task: str) -> str:
    """A task's name without its version: ``drawer-open`` for ``drawer-open-v3`` and for itself.

    Raises:
        ConfigError: there is no such task; names the nearest ones.
    """
    short = task.removesuffix(SUFFIX)
    if short not in TASKS:
        near = get_close_matches(short, TASKS, 3, 0.3) or list(TASKS)
        raise ConfigError(
            f"env=metaworld/{task} is not a Meta-World task; perhaps {', '.join(name + SUFFIX for name in near)}"
            f" (docs/environments.md lists all {len(TASKS)})"
        )
    return short


def _sentence(short: str) -> str:
    return short.replace("-", " ").capitalize()


def _make_inner(full: str) -> SawyerXYZEnv:
    """Meta-World's environment with the goal in view and starts drawn from its seed."""
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "metaworld":
            raise
        raise MissingPartError(f"Meta-World is not installed: {ENVS_FIX}") from error
    inner = ALL_V3_ENVIRONMENTS[full]()
    inner._partially_observable = False
    inner._freeze_rand_vec = False
    inner.seeded_rand_vec = True
    inner._set_task_called = True
    # Computed while the goal was still hidden, with zeros for its bounds.
    inner.__dict__.pop("sawyer_observation_space", None)
    pads = [inner.data.geom(name).id for name in ("leftpad_geom", "rightpad_geom")]
    # Its own takes half the time of a step.
    vars(inner)["touching_object"] = lambda thing: both_press(inner.data, pads, thing)
    return inner


def both_press(data: mujoco.MjData, pads: Sequence[int], thing: int) -> bool:
    """Whether each of the geoms ``pads`` presses on the geom ``thing``: Meta-World's ``touching_object``.

    Meta-World's own walks through all contacts in Python, which takes half the time of a step.
    """
    pairs = data.contact.geom
    on_thing = (pairs == thing).any(axis=1)
    if not on_thing.any():
        return False
    forces = data.efc_force[data.contact.efc_address]
    return all(forces[on_thing & (pairs == pad).any(axis=1)].sum() > 0 for pad in pads)
