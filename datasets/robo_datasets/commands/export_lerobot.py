"""Write a demo store as a LeRobot v3.0 dataset, which LeRobot opens and trains on.

Low-dimensional data bit-exact; camera frames as video, or as PNG, which loses nothing. Stages go along per frame and
as the segments that LeRobot's SARM reads; success, terminated and truncated too. Video files are written in parallel.
Interrupt it when you like: run the same command again to resume where it stood.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from robo_core.cli.following import beside
from robo_datasets import exporters
from robo_datasets.exporters import lerobot

GROUP = "datasets"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm export lerobot``."""

    store: str = MISSING
    """Demo store to read."""
    target: str = MISSING
    """Folder to make; it must not exist or be empty."""
    images: str = "h264"
    """How camera frames are written: h264, av1, or png (inside the data files, nothing lost, larger)."""
    crf: int | None = None
    """Constant rate factor of the video, lower is better; by default 18 for h264 and 20 for av1."""
    gop: int = 2
    """Frames from one key frame to the next; few make random access fast."""
    pixel_format: str = "yuv420p"
    """yuv420p, which every player reads, or yuv444p (h264), which keeps colours at full resolution."""
    workers: int | None = None
    """Processes that write files; one per core by default."""
    out: str = ""
    """Folder for config.yaml and metrics.json; none by default."""


def run(config: Config) -> None:
    """Export, then say what was written."""
    settings = lerobot.LeRobotSettings(config.images, config.crf, config.gop, config.pixel_format)
    settings.check()
    written = lerobot.export_lerobot(exporters.open_store(config), config.target, settings, config.workers)
    root = shlex.quote(f"--dataset.root={config.target}")
    name = Path(config.target).name
    exporters.finish(
        config,
        written,
        f"lerobot-train --policy.type=act --policy.push_to_hub=false --dataset.repo_id=local/{name} {root} "
        f"--output_dir={beside(config.target, 'policy')}",
    )
