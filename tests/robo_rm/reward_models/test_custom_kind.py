"""docs/custom_reward_model.md, followed to the letter: a kind of another distribution, from source to leaderboard."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from moving_square import make_store

PAGE = Path(__file__).resolve().parents[3] / "docs" / "custom_reward_model.md"


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a store, a built-in model and the page's package installed in ``site``."""
    root = tmp_path_factory.mktemp("custom")
    package = root / "my_reward_source"
    package.mkdir()
    (package / "my_reward.py").write_text(fenced("python")[0])
    project = next(text for text in fenced("text") if text.startswith("[build-system]"))
    (package / "pyproject.toml").write_text(project)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(root / "site"), str(package)], check=True, capture_output=True)
    make_store(root / "demos.zarr", episodes=8, failures=2)
    return root


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_page_can_be_followed(folder):
    commands = next(text for text in fenced("text") if text.startswith("robo-rm train-reward"))
    square = "holdout=2 steps=3 encoder.image_size=24 reward.width=16 reward.layers=1 reward.heads=2".split()
    built_in = run(folder, "-m", "robo_core.cli.main", "train-reward", "store=demos.zarr", "out=rm", *square)
    assert built_in.returncode == 0, built_in.stderr
    for command in commands.strip().splitlines():
        done = run(folder, "-m", "robo_core.cli.main", *command.split()[1:])
        assert done.returncode == 0, (command, done.stderr)
        if "--help" in command:
            assert "reward.ridge" in done.stdout
            assert "Weight of the penalty on large coefficients." in done.stdout
    judged = json.loads((folder / "report_thumbnail" / "metrics.json").read_text())
    assert judged["voc"] > 0.9
    assert judged["encodes_per_step"] == 1
    board = json.loads((folder / "board" / "metrics.json").read_text())
    assert board["rm_thumbnail.voc"] == pytest.approx(judged["voc"])
    check = next(text for text in fenced("text") if "check_reward_model(" in text)
    done = run(folder, "-c", check)
    assert done.returncode == 0, done.stderr


def test_settings_of_the_kind_are_checked(folder):
    words = ["train-reward", "reward=thumbnail", "store=demos.zarr", "out=other"]
    done = run(folder, "-m", "robo_core.cli.main", *words, "reward.pixel=3")
    assert done.returncode == 2
    assert "did you mean 'reward.pixels'?" in done.stderr
    done = run(folder, "-m", "robo_core.cli.main", *words[:1], "reward=thumbnal", *words[2:])
    assert done.returncode == 2
    assert "did you mean 'thumbnail'?" in done.stderr


def test_without_the_package_the_folder_is_of_an_unknown_kind(folder):
    trained = run(
        folder,
        "-m",
        "robo_core.cli.main",
        "train-reward",
        "reward=thumbnail",
        "store=demos.zarr",
        "out=alone",
        "holdout=2",
    )
    assert trained.returncode == 0, trained.stderr
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = ["-m", "robo_core.cli.main", "score", "model=alone", "store=demos.zarr"]
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "unknown kind 'thumbnail'" in done.stderr
    assert "where that package is installed" in done.stderr
