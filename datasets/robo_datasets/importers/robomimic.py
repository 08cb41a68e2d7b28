"""robomimic HDF5 files: one group a demonstration.

data                    attributes: env_args (JSON: env_name, env_kwargs.control_freq, .robots)
data/demo_3/obs/<key>   (T, ...) observations; images are uint8 (T, H, W, 3)
data/demo_3/actions  states  rewards  dones
mask/<name>             names of the demonstrations in a split
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robo_datasets.errors import ImportSourceError
from robo_datasets.features import LOW_DIM_DTYPES
from robo_datasets.importers.files import counting_order
from robo_datasets.importers.restored import restored_feature
from robo_datasets.importers.source import Source, SourceEpisode, SourceFrame
from robo_datasets.jpeg import resize

IMAGES, OBSERVATION, STATE = "observation.images.", "observation.", "observation.state"

# Where a data set has them, these make up the robot's state; "object" is the state of the scene.
_STATE_PARTS = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
_OTHER = {
    "actions": "action",
    "actions_abs": "action.absolute",
    "states": "simulator.state",
    "rewards": "next.reward",
    "dones": "next.done",
}
_SCENE = {"object": "observation.environment_state"}
_NAMES = ["height", "width", "channel"]
# gzip packs at most about 1030 to 1; a shape that promises more was made up.
_MOST_PACKED = 1100
_BLOCK = 64


class RobomimicSource(Source):
    """A robomimic HDF5 file; see ``robo_datasets.importers.source.Source``.

    Args:
        path: the file.
        cameras: cameras to keep, all by default.
        size: (height, width) to scale frames to.
        fps: frames a second; the environment's control frequency by default.
        state: observations that together make up observation.state.
        task: the instruction of all episodes; the environment's name by default.
        mask: name of the split to import; everything by default.

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
    ) -> None:
        self.path = Path(path)
        self._size = size
        with opened(self.path) as file:
            data = _group(file, "data", self.path)
            environment = _environment(data, self.path)
            settings = environment.get("env_kwargs")
            settings = settings if isinstance(settings, dict) else {}
            self.fps = _rate(fps, settings.get("control_freq"), self.path)
            robots = settings.get("robots")
            self.robot: str | None = "+".join(map(str, robots)) if isinstance(robots, list) else _text(robots)
            self._demos = self._choose_demos(file, data, mask)
            first = _group(data, self._demos[0], self.path)
            self._arrays = self._read_arrays(first)
            self._state = self._choose_state(state)
            self._images = self._choose_cameras(cameras)
            self.features = self._features()
            masks = _masks(file, self.path)
            name = task or _text(environment.get("env_name")) or ""
            shaped = bool(settings.get("reward_shaping"))
            self.episodes = [
                self._episode(number, _group(data, demo, self.path), name, masks, shaped)
                for number, demo in enumerate(self._demos)
            ]

    def check(self, episode: SourceEpisode) -> None:
        """Check that the demonstration has the arrays of the first, with the same shapes and types."""
        with opened(self.path) as file:
            demo = self._demo(file, episode)
            for key, (shape, dtype) in self._wanted().items():
                array = _dataset(demo, key, self.path)
                if array.shape != (episode.length, *shape) or array.dtype != dtype:
                    raise ImportSourceError(
                        f"{self.path}: {array.name} is {array.shape} {array.dtype}; {(episode.length, *shape)} {dtype} "
                        "is expected from its actions and the first demonstration"
                    )

    def frames(self, episode: SourceEpisode) -> Iterator[SourceFrame]:
        """Yield the demonstration's frames."""
        with opened(self.path) as file:
            demo = self._demo(file, episode)
            for start in range(0, episode.length, _BLOCK):
                stop = min(start + _BLOCK, episode.length)
                rows = {key: _read(demo, key, start, stop, self.path) for key in self._wanted()}
                columns = self._columns(rows, stop - start)
                for row in range(stop - start):
                    values = {feature: column[row] for feature, column in columns.items()}
                    for feature in self._images:
                        values[feature] = self._fit(values[feature])
                    yield SourceFrame(values, (start + row) / self.fps)

    def _columns(self, rows: dict[str, np.ndarray], length: int) -> dict[str, np.ndarray]:
        columns = {}
        for key, column in rows.items():
            feature = self._feature_of(key)
            if feature is not None:
                columns[feature] = column.reshape(length, *(self._arrays[key][0] or (1,)))
        if self._state:
            columns[STATE] = np.concatenate([rows[key].reshape(length, -1) for key in self._state], 1)
        return columns

    def _fit(self, frame: np.ndarray) -> np.ndarray:
        return frame if self._size is None else resize(frame, self._size).reshape(*self._size, frame.shape[2])

    def _demo(self, file: h5py.File, episode: SourceEpisode) -> h5py.Group:
        return _group(_group(file, "data", self.path), self._demos[episode.number], self.path)

    def _choose_demos(self, file: h5py.File, data: h5py.Group, mask: str) -> list[str]:
        demos = sorted((name for name in data if name.startswith("demo")), key=counting_order)
        if mask:
            masks = _masks(file, self.path)
            if mask not in masks:
                raise ImportSourceError(f"{self.path} has no mask {mask!r}; it has {sorted(masks)}")
            demos = [name for name in demos if name in masks[mask]]
        if not demos:
            raise ImportSourceError(f"{self.path} holds no demonstrations")
        return demos

    def _read_arrays(self, demo: h5py.Group) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Path below a demonstration to shape of a row and type, of everything that is imported."""
        found = {}
        places = [key for key in _OTHER if key in demo]
        if "actions" not in places:
            raise ImportSourceError(f"{self.path}: {demo.name} has no actions")
        if "obs" in demo:
            places += [f"obs/{key}" for key in sorted(_group(demo, "obs", self.path))]
        for key in places:
            array = _dataset(demo, key, self.path)
            dtype = array.dtype.newbyteorder("=")
            if dtype.name not in LOW_DIM_DTYPES or not array.shape:
                kind = f"{array.shape} {array.dtype}"
                raise ImportSourceError(f"{self.path}: {array.name} is {kind}; only numbers are read")
            found[key] = (tuple(array.shape[1:]), array.dtype)
        return found

    def _choose_state(self, state: Sequence[str] | None) -> list[str]:
        if state is None:
            parts = [f"obs/{key}" for key in _STATE_PARTS]
            return parts if all(key in self._arrays for key in parts) else []
        parts = [f"obs/{key}" for key in state]
        missing = [key for key in parts if key not in self._arrays]
        if missing:
            raise ImportSourceError(f"{self.path} has no observations {missing}; it has {sorted(self._arrays)}")
        if len({self._arrays[key][1] for key in parts}) > 1:
            raise ImportSourceError(f"{self.path}: the observations {parts} of the state have different types")
        return parts

    def _choose_cameras(self, cameras: Sequence[str] | None) -> dict[str, str]:
        there = {}
        for key, (shape, dtype) in self._arrays.items():
            if key.startswith("obs/") and len(shape) == 3 and shape[2] in (1, 3) and dtype == np.uint8:
                there[IMAGES + key.removeprefix("obs/").removesuffix("_image")] = key
        if cameras is None:
            return there
        keys = [name if name.startswith(IMAGES) else IMAGES + name.removesuffix("_image") for name in cameras]
        missing = [key for key in keys if key not in there]
        if missing:
            raise ImportSourceError(f"{self.path} has no cameras {missing}; it has {sorted(there)}")
        dropped = {value for key, value in there.items() if key not in keys}
        self._arrays = {key: value for key, value in self._arrays.items() if key not in dropped}
        return {key: value for key, value in there.items() if key in keys}

    def _wanted(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        return self._arrays

    def _feature_of(self, key: str) -> str | None:
        """Feature of an array; None where it is part of the state."""
        if key in self._state:
            return None
        for feature, camera in self._images.items():
            if camera == key:
                return feature
        name = key.removeprefix("obs/")
        return _OTHER[key] if key in _OTHER else _SCENE.get(name, OBSERVATION + name)

    def _features(self) -> dict[str, dict[str, Any]]:
        features: dict[str, dict[str, Any]] = {}
        if self._state:
            shapes = [self._arrays[key][0] for key in self._state]
            names = [
                f"{key.removeprefix('obs/')}.{place}"
                for key, shape in zip(self._state, shapes, strict=True)
                for place in range(math.prod(shape))
            ]
            dtype = self._arrays[self._state[0]][1].newbyteorder("=").name
            features[STATE] = {"dtype": dtype, "shape": (len(names),), "names": names}
        for key, (shape, kind) in self._arrays.items():
            feature = self._feature_of(key)
            if feature is None:
                continue
            if feature in features:
                raise ImportSourceError(f"{self.path}: two arrays would be {feature}; choose state=")
            if feature in self._images and self._size is not None:
                shape = (*self._size, shape[2])
            names_of = _NAMES if feature in self._images else None
            features[feature] = {"dtype": kind.newbyteorder("=").name, "shape": shape or (1,), "names": names_of}
        for feature, made in features.items():
            restored_feature(feature, made, None, str(self.path))
        return features

    def _episode(
        self, number: int, demo: h5py.Group, task: str, masks: dict[str, set[str]], shaped: bool
    ) -> SourceEpisode:
        actions = _dataset(demo, "actions", self.path)
        if not actions.shape or actions.shape[0] < 1:
            raise ImportSourceError(f"{self.path}: {demo.name} has no frames")
        length = int(actions.shape[0])
        success = None
        if "rewards" in demo and not shaped:
            rewards = _read(demo, "rewards", 0, length, self.path)
            success = bool((rewards >= 1).any())
        name = self._demos[number]
        attributes: dict[str, Any] = {"demo": name}
        if masks:
            attributes["masks"] = sorted(mask for mask, members in masks.items() if name in members)
        return SourceEpisode(number, length, task, success, attributes)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, read only.

    Raises:
        ImportSourceError: it is missing, truncated, or no HDF5.
    """
    if not path.is_file():
        raise ImportSourceError(f"there is no file {path}; give the robomimic .hdf5 file as source=FILE")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise ImportSourceError(f"{path} is truncated or no HDF5 file: {str(error).splitlines()[0]}") from error
    with file:
        yield file


def _member(group: h5py.Group, name: str, path: Path) -> Any:
    """A member of a group that stands in this very file."""
    try:
        for part in name.split("/"):
            link = group.get(part, getlink=True)
            if link is None:
                raise ImportSourceError(f"{path}: {group.name} has no {part}")
            if not isinstance(link, h5py.HardLink):
                raise ImportSourceError(f"{path}: {group.name}/{part} is a link to elsewhere, which is not followed")
            group = group[part]
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ImportSourceError(f"{path}: {group.name}/{name} is damaged: {str(error).splitlines()[0]}") from error
    return group


def _group(group: h5py.Group, name: str, path: Path) -> h5py.Group:
    found = _member(group, name, path)
    if not isinstance(found, h5py.Group):
        raise ImportSourceError(f"{path}: {found.name} is no group")
    return found


def _dataset(group: h5py.Group, name: str, path: Path) -> h5py.Dataset:
    found = _member(group, name, path)
    if not isinstance(found, h5py.Dataset):
        raise ImportSourceError(f"{path}: {found.name} is no array")
    if found.external or found.is_virtual:
        raise ImportSourceError(f"{path}: {found.name} keeps its data in other files, which are not read")
    if found.size and found.nbytes > _MOST_PACKED * max(found.id.get_storage_size(), 1):
        raise ImportSourceError(
            f"{path}: {found.name} is declared {found.shape} {found.dtype}, the file holds "
            f"{found.id.get_storage_size()} bytes of it"
        )
    return found


def _read(group: h5py.Group, name: str, start: int, stop: int, path: Path) -> np.ndarray:
    array = _dataset(group, name, path)
    try:
        rows = np.asarray(array[start:stop])
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        raise ImportSourceError(f"{path}: {array.name} is damaged: {str(error).splitlines()[0]}") from error
    return rows.astype(rows.dtype.newbyteorder("="), copy=False)


def _environment(data: h5py.Group, path: Path) -> dict[str, Any]:
    try:
        text = data.attrs.get("env_args")
        found = json.loads(text) if text is not None else {}
    except (ValueError, TypeError, OSError, RecursionError) as error:
        raise ImportSourceError(f"{path}: the attribute env_args of data is no JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def _masks(file: h5py.File, path: Path) -> dict[str, set[str]]:
    if "mask" not in file:
        return {}
    masks = {}
    group = _group(file, "mask", path)
    for name in group:
        array = _dataset(group, name, path)
        try:
            masks[name] = {
                item.decode() if isinstance(item, bytes) else str(item) for item in array[()].ravel().tolist()
            }
        except (OSError, AttributeError, UnicodeDecodeError) as error:
            raise ImportSourceError(f"{path}: {array.name} is no list of names: {error}") from error
    return masks


def _rate(given: float | None, declared: Any, path: Path) -> float:
    value = declared if given is None else given
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e6:
        raise ImportSourceError(f"{path} does not say how many frames a second it has; give, say, fps=20")
    return float(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
