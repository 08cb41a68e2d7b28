"""The container files name only what exists; building the image needs Docker, which a test does not have."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import re
import shlex
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet

from robo_core.cli.commands import find_commands, pick_command

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXT = (ROOT / "Dockerfile").read_text()
# What setup.py and pyproject.toml read when they build the wheel.
BUILT_FROM = "core robo_rm datasets policies hw configs README.md LICENSE MANIFEST.in setup.py pyproject.toml".split()


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: word and rest, continued lines joined."""
    lines = [line for line in TEXT.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2]) for line in lines]


def arguments() -> dict[str, str]:
    return dict(rest.split("=") for word, rest in instructions() if word == "ARG" and "=" in rest)


def install_words() -> list[str]:
    (install,) = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    return shlex.split(install)


def constraints_file() -> str:
    named = install_words()[install_words().index("-c") + 1]
    return named.replace("$(echo ${PYTHON} | tr -d .)", arguments()["PYTHON"].replace(".", ""))


def test_the_python_of_the_image_is_one_that_the_package_supports():
    assert arguments()["PYTHON"] in SpecifierSet(PROJECT["requires-python"])
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert bases == ["python:${PYTHON}-slim-bookworm"] * 2


def test_it_installs_constrained_versions_and_extras_that_exist():
    constraints = (ROOT / constraints_file()).read_text()
    (extras,) = re.fullmatch(r"\.\[(.+)\]", install_words()[-1]).groups()
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    # One build for the CPU, one for the CUDA that the constrained PyTorch was built with.
    assert arguments()["TORCH"] == "cpu"
    (major, minor) = re.search(r"TORCH=cu(\d\d)(\d)", TEXT).groups()
    assert f"nvidia-cuda-runtime-cu{major}=={major}.{minor}." in constraints


def test_modules_and_commands_that_it_runs_exist():
    modules = re.findall(r"-m (robo_[\w.]+)", TEXT)
    assert modules
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []
    (entry,) = [json.loads(rest) for word, rest in instructions() if word == "ENTRYPOINT"]
    assert entry[0] in PROJECT["scripts"]
    (example,) = re.findall(r"docker run .* robo-rm (.+)", TEXT)
    assert pick_command(example.split(), find_commands())[0].name == "demo"


def test_the_context_holds_what_the_wheel_is_built_from_and_no_environment():
    ignored = (ROOT / ".dockerignore").read_text().split()
    kept = [*BUILT_FROM, constraints_file(), constraints_file().partition("/")[0]]
    assert [name for name in kept if any(fnmatch.fnmatch(name, pattern) for pattern in ignored)] == []
    assert {".git", ".venv", "docs", "tests"} <= set(ignored)


def test_the_development_container_runs_a_target_of_the_makefile():
    settings = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    make, target = settings["postCreateCommand"].split()
    assert make == "make"
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
