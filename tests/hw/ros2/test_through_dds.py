"""The bridge through real DDS: the tests in ``inside/`` run once, in a Python that has ROS, and are told one by one.

They need the network once, to install the ROS wheels; without them they are skipped, saying why.
"""

from __future__ import annotations

import ast
import os
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from ros_environment import RosUnavailableError, alone, ros_environ, ros_python

INSIDE = Path(__file__).resolve().parent / "inside"
FILES = sorted(INSIDE.glob("*_rows.py"))
LIMIT = 500  # s
FURTHER_TRIES = 2


def rows(file: Path) -> list[str]:
    """Names of the tests in a file, without running it."""
    tree = ast.parse(file.read_text())
    return [item.name for item in tree.body if isinstance(item, ast.FunctionDef) and item.name.startswith("test_")]


class Report:
    """What became of every test of one file."""

    def __init__(self) -> None:
        self.output = ""
        self.cases: dict[str, ElementTree.Element] = {}

    def take(self, xml: Path, output: str) -> None:
        """Add a run's results; a test that ran again counts by its last run."""
        self.output += output
        if xml.is_file():
            self.cases |= {case.attrib["name"]: case for case in ElementTree.parse(xml).iter("testcase")}

    def of(self, row: str) -> list[ElementTree.Element]:
        """The cases of a row, one for each of its parameters."""
        return [case for name, case in self.cases.items() if name.partition("[")[0] == row]

    def failed(self) -> list[str]:
        """Names of the cases that failed."""
        return [name for name, case in self.cases.items() if problem(case) is not None]


def problem(case: ElementTree.Element) -> str | None:
    """Why a case failed, or None."""
    found = [case.find(kind) for kind in ("failure", "error")]
    texts = [element.text or "" for element in found if element is not None]
    return texts[0] if texts else None


def run(python: Path, file: Path, folder: Path, only: list[str]) -> tuple[Path, str]:
    """Run a file's tests with ROS, all or some; returns the report and the output."""
    words = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    words += [f"--junitxml={folder}/report.xml", f"--basetemp={folder}/tmp"]
    words += [f"{file}::{name}" for name in only] or [str(file)]
    environ = ros_environ() | {"PYTHONPATH": str(INSIDE)}
    try:
        done = subprocess.run(
            alone(words), capture_output=True, text=True, check=False, timeout=LIMIT, env=environ, cwd=INSIDE
        )
        return folder / "report.xml", done.stdout + done.stderr
    except subprocess.TimeoutExpired as late:
        return folder / "report.xml", f"no end after {LIMIT} s: {late.stdout!r}"


@pytest.fixture(scope="session")
def reports() -> dict[Path, Report]:
    return {}


@pytest.fixture
def report(request, reports, tmp_path_factory) -> Report:
    """The report of the row's file, which is run when the first of its rows is asked for."""
    file: Path = request.param
    if file not in reports:
        try:
            python = ros_python()
        except RosUnavailableError as error:
            pytest.skip(f"no Python with ROS 2: {error}")
        made = Report()
        made.take(*run(python, file, tmp_path_factory.mktemp("dds"), []))
        # On a machine that is busy beyond every deadline the arm stops, as it has to; so there are further tries.
        for _ in range(FURTHER_TRIES):
            if made.cases and not made.failed():
                break
            made.take(*run(python, file, tmp_path_factory.mktemp("dds"), made.failed()))
        reports[file] = made
    return reports[file]


@pytest.mark.alone
@pytest.mark.timeout((1 + FURTHER_TRIES) * LIMIT + 100)
@pytest.mark.parametrize(
    ("report", "name"),
    [pytest.param(file, name, id=f"{file.stem}-{name[5:]}") for file in FILES for name in rows(file)],
    indirect=["report"],
)
def test_row(report: Report, name: str):
    cases = report.of(name)
    assert cases, f"it did not run:\n{report.output[-3000:]}"
    for case in cases:
        assert problem(case) is None, f"{case.attrib['name']}:\n{problem(case)}"


def test_wheels_that_cannot_be_had_are_told_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.delenv("ROBO_RM_ROS_PYTHON", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(RosUnavailableError, match=r"could not install the ROS wheels: .*ros-jazzy"):
        ros_python(tmp_path / "ros")


def test_every_file_has_rows():
    assert all(rows(file) for file in FILES)
    assert len(FILES) >= 1
    assert os.access(INSIDE / "scripted_server.py", os.R_OK)
