from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import robo_datasets

SCRIPT = Path(__file__).with_name("s3_round_trip.py")


@pytest.mark.slow
def test_a_store_on_an_s3_server_reads_like_a_local_one(tmp_path):
    # The S3 client and server want older libraries than LeRobot does, so they live in an environment of their own:
    # python -m venv s3 && s3/bin/pip install s3fs 'moto[s3]' flask flask-cors zarr opencv-python-headless ...
    python = os.environ.get("ROBO_RM_S3_PYTHON")
    if not python:
        pytest.skip("set ROBO_RM_S3_PYTHON to a Python that has s3fs, moto[s3], flask, flask-cors and zarr")
    roots = str(Path(robo_datasets.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": roots}
    done = subprocess.run(
        [python, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, check=False, env=environment, timeout=250
    )
    assert done.returncode == 0, done.stderr
    assert "the same to the last bit" in done.stdout
