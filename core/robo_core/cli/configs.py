"""Where the Hydra configs stand: ``configs/`` in a checkout, ``robo_core/_configs`` in an installed wheel."""

from __future__ import annotations

from pathlib import Path


def configs_folder() -> Path:
    """Return the folder that holds the primary configs, in a checkout and in an installation alike."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_configs"
    return installed if installed.is_dir() else package.parents[1] / "configs"
