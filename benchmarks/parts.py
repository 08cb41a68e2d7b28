"""Demonstrations annotated with equal parts of the progress instead of their few stages, as dense keyframes are."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from robo_datasets import DemoStore
from robo_rm.shaping.potential import TRUE_PROGRESS


def annotate_parts(given: DemoStore, path: Path, parts: int) -> None:
    """Write a store of the same episodes whose stages are so many equal parts of the simulator's progress."""
    partial = Path(f"{path}.part")
    shutil.rmtree(partial, ignore_errors=True)
    names = [f"part {number + 1} of {parts}" for number in range(parts)]
    made = DemoStore.create(partial, given.features, given.fps, names)
    for episode in map(given.episode, given.uuids):
        frames = {key: np.asarray(episode[key][:]) for key in given.features}
        stage = np.minimum((frames[TRUE_PROGRESS].ravel() * parts).astype(np.int64), parts - 1)
        with made.writer(task=episode.task, attributes=dict(episode.attributes)) as writer:
            writer.extend(frames, stage=stage)
            writer.success = episode.success
    partial.rename(path)
