"""Bring a diffusion_policy dataset (a replay buffer in Zarr v2 or v3) into a demo store.

Both key sets are read: img, state and action of the simulated tasks, and that of real robots with time stamps, stages
and, where they stand beside it, videos. Numbers arrive bit for bit. Nothing is ever unpickled: arrays of objects
and unknown codecs are refused. A fault in the dataset is one line, and the store stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from omegaconf import MISSING

from robo_core.errors import ConfigError
from robo_datasets import importers
from robo_datasets.importers.image_config import ImageConfig

GROUP = "datasets"


@dataclass(frozen=True)
class Config(ImageConfig):
    """Settings of ``robo-rm import diffusion-policy``."""

    source: str = MISSING
    """The .zarr folder, the .zarr.zip file, or the folder with replay_buffer.zarr and videos/."""
    fps: float | None = None
    """Frames per second; by default from the time stamps, where there are any."""
    task: str = ""
    """The instruction, which the format does not hold."""
    state: list[str] | None = None
    """Arrays that make up observation.state; by default the first there is of state, agent_pos, robot_eef_pose,
    robot_joint. All others become observation.<name>."""
    stages: str = ""
    """JSON file of stage annotation to use in place of the array ``stage``."""
    stage_names: list[str] | None = None
    """Names of stage 0, 1, ...; "stage 0", "stage 1", ... by default."""
    cameras: list[str] | None = None
    """Cameras to keep, for example [img]; all by default."""
    missing_chunks: str = "error"
    """error, or zeros for datasets whose writer left out chunks of zeros, as zarr-python 3 does."""
    success: str = "auto"
    """true, false, unknown, or auto: false where the stages end before the last, else unknown."""


def run(config: Config) -> None:
    """Import, then say what was added."""
    importers.start_helper(config.workers, config.store, "zarr.diffusion_policy")

    from robo_datasets.importers.zarr.diffusion_policy import DiffusionPolicySource

    importers.check_places(config, "diffusion-policy")
    if config.missing_chunks not in ("error", "zeros"):
        raise ConfigError(f"missing_chunks={config.missing_chunks} is not one of: error, zeros")
    if config.fps is not None and not config.fps > 0:
        raise ConfigError(f"fps={config.fps} must be positive")
    source = DiffusionPolicySource(
        config.source,
        config.cameras,
        importers.frame_size(config.size),
        config.fps,
        config.state,
        config.task,
        config.stage_names,
        config.missing_chunks == "zeros",
        importers.image_settings(config),
        config.drop,
    )
    names = config.stage_names if config.stages else source.stage_names
    plan = importers.plan_import(source, config.store, config.stages, names, config.success)
    if config.success == "auto" and source.outcome_known:
        plan = replace(plan, success={episode.number: episode.success for episode in source.episodes})
    importers.run_import(config, source, plan, contract_hash=source.contract_hash, contract=source.contract)
