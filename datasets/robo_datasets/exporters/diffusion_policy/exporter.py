"""A demo store as a diffusion_policy replay buffer: flat Zarr v2 arrays of all episodes, nothing lost.

Frames go out decoded and losslessly compressed, one chunk a frame. What the format has no place for (tasks, outcomes,
stage names, schema) stands in the attributes of the group, where diffusion_policy reads past it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robo_core.errors import ConfigError, StoreError
from robo_datasets.exporters.diffusion_policy.zarr_v2 import describe_array, write_array, write_chunk, write_group
from robo_datasets.exporters.jobs import Building
from robo_datasets.importers.zarr.replay_buffer import (
    ACTION,
    ENDS,
    IMAGES,
    OBSERVATION,
    RECEIVED,
    STAGE,
    STATE,
    TIMESTAMP,
)
from robo_datasets.store.demo_store import DemoStore

KEY_SETS = ("sim", "real")
_STATE_NAMES = {"sim": "state", "real": "robot_eef_pose"}
_CHUNK_BYTES = 1 << 22
_BLOCK = 32


@dataclass(frozen=True)
class _FrameJob:
    store: Path
    uuid: str
    feature: str
    key: str
    start: int


@dataclass(frozen=True)
class _RowsJob:
    store: Path
    feature: str
    key: str


def export_diffusion_policy(
    store: DemoStore, target: str | Path, keys: str = "sim", state_key: str = "", workers: int | None = None
) -> dict[str, int]:
    """Write every episode of ``store`` to the folder ``target``; returns how many episodes, frames and arrays.

    Args:
        store: the demo store.
        target: folder to make; the same call resumes one that was interrupted.
        keys: "sim" (img, state, action) or "real" (camera_0, robot_eef_pose, action).
        state_key: array for observation.state, where it is to be another than that of the key set.
        workers: processes; the machine's cores by default, 0 for none besides this one.

    Raises:
        StoreError: the store is empty, or the target holds something.
        ConfigError: ``keys`` is none of these.
    """
    if keys not in KEY_SETS:
        raise ConfigError(f"keys={keys} is not one of: {', '.join(KEY_SETS)}")
    if not len(store):
        raise StoreError(f"{store.path} holds no episodes; there is nothing to export")
    names = array_names(store, keys, state_key)
    plan = {"format": "diffusion-policy", "store": store.content_hash(), "names": names}
    building = Building(target, plan)
    episodes = list(store)
    ends = np.cumsum([episode.length for episode in episodes])
    total = int(ends[-1])
    rows_jobs = {f"rows-{key}": _RowsJob(store.path, feature, key) for feature, key in names.items()}
    extra = [TIMESTAMP]
    extra += [STAGE] if store.stages else []
    extra += [RECEIVED] if any(episode.receive_timestamp is not None for episode in episodes) else []
    rows_jobs |= {f"rows-{key}": _RowsJob(store.path, "", key) for key in extra}
    frame_jobs = {}
    weights = dict.fromkeys(rows_jobs, total)
    for feature in store.cameras:
        key = names[feature]
        del rows_jobs[f"rows-{key}"]
        schema = store.schema[feature]
        describe_array(building.data / "data" / key, total, schema.shape, np.dtype(schema.dtype), 1)
        for episode, end in zip(episodes, ends.tolist(), strict=True):
            name = f"frames-{key}-{episode.uuid}"
            frame_jobs[name] = _FrameJob(store.path, episode.uuid, feature, key, end - episode.length)
            weights[name] = episode.length
    building.run("export numbers", write_rows, rows_jobs, workers, weights, "rows")
    building.run("export frames", write_frames, frame_jobs, workers, weights)
    for group in ("data", "meta"):
        write_group(building.data / group)
    write_array(building.data / ENDS, [ends.astype(np.int64)], len(ends), len(ends))
    # Last: without .zgroup a folder is no Zarr group.
    write_group(building.data, {"robo_rm": _notes(store, names)})
    building.put_in_place()
    return {"episodes": len(episodes), "frames": total, "arrays": len(names) + len(extra)}


def array_names(store: DemoStore, keys: str, state_key: str = "") -> dict[str, str]:
    """Feature key to array key; full names where two would be the same.

    Raises:
        StoreError: an array would have the name of one of the format's own.
    """
    cameras = [key for key in store.cameras if key.startswith(IMAGES) and store.schema[key].dtype == "uint8"]
    names = {}
    for feature in store.schema:
        if feature == STATE:
            names[feature] = state_key or _STATE_NAMES[keys]
        elif feature in cameras and keys == "real":
            names[feature] = f"camera_{cameras.index(feature)}"
        elif feature in cameras and len(cameras) == 1:
            names[feature] = "img"
        else:
            names[feature] = feature.removeprefix(IMAGES).removeprefix(OBSERVATION)
    taken = list(names.values())
    names = {feature: feature if taken.count(key) > 1 and feature != ACTION else key for feature, key in names.items()}
    own = {TIMESTAMP, STAGE, RECEIVED} & set(names.values())
    if own or len(set(names.values())) != len(names):
        raise StoreError(
            f"features {sorted(names)} cannot be distinguished in a replay buffer; choose another state_key"
        )
    return names


def write_rows(job: _RowsJob, folder: Path) -> dict[str, object]:
    """Write one array of numbers."""
    store = DemoStore.open(job.store)
    parts = _parts(store, job)
    total = sum(store.lengths.values())
    row = store.schema[job.feature].row_bytes if job.feature else 8
    write_array(folder / "data" / job.key, parts, total, min(total, max(1, _CHUNK_BYTES // row)))
    return {}


def _parts(store: DemoStore, job: _RowsJob) -> Iterator[np.ndarray]:
    for episode in store:
        if job.feature:
            rows = episode[job.feature][:]
            yield rows if rows.ndim > 1 else rows[:, None]
        elif job.key == TIMESTAMP:
            yield episode.timestamp
        elif job.key == STAGE:
            yield episode.stage.astype(np.int64)
        else:
            received = episode.receive_timestamp
            yield np.full(episode.length, np.nan) if received is None else received


def write_frames(job: _FrameJob, folder: Path) -> dict[str, object]:
    """Write one episode's frames of one camera, a chunk each."""
    episode = DemoStore.open(job.store).episode(job.uuid)
    place = folder / "data" / job.key
    for start in range(0, episode.length, _BLOCK):
        for offset, frame in enumerate(episode[job.feature][start : start + _BLOCK]):
            write_chunk(place, job.start + start + offset, frame[None], 1)
    return {}


def _notes(store: DemoStore, names: dict[str, str]) -> dict[str, object]:
    return {
        "format": 1,
        "fps": store.fps,
        "stages": store.stages,
        "robot": store.robot,
        "contract_hash": store.contract_hash,
        "contract": store.contract,
        "keys": {key: feature for feature, key in names.items()},
        "features": {key: feature.to_json() for key, feature in store.schema.items()},
        "episodes": [
            {
                "uuid": episode.uuid,
                "task": episode.task,
                "success": episode.success,
                "attributes": episode.attributes,
            }
            for episode in store
        ],
    }
