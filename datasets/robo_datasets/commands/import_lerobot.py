"""Bring a LeRobot dataset (v2.0, v2.1 or v3.0) into a demo store.

Low-dimensional data bit-exact, camera frames as JPEG (or lossless). Episodes are read in parallel. After an
interrupt, run the same command again to resume. A fault in the dataset is one line, and the store stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from omegaconf import MISSING

from robo_core.errors import ConfigError
from robo_datasets import importers
from robo_datasets.importers import lerobot
from robo_datasets.importers.settings import ImportConfig

GROUP = "datasets"


@dataclass(frozen=True)
class Config(ImportConfig):
    """Settings of ``robo-rm import lerobot``."""

    source: str = MISSING
    """Folder of the LeRobot dataset (the one that holds meta/info.json)."""
    annotation: str = "auto"
    """Where a v3.0 dataset's own subtasks are read from: frames (subtask_index), dense or sparse (the columns of
    LeRobot's SARM), language (LeRobot 0.6's language columns), none, or auto: the first of these that exists.
    ``stages`` has priority."""
    cameras: list[str] | None = None
    """Cameras to keep, for example [cam_high]; all by default."""
    video_tolerance: float | None = None
    """Maximum seconds between a row and its video frame; half a row by default, and then no frame may be used twice.
    A larger value takes the nearest frame: 0.034 reads 15 frames per second next to 30 rows per second."""
    align: str = "time"
    """How rows find their video frames: time, or index (the first to the first, ignoring the time stamps)."""
    depth_pictures: list[str] = field(default_factory=list)
    """8-bit depth cameras to import as plain images; they are refused otherwise."""
    success: str = "auto"
    """true, false, unknown, or auto: next.success if there is such a column, else false if the annotation ends
    before the task's last stage, else unknown."""


def run(config: Config) -> None:
    """Import, then say what was added."""
    importers.start_helper(config.workers, config.store, "lerobot.v2", "lerobot.v3")

    importers.check_places(config, "lerobot")
    if config.annotation not in lerobot.ANNOTATIONS:
        raise ConfigError(f"annotation={config.annotation} is not one of: {', '.join(lerobot.ANNOTATIONS)}")
    reading = lerobot.LeRobotReading(
        config.cameras,
        importers.frame_size(config.size),
        tuple(config.drop),
        config.video_tolerance,
        config.align,
        tuple(config.depth_pictures),
    )
    if not lerobot.is_v3(config.source):
        old = lerobot.LeRobotV2Source(config.source, reading)
        importers.run_import(
            config, old, importers.plan_import(old, config.store, config.stages, config.stage_names, config.success)
        )
        return
    source = lerobot.LeRobotV3Source(config.source, reading, "none" if config.stages else config.annotation)
    names = config.stage_names if config.stages or config.stage_names else source.stage_names
    plan = importers.plan_import(source, config.store, config.stages, names, config.success)
    if config.success == "auto" and source.outcome_known:
        plan = replace(plan, success={episode.number: episode.success for episode in source.episodes})
    importers.run_import(config, source, plan, contract_hash=source.contract_hash, contract=source.contract)
