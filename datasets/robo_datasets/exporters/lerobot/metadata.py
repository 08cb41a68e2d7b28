"""The meta folder of a LeRobot v3.0 dataset: what it holds, where every episode stands, stages and outcomes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from robo_core.checksummed import replace_durably
from robo_datasets import lerobot_layout as v3
from robo_datasets.exporters.instructions import instruction_runs
from robo_datasets.exporters.lerobot.layout import Layout
from robo_datasets.exporters.lerobot.statistics import Statistics, joined_by_key
from robo_datasets.exporters.lerobot.tables import episodes_table, names_table, write_table
from robo_datasets.store.demo_store import DemoStore
from robo_datasets.store.episode import Episode
from robo_datasets.store.features import Feature
from robo_datasets.video.decoder import video_header

_EPISODES_A_FILE = 2000
_BOOKKEEPING = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
_TYPES = {
    v3.SUCCESS: pa.bool_(),
    v3.TERMINATED: pa.bool_(),
    v3.TRUNCATED: pa.bool_(),
    **{f"{prefix}{v3.SARM_NAMES}": pa.list_(pa.string()) for prefix in v3.SARM_PREFIXES},
    **{
        f"{prefix}{name}": pa.list_(kind)
        for prefix in v3.SARM_PREFIXES
        for name, kind in (
            (v3.SARM_STARTS, pa.int64()),
            (v3.SARM_ENDS, pa.int64()),
            (v3.SARM_START_TIMES, pa.float64()),
            (v3.SARM_END_TIMES, pa.float64()),
        )
    },
}
# The data files' own forms: coarse and fine annotation, so that every mode of LeRobot's SARM finds what it wants.
_SARM_KINDS = ("sparse", "dense")


def write_meta(
    folder: Path,
    store: DemoStore,
    layout: Layout,
    tasks: Sequence[str],
    statistics: Sequence[Mapping[str, Statistics]],
) -> None:
    """Write the meta folder of a dataset whose data and videos stand in ``folder``."""
    (folder / "meta").mkdir(exist_ok=True)
    write_table(folder / v3.TASKS_FILE, names_table(tasks, "task_index"))
    labelled = v3.SUBTASK in layout.added
    if labelled:
        episodes = list(store)
        open_ = any((episode.stage < 0).any() for episode in episodes)
        names = [*store.stages, v3.UNLABELLED] if open_ else store.stages
        write_table(folder / v3.SUBTASKS_FILE, names_table(names, v3.SUBTASK))
        proportions = stage_proportions(store)
        for kind in _SARM_KINDS:
            _write_json(folder / v3.SARM_PROPORTIONS.format(kind=kind), proportions)
    rows = [
        _episode_row(store.fps, layout, position, episode, statistics[position])
        for position, episode in enumerate(store)
    ]
    for number in range(0, len(rows), _EPISODES_A_FILE):
        where = v3.place(number // _EPISODES_A_FILE)
        part = rows[number : number + _EPISODES_A_FILE]
        for row in part:
            row["meta/episodes/chunk_index"], row["meta/episodes/file_index"] = where.values()
        write_table(folder / v3.EPISODES_PATTERN.format(**where), episodes_table(part, _TYPES))
    _write_json(folder / v3.STATS_FILE, joined_by_key(statistics))
    _write_json(folder / v3.ROBO_FILE, _export_record(store, layout))
    # Last: without info.json a folder is not a LeRobot dataset.
    _write_json(folder / v3.INFO_FILE, _info(folder, store, layout, tasks))


def stage_proportions(store: DemoStore) -> dict[str, float]:
    """Mean proportion of each stage in the labelled frames of an episode, over labelled episodes that did not fail.

    SARM, arXiv 2509.25358, equation 1; every episode's proportions are of its labelled frames.
    """
    proportions = []
    for episode in store:
        stage = episode.stage
        if episode.success is not False and (stage >= 0).any():
            counts = np.bincount(stage[stage >= 0], minlength=len(store.stages))
            proportions.append(counts / counts.sum())
    mean = np.mean(proportions, axis=0) if proportions else np.full(len(store.stages), 1 / len(store.stages))
    return {name: float(value) for name, value in zip(store.stages, mean, strict=True)}


def _episode_row(
    fps: float, layout: Layout, position: int, episode: Episode, statistics: Mapping[str, Statistics]
) -> dict[str, object]:
    data_file = _file_of(layout.data_files, position)
    start = layout.starts[position]
    row: dict[str, object] = {
        "episode_index": position,
        "tasks": list(dict.fromkeys(task for _, _, task in instruction_runs(episode))),
        "length": episode.length,
        "data/chunk_index": v3.place(data_file)["chunk_index"],
        "data/file_index": v3.place(data_file)["file_index"],
        "dataset_from_index": start,
        "dataset_to_index": start + episode.length,
    }
    for key in layout.videos:
        video_file = _file_of(layout.video_files, position)
        before = start - layout.starts[layout.video_files[video_file][0]]
        row |= {f"videos/{key}/{name}": value for name, value in v3.place(video_file).items()}
        row[f"videos/{key}/from_timestamp"] = before / fps
        row[f"videos/{key}/to_timestamp"] = (before + episode.length) / fps
    if v3.SUBTASK in layout.added:
        for kind in _SARM_KINDS:
            row |= _segments(episode, fps, f"{kind}_")
    attributes = episode.attributes
    row |= {
        v3.SUCCESS: episode.success,
        v3.TERMINATED: _flag(attributes.get(v3.TERMINATED)),
        v3.TRUNCATED: _flag(attributes.get(v3.TRUNCATED)),
        v3.UUID: episode.uuid,
        v3.SOURCE: json.dumps(_without_path(episode.source)),
        v3.CREATED: episode.created,
        v3.ATTRIBUTES: json.dumps(attributes),
    }
    for key, found in statistics.items():
        row |= {f"stats/{key}/{name}": value for name, value in found.items()}
    return row


def _without_path(source: object) -> object:
    """Where an episode came from, without the folder of this machine: datasets are given to others."""
    return {key: value for key, value in source.items() if key != "path"} if isinstance(source, dict) else source


def _segments(episode: Episode, fps: float, prefix: str) -> dict[str, object]:
    """SARM's columns; an end is the start of what follows, so that its progress is (t - start) / (end - start)."""
    segments = episode.stages or None
    values: dict[str, object] = dict.fromkeys(
        (v3.SARM_NAMES, v3.SARM_STARTS, v3.SARM_ENDS, v3.SARM_START_TIMES, v3.SARM_END_TIMES)
    )
    if segments:
        values = {
            v3.SARM_NAMES: [segment.name for segment in segments],
            v3.SARM_STARTS: [segment.start for segment in segments],
            v3.SARM_ENDS: [segment.end for segment in segments],
            v3.SARM_START_TIMES: [segment.start / fps for segment in segments],
            v3.SARM_END_TIMES: [segment.end / fps for segment in segments],
        }
    return {f"{prefix}{name}": value for name, value in values.items()}


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _file_of(files: Sequence[Sequence[int]], position: int) -> int:
    return int(np.searchsorted([group[0] for group in files], position, side="right")) - 1


def _info(folder: Path, store: DemoStore, layout: Layout, tasks: Sequence[str]) -> dict[str, object]:
    features: dict[str, object] = {}
    for key, feature in store.schema.items():
        if key == v3.TASK_INDEX:
            continue
        if key in layout.videos:
            features[key] = _video_feature(folder, key, feature, store.fps)
        elif feature.is_frames and feature.dtype == "uint8" and feature.shape[2] in (1, 3):
            names = ["height", "width", "channels"]
            features[key] = {"dtype": "image", "shape": list(feature.shape), "names": names}
        else:
            shape = list(feature.shape) or [1]
            found: dict[str, object] = {"dtype": feature.dtype, "shape": shape, "names": feature.names}
            features[key] = found
            if feature.depth is not None:
                found["info"] = {"is_depth_map": True, "depth_unit": feature.depth["unit"]}
    features |= layout.added
    features |= {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in _BOOKKEEPING.items()}
    fps = int(store.fps) if store.fps.is_integer() else store.fps
    return {
        "codebase_version": v3.VERSION,
        "robot_type": store.robot,
        "total_episodes": len(store),
        "total_frames": sum(layout.lengths),
        "total_tasks": len(tasks),
        "chunks_size": v3.CHUNK_SIZE,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{len(store)}"},
        "data_path": v3.DATA_PATTERN,
        "video_path": v3.VIDEO_PATTERN if layout.videos else None,
        "features": features,
    }


def _video_feature(folder: Path, key: str, feature: Feature, fps: float) -> dict[str, object]:
    height, width, _ = feature.shape
    header = video_header(folder / v3.VIDEO_PATTERN.format(video_key=key, **v3.place(0)))
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": "av1" if "av1" in header.codec or "dav1d" in header.codec else header.codec,
            "video.pix_fmt": header.pixel_format,
            "video.is_depth_map": False,
            "video.fps": int(fps) if fps.is_integer() else fps,
            "video.channels": 3,
            "has_audio": False,
        },
    }


def _export_record(store: DemoStore, layout: Layout) -> v3.ExportRecord:
    return {
        "format": v3.ROBO_FORMAT,
        "features": {key: feature.to_json() for key, feature in store.schema.items()},
        "added": list(layout.added),
        "fps": store.fps,
        "stages": store.stages,
        "robot": store.robot,
        "contract_hash": store.contract_hash,
        "contract": store.contract,
        "store": store.content_hash(),
    }


def _write_json(path: Path, value: object) -> None:
    replace_durably(path, (json.dumps(value, indent=1) + "\n").encode())
