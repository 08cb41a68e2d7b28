"""Puts the Hydra configs into the wheel as ``robo_core/_configs``; everything else stands in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """An installed copy has no checkout beside it, so the configs travel inside the package."""

    def run(self) -> None:
        """Build the packages, then copy ``configs/``; an editable install reads the checkout's own."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "robo_core" / "_configs"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree("configs", target, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithConfigs})
