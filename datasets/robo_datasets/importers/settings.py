"""The settings that all import commands have; each command adds its own, and may say more of these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass(frozen=True)
class ImportConfig:
    """Settings of every ``robo-rm import``."""

    source: str = MISSING
    """The dataset."""
    store: str = MISSING
    """Demo store to append to; created if it does not exist."""
    stages: str = ""
    """JSON file of stage annotation: a list of {episode_index, subtasks: [{name, start_frame, end_frame}]}."""
    stage_names: list[str] | None = None
    """The task's stages in order; by default the names in the annotation, in the order in which they happen."""
    relabel: bool = False
    """Relabel episodes that are already in the store: stages, success, instruction and attributes become those of this
    command. Previous labels stay in the history."""
    episodes: Any = None
    """Episodes to import, by their numbers in the source: for example [0,3,10-19]; all by default."""
    skip_bad: bool = False
    """Leave out episodes that cannot be read, each named with its reason, instead of importing nothing."""
    drop: list[str] = field(default_factory=list)
    """Features to leave out, for example [observation.velocity]; also unreadable ones."""
    rename: Any = None
    """Other keys for features, for example {observation.image: observation.images.front}."""
    resample_fps: float | None = None
    """Frames per second to sample, each the nearest in time; the source's own rate by default."""
    size: list[int] | None = None
    """Height and width to scale frames to, for example [240,320]; unchanged by default."""
    success: str = "auto"
    """true, false, unknown, or auto: what the data says, else false if the annotation ends before the task's last
    stage, else unknown."""
    codec: str = "jpeg"
    """How a new store keeps camera frames: jpeg, lossless, or raw (fastest to read, and largest)."""
    quality: int = 95
    """JPEG quality of a new store, 1 to 100."""
    subsampling: str = "4:4:4"
    """JPEG chroma subsampling of a new store: 4:4:4, 4:2:2 or 4:2:0."""
    workers: int | None = None
    """Processes that read episodes; one per core by default."""
    out: str = ""
    """Folder for config.yaml and metrics.json; none by default."""
