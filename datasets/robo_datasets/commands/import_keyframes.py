"""Bring folders of video files into a demo store, with hand-marked stages, outcomes and grades where there are any.

One folder an episode: one mp4 a camera and, where stages were marked, annotated_keyframes.json; task_instruction.json
beside or above them. Folders named success, failure or suboptimal, or labels.json, say how episodes went. Episodes are
read in parallel. Interrupt it when you like: run the same command again to resume. A fault in the data is one line, and
the store stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from robo_core.errors import ConfigError
from robo_datasets import importers
from robo_datasets.importers import keyframes
from robo_datasets.importers.settings import ImportConfig

GROUP = "datasets"


@dataclass(frozen=True)
class Config(ImportConfig):
    """Settings of ``robo-rm import keyframes``."""

    source: str = MISSING
    """Folder of episode folders, or one episode folder."""
    task: str = ""
    """The instruction; by default that of labels.json, else the first of the nearest task_instruction.json."""
    stages: str = ""
    """JSON file of stage annotation to use instead of the keyframe files."""
    stage_names: list[str] | None = None
    """The task's stages in order; by default the names marked, in the order in which they happen."""
    cameras: list[str] | None = None
    """Cameras to keep, for example [cam_high]; all by default."""
    fps: float | None = None
    """Frames per second of all episodes, sampled by their times; unchanged by default."""
    fit: str = "auto"
    """How images of different sizes are fitted: stretch, pad (with black borders), or auto: pad if videos differ."""
    outcomes: dict[str, str] = field(default_factory=dict)
    """What a grade means for success, for example {suboptimal: unknown, clean: true}; the usual words are known, and a
    half success does not count as a success."""
    success: str = "auto"
    """true, false, unknown, or auto: what labels.json or the folders say, else false if the marks end before the
    task's last stage, else unknown."""


def run(config: Config) -> None:
    """Import, then say what was added."""
    importers.start_helper(config.workers, config.store, "keyframes.source")

    importers.check_places(config, "keyframes")
    if config.fps is not None and not config.fps > 0:
        raise ConfigError(f"fps={config.fps} must be positive")
    if config.fit not in keyframes.FITS:
        raise ConfigError(f"fit={config.fit} is not one of: {', '.join(keyframes.FITS)}")
    source = keyframes.KeyframeSource(
        config.source,
        config.cameras,
        importers.frame_size(config.size),
        config.task,
        config.fps,
        config.fit,
        importers.check_outcomes(config.outcomes),
        config.drop,
    )
    plan = importers.plan_import(source, config.store, config.stages, config.stage_names, config.success)
    importers.run_import(config, source, plan)
