from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from omegaconf import OmegaConf

TINY = (
    "policy.chunk_size=5", "policy.execution_horizon=3", "policy.dim_model=16", "policy.n_heads=2",
    "policy.dim_feedforward=32", "policy.n_encoder_layers=1", "training.precision=fp32", "training.batch_size=8",
)  # fmt: skip


def test_train_policy_writes_a_policy_its_figures_and_its_curve(run_command, point_store, tmp_path):
    out = tmp_path / "policy"
    words = ("train-policy", f"store={point_store.path}", "policy=act", f"out={out}", "steps=4", *TINY)
    code, printed, errors = run_command(*words)
    assert (code, errors.count("train policy: 4/4 steps")) == (0, 1)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == 4
    assert metrics["frames"] == metrics["frames_used"] == metrics["effective_samples"]
    assert (out / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert OmegaConf.load(out / "config.yaml").policy.dim_model == 16
    assert f"wrote {out}/" in printed

    code, printed, _ = run_command(*words)
    assert (code, "nothing was trained" in printed) == (0, True)
    code, _, errors = run_command(*words, "seed=1")
    assert (code, errors.count("\n")) == (2, 1)
    assert "holds a run with seed=0, not 1" in errors


def test_a_policy_of_another_robot_is_refused_by_eval_policy_before_it_writes(run_command, point_policy, tmp_path):
    out = tmp_path / "eval"
    code, _, errors = run_command(
        "eval-policy", f"policy={point_policy.policy.folder}", "env=tidy_drawer", f"out={out}"
    )
    assert (code, errors.count("\n")) == (2, 1)
    assert "'observation.state' of 2 values and tidy_drawer has shape (7,)" in errors
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("policy=atc",), "policy=atc is not one of: act"),
        (("weights=rapc",), "weights=rapc is not one of: none, rabc, success_only"),
        (("weights=rabc",), "robo-rm score"),
        (("step=3",), "no setting 'step'"),
        (("steps=many",), "steps"),
        (("policy.dim_model=30",), "policy.dim_model=30"),
        (("store=nowhere.zarr",), "nowhere.zarr"),
        (("out=",), "out is empty"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_written(run_command, point_store, tmp_path, words, told):
    out = tmp_path / "policy"
    given = [f"store={point_store.path}", f"out={out}"]
    given = [word for word in given if word.split("=")[0] not in {word.split("=")[0] for word in words}]
    code, _, errors = run_command("train-policy", *given, *words)
    assert (code, errors.count("\n")) == (2, 1)
    assert told in errors
    assert not out.exists()


def test_a_run_that_was_killed_goes_on_with_the_same_command(point_store, tmp_path):
    out = tmp_path / "policy"
    words = (f"store={point_store.path}", f"out={out}", "steps=400", "training.checkpoint_seconds=0.01", *TINY)
    command = [sys.executable, "-m", "robo_core.cli.main", "train-policy", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = out / "training" / "state.safetensors"
    waited = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < waited:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists()
    assert not (out / "config.json").exists()
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert json.loads((out / "metrics.json").read_text())["steps"] == 400
    # A run that went on starts its bar where it stopped, and leaves no state behind.
    assert not state.exists()
    # It ends in the very weights of a run that was left alone.
    alone = tmp_path / "alone"
    words = tuple(f"out={alone}" if word.startswith("out=") else word for word in command)
    subprocess.run(words, capture_output=True, check=True, env=environment)
    for name in ("model.safetensors", "policy_preprocessor.json"):
        assert (alone / name).read_bytes() == (out / name).read_bytes()
