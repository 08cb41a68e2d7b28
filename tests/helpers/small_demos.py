"""Small made-up episodes for tests, examples and benchmarks."""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np

from robo_datasets.store.demo_store import DemoStore

FRONT = "observation.images.front"
FEATURES: dict[str, dict[str, Any]] = {
    FRONT: {"shape": (24, 32, 3), "dtype": "uint8"},
    "observation.state": {"shape": (3,), "dtype": "float32"},
    "action": {"shape": (3,), "dtype": "float32"},
}


def smooth_frames(length: int, height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray:
    """Frames (length, H, W, 3) uint8 that compress like photographs: smooth, all different."""
    coarse = np.random.default_rng(seed).integers(0, 255, (length, 4, 5, 3), dtype=np.uint8)
    return np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC) for image in coarse])


def make_arrays(length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """One episode's arrays (length, ...) for ``FEATURES``."""
    rng = np.random.default_rng(seed)
    return {
        FRONT: smooth_frames(length, seed=seed),
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 3)).astype(np.float32),
    }


def add_episode(store: DemoStore, length: int = 12, seed: int = 0, **options: Any) -> str:
    """Append an episode whose first half is stage 0 and second half stage 1; returns its UUID."""
    with store.writer(**{"task": "pick", "success": True, **options}) as episode:
        episode.extend(make_arrays(length, seed), stage=np.arange(length) * 2 // length)
    return episode.uuid


def append_episodes(path: str | os.PathLike[str], seed: int, count: int) -> None:
    """Open a store and append ``count`` short episodes: the work of one of several writers."""
    store = DemoStore.open(path)
    for number in range(count):
        add_episode(store, length=4, seed=1000 * seed + number)


def checksum(episode: Any) -> int:
    """Sum of all pixels of an episode's front camera."""
    return int(episode[FRONT][:].sum())
