"""LeRobot data sets of version 2.0 and 2.1: one parquet and one mp4 a camera for each episode.

meta/info.json  meta/episodes.jsonl  meta/tasks.jsonl
data/chunk-000/episode_000000.parquet
videos/chunk-000/observation.images.<camera>/episode_000000.mp4
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robo_datasets.errors import ImportSourceError
from robo_datasets.features import BOOKKEEPING, LOW_DIM_DTYPES
from robo_datasets.importers.columns import column_array, parquet_rows, parquet_schema, read_table
from robo_datasets.importers.files import expand_pattern
from robo_datasets.importers.source import Source, SourceEpisode, SourceFrame
from robo_datasets.jpeg import resize
from robo_datasets.video import video_frames, video_header

FRAME_DTYPES = ("video", "image")
SUCCESS = "next.success"
_META = ("meta/info.json", "meta/episodes.jsonl", "meta/tasks.jsonl")


class LeRobotV2Source(Source):
    """A LeRobot v2.0 or v2.1 folder; see ``robo_datasets.importers.source.Source``.

    Raises:
        ImportSourceError: it is missing, malformed, or of another version.
    """

    def __init__(
        self, path: str | Path, cameras: Sequence[str] | None = None, size: tuple[int, int] | None = None
    ) -> None:
        self.path = Path(path)
        self._info = read_info(self.path)
        version = str(self._info.get("codebase_version"))
        if version not in ("v2.0", "v2.1"):
            raise ImportSourceError(f"{self.path} is a LeRobot data set of version {version}, not v2.0 or v2.1")
        self.format = f"lerobot-{version[1:]}"
        self.fps = _number(self._info, "fps", self.path)
        robot = self._info.get("robot_type")
        self.robot = robot if isinstance(robot, str) and robot != "unknown" else None
        self._size = size
        self._declared = declared_features(self._info, self.path)
        self._cameras = choose_cameras(self._declared, cameras, self.path)
        self._low_dim = [key for key, entry in self._declared.items() if entry["dtype"] in LOW_DIM_DTYPES]
        self.features = {key: self._feature(key) for key in self._declared if key in (*self._cameras, *self._low_dim)}
        self._tasks = self._read_tasks()
        self.episodes = self._read_episodes()
        if SUCCESS in self._declared:
            self.episodes = [replace(episode, success=self._succeeded(episode)) for episode in self.episodes]

    def check(self, episode: SourceEpisode) -> None:
        """Check that the episode's files are there, readable, and as long as declared."""
        path = self._data_path(episode)
        rows, names = parquet_rows(path), parquet_schema(path).names
        self._same_length(path, rows, episode)
        wanted = [*self._low_dim, *self._embedded(), "timestamp"]
        missing = [name for name in wanted if name not in names]
        if missing:
            raise ImportSourceError(f"{path} lacks the columns {missing}; it has {names}")
        for key in self._videos():
            path = self._video_path(episode, key)
            header = video_header(path)
            if header.frames:
                self._same_length(path, header.frames, episode)
            height, width, _ = self._declared[key]["shape"]
            if (header.height, header.width) != (height, width):
                raise ImportSourceError(
                    f"{path} (episode {episode.number}) is {header.height}x{header.width}, {key} is declared "
                    f"{height}x{width}"
                )

    def frames(self, episode: SourceEpisode) -> Iterator[SourceFrame]:
        """Yield the episode's frames, images resized where a size was asked for."""
        path = self._data_path(episode)
        table = read_table(path, [*self._low_dim, *self._embedded(), "timestamp"])
        where = f"{path} (episode {episode.number})"
        self._same_length(path, table.num_rows, episode)
        columns = {key: column_array(table, key, self._declared[key], where) for key in self._low_dim}
        stamps = column_array(table, "timestamp", {"shape": (), "dtype": "float64"}, where)
        images: dict[str, Iterator[np.ndarray]] = {
            key: video_frames(self._video_path(episode, key)) for key in self._videos()
        }
        images |= {key: embedded_images(table, key, where) for key in self._embedded()}
        for row in range(episode.length):
            values = {key: column[row] for key, column in columns.items()}
            for key, frames in images.items():
                values[key] = self._image(next(frames, None), key, row, episode)
            yield SourceFrame(values, float(stamps[row]))
        for key, frames in images.items():
            if next(frames, None) is not None:
                raise ImportSourceError(
                    f"{self._video_path(episode, key)} has more frames than episode {episode.number}, which has "
                    f"{episode.length}"
                )

    def _succeeded(self, episode: SourceEpisode) -> bool:
        """Whether ``next.success`` was ever true."""
        path = self._data_path(episode)
        entry = {"shape": (), "dtype": "float64"}
        column = column_array(read_table(path, [SUCCESS]), SUCCESS, entry, f"{path} (episode {episode.number})")
        return bool((column > 0).any())

    def _image(self, frame: np.ndarray | None, key: str, row: int, episode: SourceEpisode) -> np.ndarray:
        where = self._video_path(episode, key) if key in self._videos() else self._data_path(episode)
        if frame is None:
            raise ImportSourceError(
                f"{where} ends at frame {row}, episode {episode.number} has {episode.length}: it is truncated"
            )
        if frame.shape != self._declared[key]["shape"]:
            raise ImportSourceError(
                f"{where}, frame {row} of episode {episode.number} is {frame.shape}, {key} is declared "
                f"{self._declared[key]['shape']}"
            )
        return frame if self._size is None else resize(frame, self._size)

    def _feature(self, key: str) -> dict[str, Any]:
        entry = self._declared[key]
        shape = tuple(entry["shape"])
        if key in self._cameras:
            shape = shape if self._size is None else (*self._size, shape[2])
            return {"dtype": "uint8", "shape": shape, "names": ["height", "width", "channel"]}
        return {"dtype": entry["dtype"], "shape": shape, "names": entry.get("names")}

    def _videos(self) -> list[str]:
        return [key for key in self._cameras if self._declared[key]["dtype"] == "video"]

    def _embedded(self) -> list[str]:
        return [key for key in self._cameras if self._declared[key]["dtype"] == "image"]

    def _data_path(self, episode: SourceEpisode) -> Path:
        return self._expand("data_path", episode)

    def _video_path(self, episode: SourceEpisode, key: str) -> Path:
        return self._expand("video_path", episode, video_key=key)

    def _expand(self, name: str, episode: SourceEpisode, **more: str) -> Path:
        chunks = self._info.get("chunks_size")
        where = f"{self.path / _META[0]}: {name}"
        if not isinstance(chunks, int) or isinstance(chunks, bool) or chunks < 1:
            raise ImportSourceError(f"{self.path / _META[0]} lacks a usable chunks_size")
        chunk = episode.number // chunks
        return expand_pattern(
            self.path, self._info.get(name), where, episode_chunk=chunk, episode_index=episode.number, **more
        )

    def _same_length(self, path: Path, found: int, episode: SourceEpisode) -> None:
        if found != episode.length:
            raise ImportSourceError(
                f"{path} has {found} frames, episode {episode.number} is declared with {episode.length}"
            )

    def _read_tasks(self) -> dict[int, str]:
        path = self.path / "meta/tasks.jsonl"
        return {_index(line, "task_index", path): str(line.get("task", "")) for line in read_json_lines(path)}

    def _read_episodes(self) -> list[SourceEpisode]:
        path = self.path / "meta/episodes.jsonl"
        episodes = []
        for line in read_json_lines(path):
            number, length = _index(line, "episode_index", path), _index(line, "length", path)
            tasks = line.get("tasks")
            if not isinstance(tasks, list) or length < 1:
                raise ImportSourceError(f"{path}: episode {number} needs tasks and a length of at least one frame")
            more = {"tasks": tasks} if len(tasks) > 1 else {}
            episodes.append(SourceEpisode(number, length, str(tasks[0]) if tasks else "", attributes=more))
        numbers = [episode.number for episode in episodes]
        if len(set(numbers)) != len(numbers):
            raise ImportSourceError(f"{path} lists an episode twice")
        declared = self._info.get("total_episodes")
        if isinstance(declared, int) and declared != len(episodes):
            raise ImportSourceError(f"{path} lists {len(episodes)} episodes, {_META[0]} declares {declared}")
        return episodes


def read_info(path: Path) -> dict[str, Any]:
    """Read ``meta/info.json`` of a LeRobot data set of any version.

    Raises:
        ImportSourceError: the folder is missing or is no LeRobot data set.
    """
    if not path.is_dir():
        raise ImportSourceError(f"there is no folder {path}; give the LeRobot data set as source=DIR")
    file = path / "meta/info.json"
    if not file.is_file():
        raise ImportSourceError(f"{path} is no LeRobot data set: {file} is missing")
    try:
        info = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ImportSourceError(f"{file} is not JSON: {error}") from error
    if not isinstance(info, dict):
        raise ImportSourceError(f"{file} must hold a JSON object")
    return info


def declared_features(info: dict[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """The features that ``info.json`` declares, without LeRobot's bookkeeping and text columns.

    Raises:
        ImportSourceError: they are malformed; names the key.
    """
    features = info.get("features")
    file = path / "meta/info.json"
    if not isinstance(features, dict) or not features:
        raise ImportSourceError(f"{file} declares no features")
    declared = {}
    for key, entry in features.items():
        if key in BOOKKEEPING:
            continue
        shape, dtype = (entry.get("shape"), entry.get("dtype")) if isinstance(entry, dict) else (None, None)
        if not isinstance(shape, list) or not all(isinstance(side, int) and side > 0 for side in shape):
            raise ImportSourceError(f"{file}: feature {key} has the shape {shape!r}")
        if dtype == "string":
            continue
        if dtype not in (*LOW_DIM_DTYPES, *FRAME_DTYPES):
            raise ImportSourceError(f"{file}: feature {key} has the unknown dtype {dtype!r}")
        if dtype in FRAME_DTYPES:
            shape = _channels_last(shape, entry.get("names"), key, file)
        declared[key] = {**entry, "shape": tuple(shape)}
    return declared


def choose_cameras(declared: dict[str, dict[str, Any]], wanted: Sequence[str] | None, path: Path) -> list[str]:
    """Keys of the cameras to import: all, or those named (``cam_high`` or the full key).

    Raises:
        ImportSourceError: a camera that the data set does not have.
    """
    there = [key for key, entry in declared.items() if entry["dtype"] in FRAME_DTYPES]
    if wanted is None:
        return there
    chosen = []
    for name in wanted:
        matches = [key for key in there if key == name or key.removeprefix("observation.images.") == name]
        if not matches:
            raise ImportSourceError(f"{path} has no camera {name!r}; it has {there}")
        chosen += matches
    return [key for key in there if key in chosen]


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line.

    Raises:
        ImportSourceError: it is missing or malformed; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ImportSourceError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ImportSourceError(f"{path} is no text: {error}") from error
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ImportSourceError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise ImportSourceError(f"{path}, line {number} must hold a JSON object")
        lines.append(value)
    return lines


def _channels_last(shape: list[int], names: Any, key: str, file: Path) -> list[int]:
    if len(shape) != 3:
        raise ImportSourceError(f"{file}: camera {key} has the shape {shape}, three sides are needed")
    if isinstance(names, list) and names and str(names[0]).startswith("channel"):
        shape = [shape[1], shape[2], shape[0]]
    if shape[2] not in (1, 3):
        raise ImportSourceError(f"{file}: camera {key} has {shape[2]} channels; 1 or 3 are read")
    return shape


def embedded_images(table: Any, key: str, where: str) -> Iterator[np.ndarray]:
    """Images that stand in the parquet file itself as PNG or JPEG."""
    for row, cell in enumerate(table[key].to_pylist()):
        data = cell.get("bytes") if isinstance(cell, dict) else None
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        except cv2.error as error:
            raise ImportSourceError(f"{where}: column {key}, frame {row}: {error.err}") from error
        if image is None:
            raise ImportSourceError(f"{where}: column {key}, frame {row} holds no image")
        yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _index(line: dict[str, Any], key: str, path: Path) -> int:
    value = line.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ImportSourceError(f"{path}: {key} is {value!r}, a whole number is needed")
    return value


def _number(info: dict[str, Any], key: str, path: Path) -> float:
    value = info.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ImportSourceError(f"{path / _META[0]}: {key} is {value!r}, a positive number is needed")
    return float(value)
