"""Bring an HDF5 file of demonstrations (robomimic, RoboCasa, LIBERO, Isaac Lab) into a demo store.

Observations, actions, simulator states, rewards and dones bit for bit; images become cameras. Nothing is ever
unpickled, and no link out of the file is followed. A fault in the file is one line, and the store stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from robo_core.errors import ConfigError, ImportSourceError
from robo_datasets import importers
from robo_datasets.importers import hdf5
from robo_datasets.importers.image_config import ImageConfig

GROUP = "datasets"


@dataclass(frozen=True)
class Config(ImageConfig):
    """Settings of ``robo-rm import robomimic``."""

    source: str = MISSING
    """The .hdf5 file of demonstrations; or a file of one episode (ALOHA, RoboTwin), or a folder of such."""
    fps: float | None = None
    """Frames per second; what the file says by default (control frequency, or Isaac Lab's time step)."""
    task: str = ""
    """The instruction; by default the one in the file (ep_meta of RoboCasa, problem_info of LIBERO), else the
    environment's name, which is said."""
    state: list[str] | None = None
    """Observations that make up observation.state; by default pose and gripper as robosuite, LIBERO and Isaac Lab name
    them. ``object`` becomes observation.environment_state, all others observation.<name>."""
    mask: str = ""
    """Split to import, for example train; everything by default. The splits are kept in the attributes."""
    cameras: list[str] | None = None
    """Cameras to keep, for example [agentview]; all by default."""
    success: str = "auto"
    """true, false, unknown, or auto: the attribute success, else whether a sparse reward of 1 was reached, else
    unknown."""


def run(config: Config) -> None:
    """Import, then say what was added."""
    importers.start_helper(config.workers, config.store, "hdf5.robomimic", "hdf5.episodes")

    importers.check_places(config, "robomimic")
    path = Path(config.source)
    files = hdf5.episode_files(path)
    if not files:
        raise ImportSourceError(f"the folder {path} holds no .hdf5 file")
    if hdf5.is_episode_file(files[0]):
        episodes = hdf5.Hdf5EpisodesSource(
            path,
            config.cameras,
            importers.frame_size(config.size),
            config.fps,
            config.task,
            importers.image_settings(config),
            config.drop,
        )
        if config.mask or config.state:
            raise ConfigError("mask= and state= are for files of several demonstrations; leave them out")
        plan = importers.plan_import(episodes, config.store, config.stages, config.stage_names, config.success)
        importers.run_import(config, episodes, plan)
        return
    if path.is_dir():
        raise ImportSourceError(
            f"{path} is a folder; give one of its {len(files)} files as source=, for example {files[0].name}, and "
            "import each into the same store"
        )
    source = hdf5.RobomimicSource(
        config.source,
        config.cameras,
        importers.frame_size(config.size),
        config.fps,
        config.state,
        config.task,
        config.mask,
        importers.image_settings(config),
        config.drop,
    )
    plan = importers.plan_import(source, config.store, config.stages, config.stage_names, config.success)
    importers.run_import(config, source, plan)
