"""The project's own files: they are read by others' tools, so they must parse and agree with the project."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
YAML = sorted([*ROOT.glob(".github/**/*.yml"), ROOT / "CITATION.cff", ROOT / ".pre-commit-config.yaml"])


@pytest.mark.parametrize("path", YAML, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_is_yaml_with_something_in_it(path):
    assert yaml.safe_load(path.read_text())


def test_the_citation_has_the_version_and_licence_of_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


def test_the_workflow_runs_what_ci_runs_and_makes_targets_that_exist():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert "bash .ci/run" in runs
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {run.split()[1] for run in runs if run.startswith("make ")} <= targets


def test_pages_that_are_named_exist():
    for name in ("SECURITY.md", "CONTRIBUTING.md", ".github/PULL_REQUEST_TEMPLATE.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / name).read_text()):
            assert (ROOT / target).exists(), f"{name}: {target}"


def test_the_address_of_the_repository_stands_in_one_place():
    owner = PROJECT["urls"]["Repository"].removesuffix("/robo-rm")
    assert all(url.startswith(owner) for url in PROJECT["urls"].values())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    suffixes = (".md", ".py", ".toml", ".cff", ".yml", ".yaml", ".ipynb")
    shipped = [name for name in tracked if name.endswith(suffixes) and not name.startswith("tests/")]
    files = [ROOT / name for name in shipped if (ROOT / name).is_file()]
    assert [str(path) for path in files if owner in path.read_text()] in ([], [str(ROOT / "pyproject.toml")])


def test_the_extra_all_brings_every_extra_of_a_user():
    extras = PROJECT["optional-dependencies"]
    (named,) = re.fullmatch(r"robo-rm\[(.+)\]", extras["all"][0]).groups()
    assert set(named.split(",")) == set(extras) - {"all", "dev", "docs"}
