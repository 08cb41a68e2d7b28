"""A run killed with SIGKILL is resumed by the same command, and its curve is that of a run that was not killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from line_env import LineEnv

STEPS = 480
SCRIPT = """
import json, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from line_env import LineEnv

from robo_policies.rl.runners import experiment, runner
from robo_policies.rl.settings import LearningSettings, SacSettings
from robo_policies.commands import train_rl
from robo_rm.shaping.settings import ShapingSettings

if __name__ == "__main__":
    experiment.make_env = lambda name, max_steps=None: LineEnv(40)
    runner.SECONDS_BETWEEN_CHECKPOINTS = 0.05
    loop = LearningSettings(
        action_repeat=4, gradient_steps=1, learning_starts=10, buffer_size=500, evaluate_every=120,
        evaluation_episodes=3,
    )
    train_rl.run(
        train_rl.Config(
            env="line", out=sys.argv[2], steps=int(sys.argv[3]), potential="true", learning=loop,
            learner=SacSettings(width=16, batch_size=32), shaping=ShapingSettings("pbrs"), device="cpu",
        )
    )
"""


def start(script: Path, out: Path) -> subprocess.Popen[bytes]:
    helpers = Path(sys.modules[LineEnv.__module__].__file__ or "").parent
    words = [sys.executable, str(script), str(helpers), str(out), str(STEPS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with said_by(out).open("ab") as said:
        return subprocess.Popen(words, env=environment, stdout=said, stderr=subprocess.STDOUT)


def said_by(out: Path) -> Path:
    return out.with_suffix(".log")


def curve(out: Path) -> list[dict[str, Any]]:
    points = json.loads((out / "training" / "learning.json").read_text())["curve"]
    return [{key: value for key, value in point.items() if key != "seconds"} for point in points]


def reached(note: Path) -> int:
    return int(json.loads(note.read_text())["steps"]) if note.exists() else 0


def test_a_killed_run_has_the_curve_of_a_run_that_was_not_killed(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    undisturbed, run = start(script, whole), start(script, killed)
    note = killed / "training" / "learning.json"
    end = time.monotonic() + 120
    while reached(note) < STEPS // 2:
        assert run.poll() is None, said_by(killed).read_text()
        assert time.monotonic() < end
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not (killed / "metrics.json").exists()
    before = reached(note)
    assert start(script, killed).wait(timeout=120) == 0, said_by(killed).read_text()
    assert f"resuming at {before} of {STEPS}" in said_by(killed).read_text()
    assert undisturbed.wait(timeout=120) == 0, said_by(whole).read_text()
    assert [point["steps"] for point in curve(killed)] == [point["steps"] for point in curve(whole)]
    for mine, theirs in zip(curve(killed), curve(whole), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-6)
    for out in (killed, whole):
        assert len(list((out / "training").glob("replay-*.safetensors"))) == 1
