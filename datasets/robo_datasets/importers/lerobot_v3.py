"""LeRobot data sets of version 3.0: rows and frames of many episodes in one file; see ``robo_datasets.lerobot_v3``.

One that robo-rm exported comes back as it was: schema, stages, clocks, attributes. Of any other, subtasks are read from
``subtask_index`` or from the columns of LeRobot's SARM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robo_datasets import lerobot_v3 as v3
from robo_datasets.errors import ImportSourceError
from robo_datasets.features import LOW_DIM_DTYPES
from robo_datasets.importers.columns import column_array, parquet_schema, read_row_range
from robo_datasets.importers.files import expand_pattern
from robo_datasets.importers.lerobot_v2 import choose_cameras, declared_features, embedded_images, read_info
from robo_datasets.importers.lerobot_v3_meta import (
    EpisodePlace,
    episode_outcomes,
    episode_places,
    names_by_number,
    own_record,
    read_episode_rows,
    subtask_segments,
)
from robo_datasets.importers.restored import restored_feature
from robo_datasets.importers.source import Source, SourceEpisode, SourceFrame
from robo_datasets.jpeg import resize
from robo_datasets.video import frames_at, video_header


class LeRobotV3Source(Source):
    """A LeRobot v3.0 folder; see ``robo_datasets.importers.source.Source``.

    Args:
        path: the folder.
        cameras: cameras to keep, all by default.
        size: (height, width) to scale frames to.
        annotation: which subtasks to read: auto, frames, sparse, dense or none.

    Raises:
        ImportSourceError: it is missing, malformed, or of another version.
    """

    def __init__(
        self,
        path: str | Path,
        cameras: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        annotation: str = "auto",
    ) -> None:
        self.path = Path(path)
        self._info = read_info(self.path)
        version = str(self._info.get("codebase_version"))
        if not version.startswith("v3."):
            raise ImportSourceError(f"{self.path} is a LeRobot data set of version {version}, not v3")
        self.format = f"lerobot-{version[1:]}"
        self._record = own_record(self.path)
        self.fps = self._rate()
        robot = self._info.get("robot_type")
        self.robot = robot if isinstance(robot, str) and robot != "unknown" else None
        self.contract_hash: str | None = self._record.get("contract_hash")
        contract = self._record.get("contract")
        self.contract: dict[str, Any] | None = contract if isinstance(contract, dict) else None
        self._size = size
        declared = declared_features(self._info, self.path)
        # A store keeps the receiver's clock in an array of its own, whoever wrote the data set.
        self._added = [key for key in declared if key in (*self._record.get("added", ()), v3.RECEIVE_TIME)]
        hidden = {*self._added}
        if (self.path / v3.SUBTASKS_FILE).exists() and v3.SUBTASK not in self._record.get("features", {}):
            hidden.add(v3.SUBTASK)
        self._declared = {key: entry for key, entry in declared.items() if key not in hidden}
        self._cameras = choose_cameras(self._declared, cameras, self.path)
        self._low_dim = [key for key, entry in self._declared.items() if entry["dtype"] in LOW_DIM_DTYPES]
        self.features = {key: self._feature(key) for key in self._declared if key in (*self._cameras, *self._low_dim)}
        rows = read_episode_rows(self.path)
        self._places = episode_places(rows.values, self._data_path, self._videos(), self.path)
        tasks = names_by_number(self.path / v3.TASKS_FILE, "task_index")
        found = subtask_segments(self.path, rows.values, self._places, annotation, self._record.get("stages"))
        self.stage_names: list[str] | None = found.names
        outcomes = episode_outcomes(rows.values, self._places, list(declared))
        self.outcome_known = v3.SUCCESS in (rows.values[0] if rows.values else {})
        self.episodes = [
            SourceEpisode(
                number,
                place.length,
                _task(row, tasks),
                outcomes[number].success,
                outcomes[number].attributes,
                found.segments.get(number, ()),
            )
            for (number, place), row in zip(self._places.items(), rows.values, strict=True)
        ]

    def check(self, episode: SourceEpisode) -> None:
        """Check that the episode's columns are there and that its videos reach far enough."""
        place = self._places[episode.number]
        names = parquet_schema(place.data).names
        missing = [name for name in self._columns() if name not in names]
        if missing:
            raise ImportSourceError(f"{place.data} lacks the columns {missing}; it has {names}")
        for key in self._videos():
            path = self._video_path(place, key)
            header = video_header(path)
            height, width, _ = self._declared[key]["shape"]
            if (header.height, header.width) != (height, width):
                raise ImportSourceError(
                    f"{path} (episode {episode.number}) is {header.height}x{header.width}, {key} is declared "
                    f"{height}x{width}"
                )
            needed = round(place.videos[key].start * self.fps) + episode.length
            if header.frames and header.frames < needed:
                raise ImportSourceError(
                    f"{path} has {header.frames} frames, episode {episode.number} ends at frame {needed} of it"
                )

    def frames(self, episode: SourceEpisode) -> Iterator[SourceFrame]:
        """Yield the episode's frames, images resized where a size was asked for."""
        place = self._places[episode.number]
        where = f"{place.data} (episode {episode.number})"
        table = read_row_range(place.data, self._columns(), place.start, place.length)
        numbers = column_array(table, "episode_index", {"shape": (), "dtype": "int64"}, where)
        if (numbers != episode.number).any():
            raise ImportSourceError(f"{where}: the rows that meta/episodes gives it belong to episode {numbers[0]}")
        columns = {key: self._rows(table, key, where) for key in self._low_dim}
        stamps = column_array(table, "timestamp", {"shape": (), "dtype": "float64"}, where)
        images: dict[str, Iterator[np.ndarray]] = {
            key: frames_at(self._video_path(place, key), place.videos[key].start + stamps, 0.5 / self.fps)
            for key in self._videos()
        }
        images |= {key: embedded_images(table, key, where) for key in self._embedded()}
        times, received = stamps, None
        if v3.SOURCE_TIME in self._added:
            times = column_array(table, v3.SOURCE_TIME, {"shape": (), "dtype": "float64"}, where)
        if v3.RECEIVE_TIME in self._added:
            received = column_array(table, v3.RECEIVE_TIME, {"shape": (), "dtype": "float64"}, where)
            received = None if np.isnan(received).all() else received
        for row in range(episode.length):
            values = {key: column[row] for key, column in columns.items()}
            for key, frames in images.items():
                values[key] = self._image(next(frames, None), key, row, where)
            yield SourceFrame(values, float(times[row]), None if received is None else float(received[row]))

    def _rows(self, table: Any, key: str, where: str) -> np.ndarray:
        rows = column_array(table, key, self._declared[key], where)
        return rows.reshape(len(rows), *self.features[key]["shape"])

    def _image(self, frame: np.ndarray | None, key: str, row: int, where: str) -> np.ndarray:
        declared = self._declared[key]["shape"]
        if frame is None or frame.shape[:2] != declared[:2]:
            shape = None if frame is None else frame.shape
            raise ImportSourceError(f"{where}, frame {row}: the image is {shape}, {key} is declared {declared}")
        channels = self.features[key]["shape"][2]
        if channels == 1 and frame.shape[2] == 3:
            frame = frame[..., :1]
        if self._size is not None:
            frame = resize(frame, self._size).reshape(*self._size, channels)
        return np.ascontiguousarray(frame)

    def _feature(self, key: str) -> dict[str, Any]:
        entry = self._declared[key]
        camera = key in self._cameras
        names = ["height", "width", "channel"] if camera else entry.get("names")
        made = {"dtype": "uint8" if camera else entry["dtype"], "shape": entry["shape"], "names": names}
        made = restored_feature(key, made, self._record.get("features", {}).get(key), str(self.path / v3.INFO_FILE))
        if camera and self._size is not None:
            made["shape"] = (*self._size, made["shape"][2])
        return made

    def _columns(self) -> list[str]:
        times = [key for key in (v3.SOURCE_TIME, v3.RECEIVE_TIME) if key in self._added]
        return [*self._low_dim, *self._embedded(), "timestamp", "episode_index", *times]

    def _videos(self) -> list[str]:
        return [key for key in self._cameras if self._declared[key]["dtype"] == "video"]

    def _embedded(self) -> list[str]:
        return [key for key in self._cameras if self._declared[key]["dtype"] == "image"]

    def _data_path(self, chunk: int, file: int) -> Path:
        where = f"{self.path / v3.INFO_FILE}: data_path"
        return expand_pattern(self.path, self._info.get("data_path"), where, chunk_index=chunk, file_index=file)

    def _video_path(self, place: EpisodePlace, key: str) -> Path:
        where = f"{self.path / v3.INFO_FILE}: video_path"
        video = place.videos[key]
        return expand_pattern(
            self.path,
            self._info.get("video_path"),
            where,
            chunk_index=video.chunk,
            file_index=video.file,
            video_key=key,
        )

    def _rate(self) -> float:
        value = self._record.get("fps", self._info.get("fps"))
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e6:
            raise ImportSourceError(f"{self.path / v3.INFO_FILE}: fps is {value!r}, a positive number is needed")
        return float(value)


def _task(row: dict[str, Any], tasks: dict[int, str]) -> str:
    named = row.get("tasks")
    if isinstance(named, list) and named and isinstance(named[0], str):
        return str(named[0])
    return tasks[0] if len(tasks) == 1 else ""


def is_v3(path: str | Path) -> bool:
    """Whether a folder is a LeRobot data set of version 3.

    Raises:
        ImportSourceError: it is no LeRobot data set.
    """
    return str(read_info(Path(path)).get("codebase_version")).startswith("v3.")
