"""A reader that has gone (``| head -1``) ends a command without a traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from robo_core.cli.commands import find_commands

HELPS = [f"{command.words} --help" for command in find_commands().values()]
WORDS = [
    "--help",
    "--version",
    "nonsense",
    "info",
    "info --cfg job",
    "doctor store=nowhere.zarr",
    "train-policy --info",
    "train-policy --hydra-help",
    "train-policy --shell-completion install=bash",
]


@pytest.mark.parametrize(
    ("words", "both"), [*((words, False) for words in (*WORDS, *HELPS)), *((words, True) for words in WORDS)]
)
def test_a_closed_pipe_is_no_error(words, both, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "robo_core.cli.main", *words.split()]
    errors = writer if both else subprocess.PIPE
    done = subprocess.run(command, stdout=writer, stderr=errors, text=True, cwd=tmp_path, check=False)
    os.close(writer)
    mistaken = words in ("nonsense", "doctor store=nowhere.zarr")
    assert done.returncode in ((2, 141) if mistaken else (0, 141))
    assert "Traceback" not in (done.stderr or "")
    assert "Exception ignored" not in (done.stderr or "")


def test_head_takes_the_first_line():
    command = f"{sys.executable} -m robo_core.cli.main --help | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    first, code = done.stdout.splitlines()
    assert first.startswith("robo-rm: robot demonstrations")
    assert code in ("0", "141")
    assert done.stderr == ""
