from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from robo_datasets import DemoStore

SCRIPT = Path(__file__).with_name("kill_writers.py")


def kill(store: Path, kills: int, writers: int, seed: int) -> dict[str, int]:
    words = [sys.executable, str(SCRIPT), str(store), str(kills), str(writers), str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_killing(path: Path, run_command, kills: int, writers: int) -> None:
    result = kill(path, kills, writers, seed=writers)
    assert result["kills"] >= kills
    assert result["lost"] == 0
    assert result["committed"] >= result["promised"] > 0
    assert result["most_left_behind"] <= writers
    # What is left is what the killed writers were at; doctor clears it and finds nothing else.
    code, out, _ = run_command("doctor", f"store={path}", "repair=true")
    assert code == 0
    assert " 0 errors" in out
    assert list((path / ".staging").iterdir()) == []
    assert len(DemoStore.open(path)) >= result["committed"]


@pytest.mark.parametrize("writers", [1, 4])
def test_killing_writers_loses_only_the_episodes_in_work(tmp_path, run_command, writers):
    check_killing(tmp_path / "demos.zarr", run_command, kills=16, writers=writers)


@pytest.mark.slow
@pytest.mark.parametrize("writers", [1, 4])
def test_killing_writers_two_hundred_times(tmp_path, run_command, writers):
    check_killing(tmp_path / "demos.zarr", run_command, kills=200, writers=writers)
