"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# One thread a process: the suite already runs a process on each core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

SHARED_DATA = Path(os.environ.get("ROBO_RM_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings (``ROBO_RM_SHARED_DATA``, or ``../shared/data``); skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real recordings not found at {SHARED_DATA}; set ROBO_RM_SHARED_DATA to run this test")
    return SHARED_DATA


@pytest.fixture
def run_command(capfd: pytest.CaptureFixture[str]):
    """Run ``robo-rm`` in this process and return (exit code, standard output, standard error)."""
    from robo_core.cli.main import main

    def run(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(word) for word in words])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run
