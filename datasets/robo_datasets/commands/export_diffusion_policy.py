"""Write a demo store as a diffusion_policy dataset: a replay buffer in Zarr v2.

Numbers bit for bit, frames as the store decodes them, losslessly compressed. Interrupt it when you like: run the same
command again to resume.
"""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from robo_datasets import exporters
from robo_datasets.exporters import diffusion_policy

GROUP = "datasets"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm export diffusion-policy``."""

    store: str = MISSING
    """Demo store to read."""
    target: str = MISSING
    """Folder to make, for example demos_dp.zarr; it must not exist or be empty."""
    keys: str = "sim"
    """Key set: sim (img, state, action) or real (camera_0, camera_1, ..., robot_eef_pose, action)."""
    state_key: str = ""
    """Array for observation.state, for example robot_joint; that of the key set by default."""
    workers: int | None = None
    """Processes that write frames; one per core by default."""
    out: str = ""
    """Folder for config.yaml and metrics.json; none by default."""


def run(config: Config) -> None:
    """Export, then say what was written."""
    store = exporters.open_store(config)
    written = diffusion_policy.export_diffusion_policy(
        store, config.target, config.keys, config.state_key, config.workers
    )
    exporters.finish(config, written, f"give it to a task of diffusion_policy: task.dataset.zarr_path={config.target}")
