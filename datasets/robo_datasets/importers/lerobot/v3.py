"""LeRobot datasets of version 3.0: rows and frames of many episodes in one file; see ``robo_datasets.lerobot_layout``.

One that robo-rm exported comes back as it was: schema, stages, clocks, attributes. Of any other, subtasks are read from
``subtask_index`` or from the columns of LeRobot's SARM.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from robo_core.errors import ImportSourceError
from robo_datasets import lerobot_layout as v3
from robo_datasets.importers.columns import ColumnSpec, column_array, read_row_range
from robo_datasets.importers.files import expand_pattern
from robo_datasets.importers.lerobot.alignment import LeRobotReading, VideoPart
from robo_datasets.importers.lerobot.base import LeRobotSource
from robo_datasets.importers.lerobot.features import read_info
from robo_datasets.importers.lerobot.text import episode_tasks
from robo_datasets.importers.lerobot.v3_meta import (
    episode_outcomes,
    names_by_number,
    own_record,
    read_episode_rows,
    subtask_segments,
)
from robo_datasets.importers.lerobot.v3_places import EpisodePlace, episode_places, number_of
from robo_datasets.importers.source import SourceEpisode

_CLOCK: ColumnSpec = {"shape": (), "dtype": "float64"}


class LeRobotV3Source(LeRobotSource):
    """A LeRobot v3.0 folder; see ``robo_datasets.importers.source.Source``.

    Args:
        path: the folder.
        reading: cameras, size and how videos are aligned.
        annotation: which subtasks to read: auto, frames, sparse, dense or none.

    Raises:
        ImportSourceError: it is missing, malformed, or of another version.
    """

    def __init__(self, path: str | Path, reading: LeRobotReading | None = None, annotation: str = "auto") -> None:
        info = read_info(Path(path))
        version = str(info.get("codebase_version"))
        if not version.startswith("v3."):
            raise ImportSourceError(f"{path} is a LeRobot dataset of version {version}, not v3")
        super().__init__(Path(path), info, reading or LeRobotReading())
        self.format = f"lerobot-{version[1:]}"
        self._record = own_record(self.path)
        self.fps = self._rate()
        self.contract_hash: str | None = self._record.get("contract_hash")
        contract = self._record.get("contract")
        self.contract = contract if isinstance(contract, dict) else None
        # A store keeps the receiver's clock in an array of its own, whoever wrote the dataset.
        declared = list(self._declared.rows)
        self._added = [key for key in declared if key in (*self._record.get("added", ()), v3.RECEIVE_TIME)]
        hidden = {*self._added}
        if (self.path / v3.SUBTASKS_FILE).exists() and v3.SUBTASK not in self._record.get("features", {}):
            hidden.add(v3.SUBTASK)
        for key in hidden & self._declared.rows.keys():
            del self._declared.rows[key]
        rows = read_episode_rows(self.path)
        videos = [key for key in self._cameras if self._declared.cameras[key]["dtype"] == "video"]
        self._places = episode_places(rows.values, self._data_path, videos, self.path)
        self._fillings = self._video_fillings()
        tasks_file = self.path / v3.TASKS_FILE
        self._tasks = names_by_number(tasks_file, "task_index") if tasks_file.exists() else {}
        found = subtask_segments(self.path, rows.values, self._places, annotation, self._record.get("stages"))
        self.stage_names: list[str] | None = found.names
        outcomes = episode_outcomes(rows.values, self._places, declared)
        self.outcome_known = v3.SUCCESS in (rows.values[0] if rows.values else {})
        names = {number_of(row): str(row.get(v3.UUID) or "") for row in rows.values}
        self._listed = {number_of(row): _listed(row) for row in rows.values}
        self.episodes = [
            SourceEpisode(
                number,
                place.length,
                self._task(number, place),
                outcomes[number].success,
                outcomes[number].attributes,
                found.segments.get(number, ()),
                place.problem,
                names.get(number, ""),
            )
            for number, place in self._places.items()
        ]
        self._tasks_change = any(len(self._runs(number)[0]) > 1 for number in self._places)
        self._set_up(self._record.get("features"))

    def place(self, episode: SourceEpisode) -> str:
        """Rows and seconds of the episode in its files."""
        place = self._places[episode.number]
        return f"{place.start}+{place.length} {sorted(place.videos.items())}"

    def _runs(self, number: int) -> tuple[list[tuple[int, int, str]], str]:
        return episode_tasks(self._places[number].tasks, self._tasks, self._listed[number], number)

    def _task_runs(self, episode: SourceEpisode, table: pa.Table) -> tuple[list[tuple[int, int, str]], str]:
        return self._runs(episode.number)

    def _task(self, number: int, place: EpisodePlace) -> str:
        runs, _ = self._runs(number)
        if runs and runs[0][2]:
            return runs[0][2]
        only = next(iter(self._tasks.values())) if len(self._tasks) == 1 else ""
        return next(iter(self._listed[number]), only)

    def _table(self, episode: SourceEpisode, columns: list[str]) -> pa.Table:
        place = self._places[episode.number]
        if place.problem:
            raise ImportSourceError(place.problem)
        clocks = [key for key in (v3.SOURCE_TIME, v3.RECEIVE_TIME) if key in self._added]
        table = read_row_range(place.data, [*columns, *clocks], place.start, place.length)
        if "episode_index" in table.column_names:
            where = f"{place.data} (episode {episode.number})"
            numbers = column_array(table, "episode_index", {"shape": (), "dtype": "int64"}, where)
            if (numbers != episode.number).any():
                raise ImportSourceError(f"{where}: the rows that meta/episodes gives it belong to episode {numbers[0]}")
        return table

    def _data_file(self, episode: SourceEpisode) -> Path:
        return self._places[episode.number].data

    def _video(self, episode: SourceEpisode, key: str) -> VideoPart:
        where = f"{self.path / v3.INFO_FILE}: video_path"
        problem, videos = self._places[episode.number].problem, self._places[episode.number].videos
        if problem:
            raise ImportSourceError(problem)
        place = videos[key]
        path = expand_pattern(
            self.path,
            self._info.get("video_path"),
            where,
            chunk_index=place.chunk,
            file_index=place.file,
            video_key=key,
        )
        first, total, before = self._fillings[key, place.chunk, place.file]
        return VideoPart(path, place.start, first, alone=False, before=before[episode.number], total=total)

    def _video_fillings(self) -> dict[tuple[str, int, int], tuple[float, int, dict[int, int]]]:
        """Of every video file: where its first episode starts, frames of all, and frames in front of each episode."""
        members: dict[tuple[str, int, int], list[tuple[float, int, int]]] = {}
        for number, place in self._places.items():
            for key, video in place.videos.items():
                members.setdefault((key, video.chunk, video.file), []).append((video.start, number, place.length))
        fillings = {}
        for file, found in members.items():
            before, total = {}, 0
            for _, number, length in sorted(found):
                before[number] = total
                total += length
            fillings[file] = min(found)[0], total, before
        return fillings

    def _own_times(self, table: pa.Table, where: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        times = received = None
        if v3.SOURCE_TIME in self._added:
            times = column_array(table, v3.SOURCE_TIME, _CLOCK, where)
        if v3.RECEIVE_TIME in self._added:
            received = column_array(table, v3.RECEIVE_TIME, _CLOCK, where)
            received = None if np.isnan(received).all() else received
        return times, received

    def _data_path(self, chunk: int, file: int) -> Path:
        where = f"{self.path / v3.INFO_FILE}: data_path"
        return expand_pattern(self.path, self._info.get("data_path"), where, chunk_index=chunk, file_index=file)

    def _rate(self) -> float:
        value = self._record.get("fps", self._info.get("fps"))
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e6:
            raise ImportSourceError(f"{self.path / v3.INFO_FILE}: fps is {value!r}, a positive number is needed")
        return float(value)


def _listed(row: dict[str, object]) -> list[str]:
    """The episode's own list of instructions."""
    named = row.get("tasks")
    named = [named] if isinstance(named, str) else named
    return [task for task in named if isinstance(task, str) and task] if isinstance(named, list) else []


def is_v3(path: str | Path) -> bool:
    """Whether a folder is a LeRobot dataset of version 3.

    Raises:
        ImportSourceError: it is not a LeRobot dataset.
    """
    return str(read_info(Path(path)).get("codebase_version")).startswith("v3.")
