"""Bring a LeRobot data set into a demo store.

Low-dimensional data to the bit, camera frames as JPEG (or lossless). Episodes are read in parallel. Interrupt it when
you like: the same command goes on where it stood. A fault in the data set is one line, and the store stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

GROUP = "datasets"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm import lerobot``."""

    source: str = MISSING
    """Folder of the LeRobot data set (the one that holds meta/info.json)."""
    store: str = MISSING
    """Demo store to append to; made where it does not exist."""
    stages: str = ""
    """JSON file of stage annotation: a list of {episode_index, subtasks: [{name, start_frame, end_frame}]}."""
    stage_names: list[str] | None = None
    """The task's stages in order; by default the names in the annotation, in the order in which they happen."""
    cameras: list[str] | None = None
    """Cameras to keep, for example [cam_high]; all by default."""
    size: list[int] | None = None
    """Height and width to scale frames to, for example [240,320]; as they are by default."""
    success: str = "auto"
    """true, false, unknown, or auto: false where the annotation ends before the task's last stage, else true, for
    demonstrations are kept because they worked."""
    codec: str = "jpeg"
    """How a new store keeps camera frames: jpeg or lossless."""
    quality: int = 95
    """JPEG quality of a new store, 1 to 100."""
    subsampling: str = "4:4:4"
    """JPEG chroma subsampling of a new store: 4:4:4, 4:2:2 or 4:2:0."""
    workers: int | None = None
    """Processes that read episodes; one a core by default."""
    out: str = ""
    """Folder for config.yaml and metrics.json; none by default."""


def run(config: Config) -> None:
    """Import, then say what was added."""
    import time

    from robo_datasets.console import say
    from robo_datasets.errors import ConfigError
    from robo_datasets.importers.lerobot_v2 import LeRobotV2Source
    from robo_datasets.importers.options import frame_size, plan_import
    from robo_datasets.importers.run import import_source
    from robo_datasets.outputs import OutputFolder

    if not config.source or not config.store:
        raise ConfigError("give source=DIR and store=PATH")
    source = LeRobotV2Source(config.source, config.cameras, frame_size(config.size))
    plan = plan_import(source, config.store, config.stages, config.stage_names, config.success)
    started = time.monotonic()
    options: dict[str, Any] = {
        "codec": config.codec,
        "quality": config.quality,
        "subsampling": config.subsampling,
    }
    result = import_source(source, config.store, plan, config.workers, **options)
    seconds = time.monotonic() - started
    already = f", {result.skipped} were there already" if result.skipped else ""
    say(f"{config.store}: {result.added} episodes, {result.frames} frames added in {seconds:.1f} s{already}")
    if config.out:
        output = OutputFolder(config.out, config)
        output.write_metrics(
            {
                "episodes_added": result.added,
                "episodes_skipped": result.skipped,
                "frames_added": result.frames,
                "seconds": seconds,
            }
        )
        output.announce()
