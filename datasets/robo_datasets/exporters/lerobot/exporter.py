"""A demo store as a LeRobot v3.0 dataset that LeRobot itself opens and trains on.

Low-dimensional data bit-exact. Camera frames as H.264 or AV1 video (tolerances in docs/importing.md) or as PNG, which
loses nothing. Stages go out twice: per frame (``subtask_index`` and meta/subtasks.parquet), and as the segments and
proportions that LeRobot's SARM trains on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robo_core.errors import StoreError
from robo_datasets import lerobot_layout as v3
from robo_datasets.exporters.instructions import frame_numbers, numbers_by_frame, task_numbers
from robo_datasets.exporters.jobs import Building
from robo_datasets.exporters.lerobot.layout import LeRobotSettings, lerobot_times, plan_layout
from robo_datasets.exporters.lerobot.metadata import write_meta
from robo_datasets.exporters.lerobot.statistics import PixelCounts, Statistics, row_statistics
from robo_datasets.exporters.lerobot.tables import image_array, rows_array
from robo_datasets.store.demo_store import DemoStore
from robo_datasets.store.episode import Episode
from robo_datasets.store.features import Feature
from robo_datasets.video.writer import VideoWriter

_BLOCK = 32


@dataclass(frozen=True)
class _DataJob:
    store: Path
    uuids: list[str]
    first: int
    start: int
    tasks: list[list[list[int]]]
    """Task numbers by frame of every episode, as runs [start, end, number]."""
    file: int
    features: dict[str, Feature]
    added: list[str]


@dataclass(frozen=True)
class _VideoJob:
    store: Path
    uuids: list[str]
    feature: Feature
    file: int
    fps: float
    settings: LeRobotSettings


def export_lerobot(
    store: DemoStore, target: str | Path, settings: LeRobotSettings | None = None, workers: int | None = None
) -> dict[str, int]:
    """Write every episode of ``store`` to the folder ``target``; returns how many episodes, frames and files.

    Args:
        store: the demo store.
        target: folder to make; the same call resumes one that was interrupted.
        settings: how camera frames are written.
        workers: processes; the machine's cores by default, 0 for none besides this one.

    Raises:
        StoreError: the store is empty or holds what LeRobot has no form for, or the target holds something.
        ConfigError: a setting is wrong.
    """
    settings = settings or LeRobotSettings()
    settings.check()
    if not len(store):
        raise StoreError(f"{store.path} holds no episodes; there is nothing to export")
    layout = plan_layout(store, settings)
    plan = {"format": "lerobot-3.0", "store": store.content_hash(), "settings": asdict(settings)}
    building = Building(target, plan)
    tasks = task_numbers(store)
    uuids = store.uuids
    video_jobs, weights = {}, {}
    for key, feature in layout.videos.items():
        for number, group in enumerate(layout.video_files):
            name = f"video-{key}-{number:06d}"
            members = [uuids[position] for position in group]
            video_jobs[name] = _VideoJob(store.path, members, feature, number, store.fps, settings)
            weights[name] = sum(layout.lengths[position] for position in group)
    data_jobs = {}
    for number, group in enumerate(layout.data_files):
        name = f"data-{number:06d}"
        members = [uuids[position] for position in group]
        numbers = [numbers_by_frame(store.episode(uuid), tasks) for uuid in members]
        first, start = group[0], layout.starts[group[0]]
        data_jobs[name] = _DataJob(
            store.path, members, first, start, numbers, number, layout.features, list(layout.added)
        )
        weights[name] = sum(layout.lengths[position] for position in group)
    found = building.run("export data", write_data, data_jobs, workers, weights)
    found |= building.run("export video", write_video, video_jobs, workers, weights)
    positions = {uuid: position for position, uuid in enumerate(uuids)}
    statistics: list[dict[str, Statistics]] = [{} for _ in uuids]
    for part in found.values():
        for uuid, found in part["statistics"].items():
            statistics[positions[uuid]] |= found
    write_meta(building.data, store, layout, list(tasks), statistics)
    building.put_in_place()
    return {
        "episodes": len(uuids),
        "frames": sum(layout.lengths),
        "data_files": len(data_jobs),
        "video_files": len(video_jobs),
    }


def write_data(job: _DataJob, folder: Path) -> dict[str, object]:
    """Write one data file, a row group an episode; returns the episodes' statistics."""
    store = DemoStore.open(job.store)
    path = folder / v3.DATA_PATTERN.format(**v3.place(job.file))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    writer, statistics, start = None, {}, job.start
    try:
        for offset, uuid in enumerate(job.uuids):
            episode = store.episode(uuid)
            columns = _columns(store, episode, job, offset, start)
            start += episode.length
            statistics[uuid] = {
                key: rows.statistics() if isinstance(rows, _Images) else row_statistics(rows)
                for key, rows in columns.items()
            }
            table = pa.table(
                {
                    key: image_array(rows.encoded) if isinstance(rows, _Images) else rows_array(rows)
                    for key, rows in columns.items()
                }
            )
            writer = writer or pq.ParquetWriter(part, table.schema, compression="snappy")
            writer.write_table(table, row_group_size=max(episode.length, 1))
    finally:
        if writer is not None:
            writer.close()
    part.replace(path)
    return {"statistics": statistics}


class _Images:
    """One episode's frames as PNG, and their statistics."""

    def __init__(self, episode: Episode, feature: Feature) -> None:
        counts = PixelCounts(episode.length, feature.shape[2])
        self.encoded: list[bytes] = []
        for start in range(0, episode.length, _BLOCK):
            for frame in episode[feature.key][start : start + _BLOCK]:
                counts.add(frame)
                image = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) if feature.shape[2] == 3 else frame
                self.encoded.append(cv2.imencode(".png", image)[1].tobytes())
        self.statistics = counts.statistics


def _columns(
    store: DemoStore, episode: Episode, job: _DataJob, offset: int, start: int
) -> Mapping[str, np.ndarray | _Images]:
    length = episode.length
    columns: dict[str, np.ndarray | _Images] = {}
    for key, feature in job.features.items():
        image = feature.is_frames and feature.dtype == "uint8" and feature.shape[2] in (1, 3)
        columns[key] = _Images(episode, feature) if image else episode[key][:]
    made = {
        v3.SUBTASK: lambda: np.where(episode.stage < 0, len(store.stages), episode.stage).astype(np.int64),
        v3.DONE: lambda: _done(episode),
        v3.SOURCE_TIME: lambda: episode.timestamp,
        v3.RECEIVE_TIME: lambda: _received(episode),
    }
    columns |= {key: made[key]() for key in job.added}
    columns["timestamp"] = lerobot_times(length, store.fps)
    columns["frame_index"] = np.arange(length)
    columns["episode_index"] = np.full(length, job.first + offset)
    columns["index"] = np.arange(start, start + length)
    columns["task_index"] = frame_numbers(job.tasks[offset], length)
    return columns


def _done(episode: Episode) -> np.ndarray:
    done = np.zeros(episode.length, bool)
    done[-1] = episode.attributes[v3.TERMINATED] or episode.attributes[v3.TRUNCATED]
    return done


def _received(episode: Episode) -> np.ndarray:
    received = episode.receive_timestamp
    return np.full(episode.length, np.nan) if received is None else received


def write_video(job: _VideoJob, folder: Path) -> dict[str, object]:
    """Write one video file, episodes end to end; returns the episodes' statistics."""
    store = DemoStore.open(job.store)
    path = folder / v3.VIDEO_PATTERN.format(video_key=job.feature.key, **v3.place(job.file))
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, channels = job.feature.shape
    settings, statistics = job.settings, {}
    with VideoWriter(
        path, height, width, job.fps, settings.images, settings.crf, settings.gop, settings.pixel_format
    ) as video:
        for uuid in job.uuids:
            episode = store.episode(uuid)
            counts = PixelCounts(episode.length, 3)
            for start in range(0, episode.length, _BLOCK):
                for frame in episode[job.feature.key][start : start + _BLOCK]:
                    image = frame if channels == 3 else np.repeat(frame, 3, 2)
                    counts.add(image)
                    video.add(image)
            statistics[uuid] = {job.feature.key: counts.statistics()}
    return {"statistics": statistics}
