"""Bring a UMI dataset (.zarr.zip with JPEG XL frames) into a demo store.

Frames are read straight out of the archive; nothing is unpacked to the disk and nothing is ever unpickled. Needs the
package imagecodecs: pip install 'robo-rm[umi]'. A fault in the dataset is one line, and the store stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from robo_core.errors import ConfigError
from robo_datasets import importers
from robo_datasets.importers.image_config import ImageConfig

GROUP = "datasets"


@dataclass(frozen=True)
class Config(ImageConfig):
    """Settings of ``robo-rm import umi``."""

    source: str = MISSING
    """The .zarr.zip file, or the folder it was unpacked to."""
    fps: float = 59.94005994005994
    """Frames per second, which the format does not hold; a GoPro's by default."""
    task: str = ""
    """The instruction, which the format does not hold."""
    state: list[str] | None = None
    """Arrays that make up observation.state; position, rotation and gripper width of every robot by default."""
    action: str = "next"
    """next: the state of the next frame is the action; none: no actions."""
    cameras: list[str] | None = None
    """Cameras to keep, for example [camera0]; all by default."""


def run(config: Config) -> None:
    """Import, then say what was added."""
    importers.start_helper(config.workers, config.store, "zarr.umi")
    from robo_datasets.importers.zarr.umi import ACTIONS, UmiSource

    importers.check_places(config, "umi")
    if config.action not in ACTIONS:
        raise ConfigError(f"action={config.action} is not one of: {', '.join(ACTIONS)}")
    if not config.fps > 0:
        raise ConfigError(f"fps={config.fps} must be positive")
    size = importers.frame_size(config.size)
    source = UmiSource(
        config.source,
        config.cameras,
        size,
        config.fps,
        config.state,
        config.task,
        config.action,
        importers.image_settings(config),
        config.drop,
    )
    plan = importers.plan_import(source, config.store, config.stages, config.stage_names, config.success)
    importers.run_import(config, source, plan)
