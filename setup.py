"""Puts the Hydra configs into the wheel, and the README into its description; the rest stands in pyproject.toml."""

import re
import shutil
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent


class BuildWithConfigs(build_py):
    """An installed copy has no checkout beside it: the configs travel with it, as ``robo_core/_configs``."""

    def run(self) -> None:
        """Build the packages, then copy ``configs/``; an editable install reads the checkout's own."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "robo_core" / "_configs"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree("configs", target, ignore=shutil.ignore_patterns("__pycache__"))


def description() -> str:
    """README.md for a package index, which has no files beside it: links and pictures lead into the repository."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository = project["urls"]["Repository"]

    def absolute(found: re.Match[str]) -> str:
        kind = "raw" if found.group(1) else "blob"
        return f"{found.group(1)}[{found.group(2)}]({repository}/{kind}/main/{found.group(3)})"

    readme = (HERE / "README.md").read_text(encoding="utf-8")
    return re.sub(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)]+)\)", absolute, readme)


setup(
    cmdclass={"build_py": BuildWithConfigs},
    long_description=description(),
    long_description_content_type="text/markdown",
)
