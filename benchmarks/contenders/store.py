"""What `benchmarks/store.py` compares: ways to keep frames, states and actions, with one small interface."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import zarr
from numcodecs import Blosc

from robo_datasets import DemoStore
from robo_datasets.store.frame_cache import CachedCamera, FrameCache
from robo_datasets.store.summary import folder_bytes
from robo_datasets.store.windows import WindowPlan, read_window
from robo_rm.training.dataset import WindowDataset

FPS = 30
WINDOW = 8
DIM = 7
CAMERA = "observation.images.front"
DELTAS = {CAMERA: [step / FPS for step in range(WINDOW)], "observation.state": [0.0], "action": [0.0]}
SAMPLE = {key: [0.0] for key in DELTAS}


class Contender(Protocol):
    """Frames by their number over all episodes."""

    name: str

    def write(self, episodes: list[np.ndarray]) -> None: ...
    def open(self) -> None: ...
    def size(self) -> int: ...
    def frame(self, number: int) -> Any: ...
    def sample(self, number: int) -> Any: ...
    def window(self, number: int) -> Any: ...
    def dataset(self) -> Any: ...


def low_dim(length: int) -> np.ndarray:
    return np.random.default_rng(length).normal(size=(length, DIM)).astype(np.float32)


class DemoStoreContender:
    """This project's store under one of its settings; ``cached`` keeps the frames decoded beside them."""

    def __init__(self, path: Path, name: str, cached: bool = False, **settings: Any) -> None:
        self.path, self.name, self.cached, self.settings = path, name, cached, settings

    def write(self, episodes: list[np.ndarray]) -> None:
        shape = episodes[0].shape[1:]
        features = {
            CAMERA: {"shape": shape, "dtype": "uint8"},
            "observation.state": {"shape": (DIM,), "dtype": "float32"},
            "action": {"shape": (DIM,), "dtype": "float32"},
        }
        store = DemoStore.create(self.path, features, fps=FPS, **self.settings)
        for frames in episodes:
            rows = low_dim(len(frames))
            with store.writer(task="move") as episode:
                episode.extend({CAMERA: frames, "observation.state": rows, "action": rows})
        if self.cached:
            cache = FrameCache(store.path, CachedCamera(store.schema[CAMERA], None), store.lengths)
            for written in store:
                cache.fill(written)

    def open(self) -> None:
        self.store = DemoStore.open(self.path)
        self.plan = WindowPlan(self.store, DELTAS)
        self.samples = WindowDataset(self.store, SAMPLE)
        self.places = [(self.plan[n].uuid, self.plan[n].anchor) for n in range(len(self.plan))]

    def size(self) -> int:
        return folder_bytes(self.path)

    def payloads(self) -> list[np.ndarray]:
        feature = self.store.schema[CAMERA]
        return [
            self.store.shard(self.store.episode(uuid).entry, feature).payloads([frame])[0].copy()
            for uuid, frame in self.places
        ]

    def frame(self, number: int) -> np.ndarray:
        uuid, frame = self.places[number]
        return self.store.episode(uuid)[CAMERA][frame]

    def sample(self, number: int) -> Any:
        return self.samples[number]

    def window(self, number: int) -> dict[str, np.ndarray]:
        return read_window(self.store, self.plan[number])

    def dataset(self) -> WindowDataset:
        return WindowDataset(self.store, DELTAS)


class LeRobot:
    """LeRobotDataset with its defaults: AV1 video, states and actions in parquet."""

    name = "LeRobotDataset (AV1)"

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, episodes: list[np.ndarray]) -> None:
        os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder tells its settings for every episode
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        import datasets

        datasets.disable_progress_bars()
        names = ["height", "width", "channel"]
        features = {
            CAMERA: {"dtype": "video", "shape": episodes[0].shape[1:], "names": names},
            "observation.state": {"dtype": "float32", "shape": (DIM,), "names": None},
            "action": {"dtype": "float32", "shape": (DIM,), "names": None},
        }
        dataset = LeRobotDataset.create("local/benchmark", FPS, features, root=self.path)
        for frames in episodes:
            rows = low_dim(len(frames))
            for frame, row in zip(frames, rows, strict=True):
                dataset.add_frame({CAMERA: frame, "observation.state": row, "action": row, "task": "move"})
            dataset.save_episode()
        dataset.finalize()

    def open(self) -> None:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        self.single = LeRobotDataset("local/benchmark", root=self.path)
        self.windows = LeRobotDataset("local/benchmark", root=self.path, delta_timestamps=DELTAS)

    def size(self) -> int:
        shutil.rmtree(self.path / "images", ignore_errors=True)  # what recording leaves behind
        return folder_bytes(self.path)

    def frame(self, number: int) -> Any:
        return self.single[number][CAMERA]

    sample = frame  # it always gives all of them

    def window(self, number: int) -> Any:
        return self.windows[number]

    def dataset(self) -> Any:
        from lerobot.datasets import video_utils
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        # A forked worker that inherits an open decoder reads nonsense from it.
        video_utils._default_decoder_cache.clear()
        return LeRobotDataset("local/benchmark", root=self.path, delta_timestamps=DELTAS)


class PolicyZarr:
    """The layout of diffusion_policy: Zarr v2, flat arrays over all episodes, one frame a chunk, Blosc."""

    name = "diffusion_policy zarr"

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, episodes: list[np.ndarray]) -> None:
        shape = episodes[0].shape[1:]
        total = sum(map(len, episodes))
        data = zarr.open_group(self.path, mode="w", zarr_format=2).require_group("data")
        options: dict[str, Any] = {"compressors": Blosc(cname="zstd", clevel=5, shuffle=Blosc.SHUFFLE)}
        images = data.create_array("img", shape=(total, *shape), chunks=(1, *shape), dtype="uint8", **options)
        states = data.create_array("state", shape=(total, DIM), chunks=(161, DIM), dtype="float32", **options)
        start = 0
        for frames in episodes:
            images[start : start + len(frames)] = frames
            states[start : start + len(frames)] = low_dim(len(frames))
            start += len(frames)

    def open(self) -> None:
        self.images = zarr.open_array(self.path / "data/img", mode="r")
        self.states = zarr.open_array(self.path / "data/state", mode="r")

    def size(self) -> int:
        return folder_bytes(self.path)

    def frame(self, number: int) -> Any:
        return self.images[number]

    def sample(self, number: int) -> Any:
        return self.images[number], self.states[number]

    def window(self, number: int) -> Any:
        return self.images[number : number + WINDOW], self.states[number]

    def dataset(self) -> Any:
        raise NotImplementedError("diffusion_policy loads its data into memory; no DataLoader is compared")


class DecodeOnly:
    """The limit: the demo store's own JPEG bytes, already in memory, through ``cv2.imdecode`` and nothing else."""

    name = "cv2.imdecode"

    def __init__(self, payloads: list[np.ndarray]) -> None:
        self.payloads = payloads

    def write(self, episodes: list[np.ndarray]) -> None: ...

    def open(self) -> None: ...

    def size(self) -> int:
        return sum(map(len, self.payloads))

    def frame(self, number: int) -> Any:
        return cv2.imdecode(self.payloads[number], cv2.IMREAD_COLOR)

    sample = frame

    def window(self, number: int) -> Any:
        return [self.frame(number + step) for step in range(WINDOW)]

    def dataset(self) -> Any:
        raise NotImplementedError("bare decoding has no data set")
