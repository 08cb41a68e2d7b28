from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import robo_core
import robo_datasets

SCRIPT = Path(__file__).with_name("s3_round_trip.py")
REQUIREMENTS = Path(__file__).with_name("s3_requirements.txt")
ENVIRONMENTS = Path(__file__).resolve().parents[3] / ".venvs"
UNREACHABLE = re.compile(r"NewConnectionError|ConnectTimeout|ReadTimeout|name resolution|Network is unreachable")


def python_with_s3() -> Path:
    """The Python of a small environment with an S3 client and server, made once and kept under ``.venvs/``."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ENVIRONMENTS / f"s3-{wanted}"
    python, ready = folder / "bin/python", folder / ".ready"
    ENVIRONMENTS.mkdir(exist_ok=True)
    with open(ENVIRONMENTS / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ready.exists():
            return python
        for old in ENVIRONMENTS.glob("s3-*"):
            shutil.rmtree(old)
        # The base interpreter: an environment made from within another one would depend on it.
        subprocess.run([sys._base_executable, "-m", "venv", str(folder)], check=True, timeout=60)  # type: ignore[attr-defined]
        words = "-m pip install --disable-pip-version-check --quiet --progress-bar off --retries 1 -r".split()
        done = subprocess.run([str(python), *words, str(REQUIREMENTS)], capture_output=True, text=True, timeout=240)
        if done.returncode:
            shutil.rmtree(folder)
            if UNREACHABLE.search(done.stderr):
                pytest.skip(f"the package registry cannot be reached to install {REQUIREMENTS.name}")
            pytest.fail(f"{REQUIREMENTS.name} cannot be installed:\n{done.stderr}")
        ready.touch()
    return python


@pytest.mark.timeout(400)
def test_a_store_on_an_s3_server_reads_like_a_local_one(tmp_path):
    roots = os.pathsep.join(str(Path(p.__file__).parents[1]) for p in (robo_core, robo_datasets))
    environment = {**os.environ, "PYTHONPATH": roots}
    words = [str(python_with_s3()), str(SCRIPT), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, timeout=150)
    assert done.returncode == 0, done.stderr
    assert "the same bit for bit" in done.stdout
