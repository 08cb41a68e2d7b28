"""A small LeRobot v2.1 data set, as a user would bring it."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

EPISODES, LENGTH, FPS, SIZE = 6, 40, 10, 64
CAMERA = "observation.images.front"
STAGES = ("reach for the square", "bring it home")


@pytest.fixture(scope="session")
def lerobot_data_set(tmp_path_factory) -> Path:
    """Six episodes of a bright square crossing the picture, with ``subtasks.json`` beside the data."""
    root = tmp_path_factory.mktemp("lerobot")
    vector = {"dtype": "float32", "shape": [3], "names": ["x", "y", "grip"]}
    info = {
        "codebase_version": "v2.1",
        "robot_type": "toy",
        "total_episodes": EPISODES,
        "chunks_size": 1000,
        "fps": FPS,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            "observation.state": vector,
            "action": vector,
            CAMERA: {"dtype": "video", "shape": [SIZE, SIZE, 3], "names": ["height", "width", "channel"]},
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            "task_index": {"dtype": "int64", "shape": [1], "names": None},
        },
    }
    (root / "meta").mkdir()
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "bring the square home"}\n')
    episodes = [{"episode_index": i, "tasks": ["bring the square home"], "length": LENGTH} for i in range(EPISODES)]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in episodes))
    stages = []
    for number in range(EPISODES):
        half = LENGTH // 2 + number
        parts = ((STAGES[0], 0, half), (STAGES[1], half, LENGTH))
        subtasks = [{"name": name, "start_frame": start, "end_frame": end} for name, start, end in parts]
        stages.append({"episode_index": number, "subtasks": subtasks})
        _write_episode(root, number, half)
    (root / "subtasks.json").write_text(json.dumps(stages))
    return root


def _write_episode(root: Path, number: int, half: int) -> None:
    rng = np.random.default_rng(number)
    at = np.interp(np.arange(LENGTH), [0, half, LENGTH], [0.1, 0.8, 0.3]) + 0.01 * rng.normal(size=LENGTH)
    state = np.stack([at, 0.5 + 0 * at, np.arange(LENGTH) >= half], axis=1).astype(np.float32)
    columns = {
        "observation.state": list(state),
        "action": list(np.roll(state, -1, axis=0)),
        "timestamp": (np.arange(LENGTH) / FPS).astype(np.float32),
        "task_index": np.zeros(LENGTH, np.int64),
    }
    (root / "data/chunk-000").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), root / f"data/chunk-000/episode_{number:06d}.parquet")
    video = root / f"videos/chunk-000/{CAMERA}/episode_{number:06d}.mp4"
    video.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.height, stream.width, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for step in range(LENGTH):
            frame = np.full((SIZE, SIZE, 3), 40, np.uint8)
            x = int(at[step] * (SIZE - 12))
            frame[26:38, x : x + 12] = (230, 60, 60) if step < half else (60, 60, 230)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
