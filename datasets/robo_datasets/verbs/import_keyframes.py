"""Bring folders of mp4 files with hand-marked stages into a demo store.

One folder an episode: one mp4 a camera and annotated_keyframes.json; task_instruction.json beside them. Episodes are
read in parallel. Interrupt it when you like: the same command goes on where it stood. A fault in the data is one line,
and the store stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

GROUP = "datasets"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm import keyframes``."""

    source: str = MISSING
    """Folder of episode folders, or one episode folder."""
    store: str = MISSING
    """Demo store to append to; made where it does not exist."""
    task: str = ""
    """The instruction; by default the first of task_instruction.json."""
    stages: str = ""
    """JSON file of stage annotation to use in place of the keyframe files."""
    stage_names: list[str] | None = None
    """The task's stages in order; by default the names marked, in the order in which they happen."""
    cameras: list[str] | None = None
    """Cameras to keep, for example [cam_high]; all by default."""
    size: list[int] | None = None
    """Height and width to scale frames to, for example [240,320]; as they are by default."""
    success: str = "auto"
    """true, false, unknown, or auto: false where the marks end before the task's last stage, else true."""
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
    from robo_datasets.importers.command import check_places, run_import
    from robo_datasets.importers.keyframes import KeyframeSource
    from robo_datasets.importers.options import frame_size, plan_import

    check_places(config)
    source = KeyframeSource(config.source, config.cameras, frame_size(config.size), config.task)
    plan = plan_import(source, config.store, config.stages, config.stage_names, config.success)
    run_import(config, source, plan)
