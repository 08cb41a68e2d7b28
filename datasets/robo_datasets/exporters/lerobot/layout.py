"""Which columns and files an export to LeRobot v3.0 has, and where every episode goes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robo_core.errors import ConfigError, StoreError
from robo_datasets import lerobot_layout as v3
from robo_datasets.exporters.jobs import group_episodes
from robo_datasets.store.demo_store import DemoStore
from robo_datasets.store.episode import Episode
from robo_datasets.store.features import BOOKKEEPING, Feature, FeatureSpec
from robo_datasets.video.writer import CODECS, check_video_settings

PNG = "png"
_MAX_RANK = 5

# LeRobot's own bound on the size of a parquet file, before compression.
_DATA_FILE_BYTES = 100 << 20
# A video file is the unit of work: large enough to be one file among few, small enough that a killed export loses
# little. LeRobot compares time stamps as float32 to 0.1 ms, which fails from 1024 s on.
_VIDEO_FILE_PIXELS = (2e8, 1.5e9)
_VIDEO_FILE_SECONDS = 1000.0


@dataclass(frozen=True)
class LeRobotSettings:
    """How camera frames are written."""

    images: str = "h264"
    """h264, av1 or png."""
    crf: int | None = None
    """Constant rate factor, lower is better; 18 for h264 and 20 for av1 where it is None."""
    gop: int = 2
    """Frames from one key frame to the next; few make random access fast."""
    pixel_format: str = "yuv420p"

    def check(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: names the one that is wrong.
        """
        if self.images not in (*CODECS, PNG):
            raise ConfigError(f"images={self.images} is not one of: {', '.join((*CODECS, PNG))}")
        if self.images != PNG:
            check_video_settings(self.images, self.crf, self.gop, self.pixel_format)


@dataclass(frozen=True)
class Layout:
    """Where every episode goes, and what columns there are."""

    features: dict[str, Feature]
    """Columns of the data files that come from the store, frames in PNG among them."""
    videos: dict[str, Feature]
    added: dict[str, FeatureSpec]
    """Columns that the store keeps elsewhere, in LeRobot's form."""
    lengths: list[int]
    starts: list[int]
    data_files: list[list[int]]
    video_files: list[list[int]]


def plan_layout(store: DemoStore, settings: LeRobotSettings) -> Layout:
    """Decide on columns and files.

    Raises:
        StoreError: a feature has no form in LeRobot.
    """
    columns, videos = {}, {}
    for key, feature in store.schema.items():
        if key == v3.TASK_INDEX:
            continue  # it goes out as LeRobot's own task_index
        if key in BOOKKEEPING or len(feature.shape) > _MAX_RANK or "/" in key:
            raise StoreError(f"feature {key} of shape {feature.shape} has no form in LeRobot")
        image = feature.is_frames and feature.dtype == "uint8" and feature.shape[2] in (1, 3)
        if image and settings.images != PNG:
            videos[key] = feature
        else:
            columns[key] = feature
    episodes = list(store)
    lengths = [episode.length for episode in episodes]
    starts = [0, *np.cumsum(lengths).tolist()][:-1]
    width = sum(feature.row_bytes for feature in columns.values()) + 40
    data_files = group_episodes(lengths, lambda length: length * width, _DATA_FILE_BYTES)
    pixels = max((math.prod(feature.shape[:2]) for feature in videos.values()), default=1)
    low, high = _VIDEO_FILE_PIXELS
    most = min(max(sum(lengths) * pixels / 8, low), high, _VIDEO_FILE_SECONDS * store.fps * pixels)
    video_files = group_episodes(lengths, lambda length: length * pixels, most) if videos else []
    return Layout(columns, videos, _added_columns(store, episodes), lengths, starts, data_files, video_files)


def _added_columns(store: DemoStore, episodes: list[Episode]) -> dict[str, FeatureSpec]:
    added: dict[str, FeatureSpec] = {}
    if store.stages and v3.SUBTASK not in store.schema and any((episode.stage >= 0).any() for episode in episodes):
        added[v3.SUBTASK] = {"dtype": "int64", "shape": [1], "names": None}
    ends = [(episode.attributes.get(v3.TERMINATED), episode.attributes.get(v3.TRUNCATED)) for episode in episodes]
    if v3.DONE not in store.schema and all(isinstance(value, bool) for pair in ends for value in pair):
        added[v3.DONE] = {"dtype": "bool", "shape": [1], "names": None}
    plain = (np.array_equal(e.timestamp, lerobot_times(e.length, store.fps).astype(np.float64)) for e in episodes)
    if v3.SOURCE_TIME not in store.schema and not all(plain):
        added[v3.SOURCE_TIME] = {"dtype": "float64", "shape": [1], "names": None}
    if v3.RECEIVE_TIME not in store.schema and any(episode.receive_timestamp is not None for episode in episodes):
        added[v3.RECEIVE_TIME] = {"dtype": "float64", "shape": [1], "names": None}
    return added


def lerobot_times(length: int, fps: float) -> np.ndarray:
    """(T,) f32 seconds from the start of the episode, as LeRobot counts them: frame number / fps."""
    return (np.arange(length) / fps).astype(np.float32)
