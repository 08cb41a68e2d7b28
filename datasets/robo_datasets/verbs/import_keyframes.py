"""Bring folders of mp4 files with hand-marked stages into a demo store.

One folder an episode: one mp4 a camera and annotated_keyframes.json; task_instruction.json beside them. Episodes are
read in parallel. Interrupt it when you like: the same command goes on where it stood. A fault in the data is one line,
and the store stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from robo_datasets.importers.settings import ImportConfig

GROUP = "datasets"


@dataclass(frozen=True)
class Config(ImportConfig):
    """Settings of ``robo-rm import keyframes``."""

    source: str = MISSING
    """Folder of episode folders, or one episode folder."""
    task: str = ""
    """The instruction; by default the first of task_instruction.json."""
    stages: str = ""
    """JSON file of stage annotation to use in place of the keyframe files."""
    stage_names: list[str] | None = None
    """The task's stages in order; by default the names marked, in the order in which they happen."""
    cameras: list[str] | None = None
    """Cameras to keep, for example [cam_high]; all by default."""
    success: str = "auto"
    """true, false, unknown, or auto: false where the marks end before the task's last stage, else true."""


def run(config: Config) -> None:
    """Import, then say what was added."""
    from robo_datasets.importers.command import check_places, run_import
    from robo_datasets.importers.keyframes import KeyframeSource
    from robo_datasets.importers.options import frame_size, plan_import

    check_places(config)
    source = KeyframeSource(config.source, config.cameras, frame_size(config.size), config.task)
    plan = plan_import(source, config.store, config.stages, config.stage_names, config.success)
    run_import(config, source, plan)
