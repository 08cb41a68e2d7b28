"""The wheel works away from the checkout: configs travel with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    "core",
    "robo_rm",
    "datasets",
    "policies",
    "hw",
    "configs",
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "LICENSE",
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the unpacked wheel, built from a copy of the sources so that the checkout stays clean."""
    work = tmp_path_factory.mktemp("wheel")
    (work / "source").mkdir()
    for name in [*SOURCES, "README.md", "CHANGELOG.md"]:
        source = ROOT / name
        target = work / "source" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", str(work), str(work / "source")]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = work.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(work / "site"), str(wheel)], check=True)
    return work / "site"


def run_installed(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # -I keeps the checkout and the current folder out of the path, so the wheel's copy is the only one found first.
    code = f"import sys; sys.path.insert(0, {str(site)!r}); from robo_core.cli.main import main; sys.exit(main())"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True, check=False, env=environment
    )


def test_the_wheel_holds_all_packages_and_configs(installed):
    for name in ("robo_core", "robo_rm", "robo_datasets", "robo_policies", "robo_hw"):
        assert (installed / name / "__init__.py").is_file()
    shipped = {
        path.relative_to(installed / "robo_core/_configs") for path in (installed / "robo_core/_configs").rglob("*")
    }
    assert shipped == {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*")}
    assert not (installed / "datasets").exists()


def test_the_description_has_links_that_work_on_a_package_index(installed):
    (folder,) = installed.glob("robo_rm-*.dist-info")
    metadata = PathDistribution(folder).metadata
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    assert set(metadata.get_all("Project-URL")) == {f"{name}, {url}" for name, url in urls.items()}
    assert metadata["Description-Content-Type"] == "text/markdown"
    description = metadata.get_payload()
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", description)
    assert len(links) == len(re.findall(r"\]\([^)]+\)", (ROOT / "README.md").read_text())) > 5
    for picture, target in links:
        assert re.match(r"https?://|#", target), target
        inside = re.match(rf"{re.escape(urls['Repository'])}/(raw|blob)/main/([^#]+)", target)
        if inside:
            assert (ROOT / inside.group(2)).is_file(), target
            assert (inside.group(1) == "raw") == bool(picture), target


def test_info_and_record_work_away_from_the_checkout(installed, tmp_path):
    where = run_installed(installed, tmp_path, "--version")
    assert where.returncode == 0, where.stderr
    info = run_installed(installed, tmp_path, "info")
    assert info.returncode == 0, info.stderr
    assert "rendering" in info.stdout
    words = ["record", "env=tidy_drawer", "store=demos.zarr", "episodes=1", "quality=stops_partway", "image_size=32"]
    record = run_installed(installed, tmp_path, *words)
    assert record.returncode == 0, record.stderr
    described = run_installed(installed, tmp_path, "info", "store=demos.zarr")
    assert described.returncode == 0, described.stderr
    assert "open the drawer" in described.stdout
