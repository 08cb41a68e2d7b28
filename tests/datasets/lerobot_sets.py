"""Small LeRobot datasets for tests, written file by file: what stands in them is said by the arguments."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CAMERA = "observation.images.front"
FPS = 10
HEIGHT, WIDTH = 32, 48


def numbered(count: int, first: int = 0) -> np.ndarray:
    """Frames (count, H, W, 3) whose grey tells their number, up to 59."""
    levels = np.arange(first, first + count, dtype=np.uint8) * 4 + 16
    return np.broadcast_to(levels[:, None, None, None], (count, HEIGHT, WIDTH, 3)).copy()


def number_of(frames: np.ndarray) -> np.ndarray:
    """The numbers of frames that ``numbered`` made, after a codec."""
    return np.round((frames.astype(float).mean((1, 2, 3)) - 16) / 4).astype(int)


def write_video(
    path: Path,
    frames: np.ndarray,
    fps: float = FPS,
    pts: np.ndarray | None = None,
    time_base: Fraction | None = None,
    gop: int = 10,
    b_frames: int = 0,
    pixel_format: str = "yuv420p",
) -> None:
    """Frames as H.264, at their places or at the times ``pts`` in units of ``time_base``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixel_format
        stream.options = {"crf": "1", "g": str(gop), "bf": str(b_frames)}
        if time_base is not None:
            stream.codec_context.time_base = time_base
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if pts is not None and time_base is not None:
                frame.pts, frame.time_base = int(pts[number]), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_v21(
    root: Path,
    lengths: Sequence[int],
    seed: int = 0,
    make_video: Callable[[Path, np.ndarray, float], None] = write_video,
    stamps: Callable[[int], np.ndarray] = lambda length: np.arange(length) / FPS,
    features: Mapping[str, Any] | None = None,
    columns: Callable[[int, int], Mapping[str, Any]] = lambda number, length: {},
    tasks: Sequence[str] = ("pick",),
    listed: Mapping[int, Sequence[str]] | None = None,
    images: Callable[[int, int], list[bytes]] | None = None,
    camera: Mapping[str, Any] | None = None,
    key: str = CAMERA,
) -> Path:
    """A dataset of version 2.1; ``columns`` and ``features`` are added, ``images`` stand in place of videos."""
    entry = {
        "dtype": "image" if images else "video",
        "shape": [HEIGHT, WIDTH, 3],
        "names": ["height", "width", "channel"],
    }
    declared: dict[str, Any] = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": None},
        "action": {"dtype": "float32", "shape": [3], "names": None},
        **(features or {}),
        key: {**entry, **(camera or {})},
    }
    for name, dtype in (
        ("timestamp", "float32"),
        *((n, "int64") for n in ("frame_index", "episode_index", "task_index")),
    ):
        declared[name] = {"dtype": dtype, "shape": [1], "names": None}
    rng = np.random.default_rng(seed)
    episodes = []
    for number, length in enumerate(lengths):
        table: dict[str, Any] = {
            "observation.state": list(rng.normal(size=(length, 3)).astype(np.float32)),
            "action": list(rng.normal(size=(length, 3)).astype(np.float32)),
            "timestamp": stamps(length).astype(np.float32),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, number),
            "task_index": np.zeros(length, np.int64),
            **columns(number, length),
        }
        if images:
            table[key] = [{"bytes": data, "path": None} for data in images(number, length)]
        else:
            make_video(root / f"videos/chunk-000/{key}/episode_{number:06d}.mp4", numbered(length), FPS)
        path = root / f"data/chunk-000/episode_{number:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({name: pa.array(values) for name, values in table.items()}), path)
        episodes.append(
            {"episode_index": number, "tasks": list((listed or {}).get(number, tasks[:1])), "length": length}
        )
    info = {
        "codebase_version": "v2.1",
        "robot_type": "so101",
        "total_episodes": len(lengths),
        "chunks_size": 1000,
        "fps": FPS,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": declared,
    }
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    write_lines(root / "meta/episodes.jsonl", episodes)
    write_lines(root / "meta/tasks.jsonl", [{"task_index": i, "task": task} for i, task in enumerate(tasks)])
    return root


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """One JSON object a line, as LeRobot writes them."""
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def as_v3(source: Path, target: Path) -> Path:
    """The same dataset in version 3.0: rows in one file, the packets of the videos copied end to end."""
    info = json.loads((source / "meta/info.json").read_text())
    lines = [json.loads(line) for line in (source / "meta/episodes.jsonl").read_text().split("\n") if line]
    tables, rows, start = [], [], 0
    for line in lines:
        table = pq.read_table(source / f"data/chunk-000/episode_{line['episode_index']:06d}.parquet")
        index = pa.array(np.arange(start, start + table.num_rows))
        tables.append(table.append_column("index", index))
        row = {
            **line,
            "data/chunk_index": 0,
            "data/file_index": 0,
            "dataset_from_index": start,
            "dataset_to_index": start + line["length"],
        }
        for key, entry in info["features"].items():
            if entry["dtype"] == "video":
                row |= {f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": 0}
                row[f"videos/{key}/from_timestamp"] = start / FPS
                row[f"videos/{key}/to_timestamp"] = (start + line["length"]) / FPS
        rows.append(row)
        start += line["length"]
    for key, entry in info["features"].items():
        if entry["dtype"] == "video":
            files = [source / f"videos/chunk-000/{key}/episode_{line['episode_index']:06d}.mp4" for line in lines]
            _join(
                files,
                [row[f"videos/{key}/from_timestamp"] for row in rows],
                target / f"videos/{key}/chunk-000/file-000.mp4",
            )
    (target / "meta/episodes/chunk-000").mkdir(parents=True)
    (target / "data/chunk-000").mkdir(parents=True)
    pq.write_table(pa.concat_tables(tables), target / "data/chunk-000/file-000.parquet")
    pq.write_table(pa.Table.from_pylist(rows), target / "meta/episodes/chunk-000/file-000.parquet")
    names = [json.loads(line) for line in (source / "meta/tasks.jsonl").read_text().split("\n") if line]
    pq.write_table(pa.Table.from_pylist(names), target / "meta/tasks.parquet")
    info |= {
        "codebase_version": "v3.0",
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    info["features"]["index"] = {"dtype": "int64", "shape": [1], "names": None}
    (target / "meta/info.json").write_text(json.dumps(info))
    return target


def _join(files: Sequence[Path], starts: Sequence[float], target: Path) -> None:
    target.parent.mkdir(parents=True)
    with av.open(str(target), "w") as joined:
        copy = None
        for file, start in zip(files, starts, strict=True):
            with av.open(str(file)) as container:
                stream = container.streams.video[0]
                copy = copy or joined.add_stream_from_template(stream)
                for packet in container.demux(stream):
                    if packet.dts is None:
                        continue
                    shift = round(Fraction(start).limit_denominator(1000) / stream.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copy
                    joined.mux(packet)


def png(image: np.ndarray) -> bytes:
    """An image (H, W[, C]) as PNG; colours in the order RGB."""
    shown = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 and image.shape[2] == 3 else image
    return bytes(cv2.imencode(".png", shown)[1].tobytes())


def tiff(image: np.ndarray) -> bytes:
    """Levels (H, W) as TIFF, 16 bits or 32-bit floats."""
    return bytes(cv2.imencode(".tiff", image)[1].tobytes())
