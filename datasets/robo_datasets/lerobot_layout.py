"""Where things stand in a LeRobot v3.0 dataset, and what robo-rm adds to one so that nothing is lost on the way back.

    meta/info.json                                features, fps, path patterns
    meta/tasks.parquet  meta/subtasks.parquet     names, indexed by task_index and subtask_index
    meta/episodes/chunk-000/file-000.parquet      one row an episode: where its rows and frames stand
    meta/stats.json                               statistics of the whole
    data/chunk-000/file-000.parquet               rows of many episodes
    videos/<camera>/chunk-000/file-000.mp4        frames of many episodes, end to end

Added: columns of meta/episodes (``SUCCESS`` and the rest), columns of the data that ``ROBO_FILE`` lists as added, and
``ROBO_FILE`` itself. LeRobot reads past all of them.
"""

from __future__ import annotations

from typing import TypedDict

from robo_datasets.store.features import FeatureSpec

VERSION = "v3.0"
INFO_FILE = "meta/info.json"
STATS_FILE = "meta/stats.json"
TASKS_FILE = "meta/tasks.parquet"
SUBTASKS_FILE = "meta/subtasks.parquet"
EPISODES_FOLDER = "meta/episodes"
ROBO_FILE = "meta/robo_rm.json"
ROBO_FORMAT = 1


class ExportRecord(TypedDict, total=False):
    """``ROBO_FILE``: what the store says that LeRobot has no place for."""

    format: int
    features: dict[str, FeatureSpec]
    added: list[str]
    """Columns of the data files that the store keeps elsewhere."""
    fps: float
    stages: list[str]
    robot: str | None
    contract_hash: str | None
    contract: dict[str, object] | None
    store: str
    """Content hash of the store."""


CHUNK_SIZE = 1000
FILE_PATTERN = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATTERN = f"data/{FILE_PATTERN}.parquet"
VIDEO_PATTERN = "videos/{video_key}/" + FILE_PATTERN + ".mp4"
EPISODES_PATTERN = f"{EPISODES_FOLDER}/{FILE_PATTERN}.parquet"

# Per-frame columns. LeRobot's loader turns subtask_index into the text "subtask" of a sample.
SUBTASK = "subtask_index"
DONE = "next.done"
SOURCE_TIME = "source_timestamp"
RECEIVE_TIME = "receive_timestamp"

# A store's own feature and attributes for instructions that change within an episode; in LeRobot they are task_index.
TASK_INDEX = "annotation.task_index"
TASKS = "tasks"
TASKS_BY_FRAME = "instructions_by_frame"

# The name that stands for frames without a label in meta/subtasks.parquet.
UNLABELLED = ""

# Columns of meta/episodes that robo-rm adds.
SUCCESS = "success"
TERMINATED = "terminated"
TRUNCATED = "truncated"
UUID = "robo_rm.uuid"
SOURCE = "robo_rm.source"
CREATED = "robo_rm.created"
ATTRIBUTES = "robo_rm.attributes"

# LeRobot's SARM keeps subtasks as segments in meta/episodes: coarse ones, fine ones, and the form before both.
SARM_PREFIXES = ("sparse_", "dense_", "")
SARM_NAMES = "subtask_names"
SARM_STARTS, SARM_ENDS = "subtask_start_frames", "subtask_end_frames"
SARM_START_TIMES, SARM_END_TIMES = "subtask_start_times", "subtask_end_times"
SARM_PROPORTIONS = "meta/temporal_proportions_{kind}.json"


def place(number: int) -> dict[str, int]:
    """Chunk and file index of the file with a running number."""
    return {"chunk_index": number // CHUNK_SIZE, "file_index": number % CHUNK_SIZE}
