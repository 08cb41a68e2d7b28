"""Fixtures that every test may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

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


class _Terminal:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return True


@pytest.fixture
def become_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, standard output says that it is a terminal of 80 columns."""

    def begin() -> None:
        monkeypatch.setattr(sys, "stdout", _Terminal(sys.stdout))
        monkeypatch.setenv("COLUMNS", "80")

    return begin


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
