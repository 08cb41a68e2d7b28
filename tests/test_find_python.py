"""Which Python `make setup` takes: one that runs, wherever it was installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HERE = "{}.{}".format(*sys.version_info[:2])


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def find(folder: Path, *words: str) -> list[str]:
    environ = {
        "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
        "HOME": str(folder),
        "PYENV_ROOT": str(folder / "pyenv"),
        "UV_PYTHON_INSTALL_DIR": str(folder / "uv"),
    }
    done = subprocess.run(
        [str(ROOT / "tools/find_python"), *words], capture_output=True, text=True, check=True, env=os.environ | environ
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_shim_that_only_prints_an_error_does_not_count_and_pyenvs_version_is_found(tmp_path):
    program(tmp_path / f"bin/python{HERE}", f"echo 'pyenv: python{HERE}: command not found' >&2; exit 127")
    program(tmp_path / f"pyenv/versions/{HERE}.4/bin/python{HERE}", f'exec "{sys.executable}" "$@"')
    (line,) = find(tmp_path, HERE)
    assert line.split(" ", 1) == [HERE, sys.executable]


def test_uvs_python_is_found_and_one_that_fails_is_not(tmp_path):
    program(tmp_path / f"bin/python{HERE}", "exit 1")
    program(tmp_path / f"pyenv/versions/{HERE}.4/bin/python{HERE}", "exit 3")
    program(tmp_path / f"uv/cpython-{HERE}.1-linux/bin/python{HERE}", f'exec "{sys.executable}" "$@"')
    (line,) = find(tmp_path, HERE)
    assert line.split(" ", 1) == [HERE, sys.executable]


def test_a_version_without_a_resolved_set_is_not_taken(tmp_path):
    program(tmp_path / "bin/python3.99", f'exec "{sys.executable}" "$@"')
    assert find(tmp_path, "3.99") == []
    supported = {path.stem for path in (ROOT / "constraints").glob("*.txt")}
    assert {f"py{line.split(' ')[0].replace('.', '')}" for line in find(tmp_path)} <= supported
