"""HDF5 files with one group a demonstration: robomimic, robosuite, RoboCasa, MimicGen, LIBERO, Isaac Lab.

data                    attributes: env_args (JSON: env_name, env_kwargs.control_freq, .robots)
data/demo_3/obs/<key>   (T, ...) observations, in groups of groups too; images are (T, H, W, 3)
data/demo_3/actions  states  rewards  dones
mask/<name>             names of the demonstrations in a split

``states`` is one array (robosuite) or a group of groups (Isaac Lab). See ``.attributes``
for where instruction, outcome and rate stand, ``.images`` for what becomes a camera.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from robo_core.errors import ImportSourceError
from robo_datasets.importers.files import counting_order
from robo_datasets.importers.hdf5.attributes import (
    attributes_of,
    environment_of,
    instruction_beside,
    instruction_in,
    is_libero,
    outcome_in,
    plain_notes,
    rate_in,
    sparse_outcome,
    unread_members,
)
from robo_datasets.importers.hdf5.files import dataset, is_group, masks, opened, read, subgroup
from robo_datasets.importers.hdf5.source import Hdf5Source, Kind, dotted, leaves, low_dim
from robo_datasets.importers.images import ImageSettings
from robo_datasets.importers.restored import restored_feature
from robo_datasets.importers.source import SourceEpisode
from robo_datasets.store.features import FeatureSpec

IMAGES, OBSERVATION, STATE = "observation.images.", "observation.", "observation.state"

# Where a dataset has them, these make up the robot's state; "object" is the state of the scene.
_STATES = (
    ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"),
    ("ee_states", "gripper_states"),
    ("eef_pos", "eef_quat", "gripper_pos"),
)
_OTHER = {
    "actions": "action",
    "actions_abs": "action.absolute",
    "processed_actions": "action.processed",
    "states": "simulator.state",
    "robot_states": "observation.robot_states",
    "rewards": "next.reward",
    "dones": "next.done",
}
_SCENE = {"object": "observation.environment_state"}
_CAMERA_SUFFIX = re.compile(r"_(?:image|rgb)\Z")
_DEPTH = 8


class RobomimicSource(Hdf5Source):
    """An HDF5 file of demonstrations; see ``robo_datasets.importers.source.Source``.

    Args:
        path: the file.
        cameras: cameras to keep, all by default.
        size: (height, width) to scale frames to.
        fps: frames per second; what the file says by default.
        state: observations that together make up observation.state.
        task: the instruction of all episodes; what the file says by default.
        mask: name of the split to import; everything by default.
        images: which way up they are, their colours and scale.
        skip: arrays (by path below a demonstration, or feature) to leave out, also such as cannot be read.

    Raises:
        ImportSourceError: it is missing, truncated, or of another layout.
    """

    format = "robomimic"

    def __init__(
        self,
        path: str | Path,
        cameras: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
        state: Sequence[str] | None = None,
        task: str = "",
        mask: str = "",
        images: ImageSettings | None = None,
        skip: Collection[str] = (),
    ) -> None:
        super().__init__(path, size, images, skip)
        with opened(self.path) as file:
            if "data" not in file:
                raise ImportSourceError(
                    f"{self.path} is not laid out as robomimic's files: it has no data/demo_N, but {sorted(file)[:8]}"
                )
            data = subgroup(file, "data", self.path)
            environment, own = environment_of(data, self.path), attributes_of(data, self.path)
            kwargs = environment.get("env_kwargs")
            settings: dict[str, object] = kwargs if isinstance(kwargs, dict) else {}
            self.fps = rate_in(fps, environment, own, self.path)
            robots = settings.get("robots")
            self.robot = "+".join(map(str, robots)) if isinstance(robots, list) else _text(robots)
            splits = masks(file, self.path)
            self._demos = self._choose_demos(data, splits, mask)
            good = next((name for name in self._demos if not self._problem(data, name)), self._demos[0])
            first = subgroup(data, good, self.path)
            self._arrays = self._read_arrays(first)
            if unread := unread_members(first, (*_OTHER, *self._skip)):
                self.notes.append(unread)
            observed = {place: place.removeprefix("obs/") for place in self._arrays if place.startswith("obs/")}
            self._rules = self._read_rules(first, self.path, observed)
            self._state = self._choose_state(state)
            self._images = self._choose_cameras(cameras)
            self._rows = {
                name: key for key in self._arrays if key not in self._rules and (name := self._feature_of(key))
            }
            self.features = self._features()
            common = instruction_in(own) or instruction_in(attributes_of(file, self.path))
            shaped = bool(settings.get("reward_shaping"))
            self.episodes = [
                self._episode(number, data, task, common, splits, shaped) for number in range(len(self._demos))
            ]
            self._complete(_text(environment.get("env_name")) or "")
            if self._images and is_libero(own) and self._image_settings.flip == "none":
                self.notes.append(
                    "LIBERO stores images as its renderer gives them, upside down; they were left so (flip=vertical "
                    "turns them over)"
                )

    def place(self, episode: SourceEpisode) -> str:
        """The demonstration, whatever split it is counted in."""
        return f"{self._demos[episode.number]} {sorted(self._arrays)}"

    @contextmanager
    def _opened(self, episode: SourceEpisode) -> Iterator[tuple[h5py.Group, Path]]:
        with opened(self.path) as file:
            yield subgroup(subgroup(file, "data", self.path), self._demos[episode.number], self.path), self.path

    def _columns(self, rows: Mapping[str, np.ndarray], length: int) -> dict[str, np.ndarray]:
        columns = super()._columns(rows, length)
        if self._state:
            columns[STATE] = np.concatenate([rows[key].reshape(length, -1) for key in self._state], 1)
        return columns

    def _choose_demos(self, data: h5py.Group, splits: dict[str, set[str]], mask: str) -> list[str]:
        demos = [name for name in data if name.startswith("demo")] or list(data)
        demos = sorted(demos, key=counting_order)
        if mask:
            if mask not in splits:
                raise ImportSourceError(f"{self.path} has no mask {mask!r}; it has {sorted(splits)}")
            demos = [name for name in demos if name in splits[mask]]
        if not demos:
            raise ImportSourceError(f"{self.path} holds no demonstrations")
        return demos

    def _problem(self, data: h5py.Group, name: str) -> str:
        """Why a demonstration cannot be read, as far as its actions say."""
        try:
            actions = dataset(subgroup(data, name, self.path), self._actions(data, name), self.path)
        except ImportSourceError as error:
            return str(error)
        return "" if actions.shape and actions.shape[0] > 0 else f"{self.path}: {actions.name} has no frames"

    def _actions(self, data: h5py.Group, name: str) -> str:
        """Path of the array of actions: of a group of actions the pose, else the first."""
        demo = subgroup(data, name, self.path)
        if not is_group(demo, "actions"):
            return "actions"
        there = sorted(subgroup(demo, "actions", self.path))
        return f"actions/{'pose' if 'pose' in there else there[0]}" if there else "actions"

    def _read_arrays(self, demo: h5py.Group) -> dict[str, Kind]:
        """Path below a demonstration to shape of a row and type, of everything that is imported."""
        if "actions" not in demo:
            raise ImportSourceError(f"{self.path}: {demo.name} has no actions")
        found: dict[str, Kind] = {}
        lead = self._actions(demo.parent, demo.name.split("/")[-1])
        length = dataset(demo, lead, self.path).shape[:1]
        for key in [*(key for key in _OTHER if key in demo), *(["obs"] if "obs" in demo else [])]:
            for place in sorted(leaves(demo, key, _DEPTH, self.path)):
                if {place, place.removeprefix("obs/"), self._feature_of(place)} & self._skip:
                    self._skipped |= {place, place.removeprefix("obs/"), self._feature_of(place) or place}
                    continue
                kind = self._kind(demo, place, self.path, may_be_images=place.startswith("obs/"))
                rows = dataset(demo, place, self.path).shape[:1]
                if "/" in place and not place.startswith(("obs/", lead)) and rows != length:
                    self._skipped.add(place)
                    self.notes.append(f"{place} has {rows[0]} rows, not one a frame; left out")
                    continue
                found[place] = kind
        return found

    def _choose_state(self, state: Sequence[str] | None) -> list[str]:
        if state is None:
            for number, names in enumerate(_STATES):
                parts = [f"obs/{key}" for key in names]
                if all(key in self._arrays for key in parts) and len({self._arrays[key][1] for key in parts}) == 1:
                    if number:
                        self.notes.append(f"observation.state was made of {', '.join(names)} (state= says otherwise)")
                    return parts
            return []
        parts = [f"obs/{key}" for key in state]
        missing = [key for key in parts if key not in self._arrays]
        if missing:
            raise ImportSourceError(f"{self.path} has no observations {missing}; it has {sorted(self._arrays)}")
        if len({self._arrays[key][1] for key in parts}) > 1:
            raise ImportSourceError(f"{self.path}: the observations {parts} of the state have different types")
        return parts

    def _choose_cameras(self, cameras: Sequence[str] | None) -> dict[str, str]:
        there = {IMAGES + _CAMERA_SUFFIX.sub("", dotted(key.removeprefix("obs/"))): key for key in self._rules}
        if len(there) < len(self._rules):  # a camera as agentview_image and agentview_rgb
            there = {IMAGES + dotted(key.removeprefix("obs/")): key for key in self._rules}
        if cameras is None:
            return there
        keys = [name if name.startswith(IMAGES) else IMAGES + _CAMERA_SUFFIX.sub("", name) for name in cameras]
        return self._keep_cameras(there, keys)

    def _feature_of(self, key: str) -> str | None:
        """Feature of an array that is no camera; None where it is part of the state."""
        if key in getattr(self, "_state", ()):
            return None
        top, _, rest = key.partition("/")
        if top != "obs":
            whole = not rest or (top == "actions" and rest == "pose")
            return _OTHER[top] if whole else f"{_OTHER[top]}.{dotted(rest)}"
        return _SCENE.get(rest, OBSERVATION + dotted(rest))

    def _features(self) -> dict[str, FeatureSpec]:
        features: dict[str, FeatureSpec] = {}
        if self._state:
            shapes = [self._arrays[key][0] for key in self._state]
            names = [
                f"{key.removeprefix('obs/')}.{place}"
                for key, shape in zip(self._state, shapes, strict=True)
                for place in range(math.prod(shape))
            ]
            dtype = self._arrays[self._state[0]][1].newbyteorder("=").name
            features[STATE] = {"dtype": dtype, "shape": (len(names),), "names": names}
        for feature, key in self._images.items():
            features[feature] = self._rules[key].feature
        for key in self._arrays:
            name = None if key in self._rules else self._feature_of(key)
            if name in features:
                raise ImportSourceError(f"{self.path}: two arrays would be {name}; choose state=, or drop=[{key}]")
            if name is not None:
                features[name] = low_dim(self._arrays[key])
        for feature, made in features.items():
            restored_feature(feature, made, None, str(self.path))
        return features

    def _episode(
        self, number: int, data: h5py.Group, task: str, common: str, splits: dict[str, set[str]], shaped: bool
    ) -> SourceEpisode:
        name = self._demos[number]
        attributes: dict[str, object] = {"demo": name}
        if splits:
            attributes["masks"] = sorted(mask for mask, members in splits.items() if name in members)
        problem = self._problem(data, name)
        if problem:
            return SourceEpisode(number, 0, task, attributes=attributes, problem=problem)
        demo = subgroup(data, name, self.path)
        length = int(dataset(demo, self._actions(data, name), self.path).shape[0])
        own = attributes_of(demo, self.path)
        attributes = {**plain_notes(own), **attributes}
        success = outcome_in(own)
        if success is None and "rewards" in demo and not shaped:
            success = sparse_outcome(read(demo, "rewards", 0, length, self.path))
            attributes["_rewarded"] = success is not None
        return SourceEpisode(
            number, length, task or instruction_in(own) or instruction_beside(demo) or common, success, attributes
        )

    def _complete(self, environment: str) -> None:
        """What only all episodes together say: whether rewards were recorded at all, and a name for the task."""
        rewarded = [episode for episode in self.episodes if episode.attributes.get("_rewarded")]
        empty = bool(rewarded) and not any(episode.success for episode in rewarded)
        if empty:
            self.notes.append("the reward is 0 in every frame of every demonstration; nothing is concluded from it")
        named = any(episode.task for episode in self.episodes)
        if not named:
            stand_in = f"the environment's name {environment!r} stands in for it" if environment else "none was found"
            self.notes.append(f"the file holds no instruction; {stand_in} (task= gives one)")
        self.episodes = [
            SourceEpisode(
                episode.number,
                episode.length,
                episode.task or ("" if named else environment),
                None if empty and episode.attributes.get("_rewarded") else episode.success,
                {key: value for key, value in episode.attributes.items() if key != "_rewarded"},
                problem=episode.problem,
            )
            for episode in self.episodes
        ]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
