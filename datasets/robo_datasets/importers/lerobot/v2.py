"""LeRobot datasets of version 2.0 and 2.1: one parquet file and one mp4 a camera for each episode.

meta/info.json  meta/episodes.jsonl  meta/tasks.jsonl
data/chunk-000/episode_000000.parquet
videos/chunk-000/observation.images.<camera>/episode_000000.mp4
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from robo_core.errors import ImportSourceError
from robo_datasets.importers.columns import column_array, parquet_rows, read_table
from robo_datasets.importers.files import expand_pattern
from robo_datasets.importers.lerobot.alignment import LeRobotReading, VideoPart
from robo_datasets.importers.lerobot.base import LeRobotSource
from robo_datasets.importers.lerobot.features import read_info
from robo_datasets.importers.lerobot.text import episode_tasks
from robo_datasets.importers.lerobot.v3_places import whole
from robo_datasets.importers.lerobot_notes import SUCCESS_FEATURES, noted_attributes, noted_grade, noted_instruction
from robo_datasets.importers.source import SourceEpisode

# Episodes a chunk where info.json does not say; LeRobot's own default.
_CHUNK = 1000
_META = ("meta/info.json", "meta/episodes.jsonl", "meta/tasks.jsonl")


class LeRobotV2Source(LeRobotSource):
    """A LeRobot v2.0 or v2.1 folder; see ``robo_datasets.importers.source.Source``.

    Raises:
        ImportSourceError: it is missing, malformed, or of another version.
    """

    def __init__(self, path: str | Path, reading: LeRobotReading | None = None) -> None:
        info = read_info(Path(path))
        version = str(info.get("codebase_version"))
        if version not in ("v2.0", "v2.1"):
            raise ImportSourceError(
                f"{path} is a LeRobot dataset of version {version}; v2.0, v2.1 and v3.0 are read: "
                "convert it with LeRobot"
            )
        super().__init__(Path(path), info, reading or LeRobotReading())
        self.format = f"lerobot-{version[1:]}"
        self.fps = _number(info, "fps", self.path)
        self._tasks = self._read_tasks()
        self.episodes = self._read_episodes()
        self._tasks_change = any(len(listed) > 1 for listed in self._listed.values())
        done = next((key for key in SUCCESS_FEATURES if key in self._declared.rows), "")
        if done:
            self.episodes = [self._with_outcome(episode, done) for episode in self.episodes]
        self._set_up()

    def check(self, episode: SourceEpisode) -> None:
        """Check that the episode's files are there, readable, and as long as declared."""
        path = self._data_file(episode)
        rows = parquet_rows(path)
        if rows != episode.length:
            raise ImportSourceError(
                f"{path} has {rows} frames, episode {episode.number} is declared with {episode.length}"
            )
        super().check(episode)

    def place(self, episode: SourceEpisode) -> str:
        """Nothing: an episode's files hold nothing else."""
        return ""

    def _with_outcome(self, episode: SourceEpisode, key: str) -> SourceEpisode:
        """With whether the feature ``key`` was ever true, where the list of episodes does not say how it went."""
        if episode.success is not None:
            return episode
        path = self._data_file(episode)
        where = f"{path} (episode {episode.number})"
        try:
            column = column_array(read_table(path, [key]), key, {"shape": (), "dtype": "float64"}, where)
        except ImportSourceError as error:
            return replace(episode, problem=episode.problem or str(error))
        return replace(episode, success=bool((column > 0).any()))

    def _table(self, episode: SourceEpisode, columns: list[str]) -> pa.Table:
        return read_table(self._data_file(episode), columns)

    def _video(self, episode: SourceEpisode, key: str) -> VideoPart:
        return VideoPart(self._expand("video_path", episode, video_key=key))

    def _task_runs(self, episode: SourceEpisode, table: pa.Table) -> tuple[list[tuple[int, int, str]], str]:
        numbers = None
        if "task_index" in table.column_names:
            where = self._where(episode)
            numbers = column_array(table, "task_index", {"shape": (), "dtype": "int64"}, where)
        return episode_tasks(numbers, self._tasks, self._listed[episode.number], episode.number)

    def _data_file(self, episode: SourceEpisode) -> Path:
        return self._expand("data_path", episode)

    def _expand(self, name: str, episode: SourceEpisode, **more: str) -> Path:
        chunks = self._info.get("chunks_size", _CHUNK)
        where = f"{self.path / _META[0]}: {name}"
        if not isinstance(chunks, int) or isinstance(chunks, bool) or chunks < 1:
            raise ImportSourceError(f"{self.path / _META[0]} lacks a usable chunks_size")
        chunk = episode.number // chunks
        return expand_pattern(
            self.path, self._info.get(name), where, episode_chunk=chunk, episode_index=episode.number, **more
        )

    def _read_tasks(self) -> dict[int, str]:
        path = self.path / "meta/tasks.jsonl"
        if not path.is_file():
            return {}  # the list of episodes names them too, and what is found nowhere is said
        return {whole(line, "task_index", path): str(line.get("task", "")) for line in read_json_lines(path)}

    def _read_episodes(self) -> list[SourceEpisode]:
        path = self.path / "meta/episodes.jsonl"
        episodes = []
        for line in read_json_lines(path):
            number, length = whole(line, "episode_index", path), whole(line, "length", path)
            listed = line.get("tasks")
            listed = [listed] if isinstance(listed, str) else listed
            if listed is None and isinstance(line.get("task"), str):
                listed = [line["task"]]
            if listed is not None and not isinstance(listed, list):
                raise ImportSourceError(f"{path}: the tasks of episode {number} are {listed!r}, a list is needed")
            self._listed[number] = [str(task) for task in listed or [] if isinstance(task, str) and task]
            only = next(iter(self._tasks.values())) if len(self._tasks) == 1 else noted_instruction(line)
            task = next(iter(self._listed[number]), only)
            problem = "" if length else f"{path}: episode {number} has the length 0"
            grade = noted_grade(line)
            success = None if grade is None else grade.success
            episodes.append(SourceEpisode(number, length, task, success, noted_attributes(line), problem=problem))
        numbers = [episode.number for episode in episodes]
        if len(set(numbers)) != len(numbers):
            raise ImportSourceError(f"{path} lists an episode twice")
        declared = self._info.get("total_episodes")
        if isinstance(declared, int) and declared != len(episodes):
            raise ImportSourceError(
                f"{path} lists {len(episodes)} episodes, {_META[0]} declares {declared}: the copy is "
                "incomplete, or total_episodes is wrong"
            )
        return episodes


def read_json_lines(path: Path) -> list[dict[str, object]]:
    """Read a file of one JSON object a line.

    Raises:
        ImportSourceError: it is missing or malformed; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ImportSourceError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ImportSourceError(f"{path} is not text in UTF-8: {error}") from error
    lines = []
    # Not splitlines(): it also breaks at U+2028 and others, which JSON allows inside a text.
    for number, line in enumerate(text.split("\n"), 1):
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


def _number(info: Mapping[str, object], key: str, path: Path) -> float:
    value = info.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ImportSourceError(f"{path / _META[0]}: {key} is {value!r}, a positive number is needed")
    return float(value)
