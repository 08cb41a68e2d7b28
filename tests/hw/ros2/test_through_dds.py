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
LIMIT = 280  # s, below the time-out of a test


def rows(file: Path) -> list[str]:
    """Names of the tests in a file, without running it."""
    tree = ast.parse(file.read_text())
    return [item.name for item in tree.body if isinstance(item, ast.FunctionDef) and item.name.startswith("test_")]


class Report:
    """What became of every test of one file."""

    def __init__(self, xml: Path, output: str) -> None:
        self.output = output
        self.cases: dict[str, list[ElementTree.Element]] = {}
        if xml.is_file():
            for case in ElementTree.parse(xml).iter("testcase"):
                self.cases.setdefault(case.attrib["name"].partition("[")[0], []).append(case)


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
        folder = tmp_path_factory.mktemp("dds")
        words = [str(python), "-m", "pytest", str(file), "-q", "-p", "no:cacheprovider", "--tb=short"]
        words += [f"--junitxml={folder}/report.xml", f"--basetemp={folder}/tmp"]
        environ = ros_environ() | {"PYTHONPATH": str(INSIDE)}
        try:
            done = subprocess.run(
                alone(words), capture_output=True, text=True, check=False, timeout=LIMIT, env=environ, cwd=INSIDE
            )
            output = done.stdout + done.stderr
        except subprocess.TimeoutExpired as late:
            output = f"no end after {LIMIT} s: {late.stdout!r}"
        reports[file] = Report(folder / "report.xml", output)
    return reports[file]


@pytest.mark.parametrize(
    ("report", "name"),
    [pytest.param(file, name, id=f"{file.stem}-{name[5:]}") for file in FILES for name in rows(file)],
    indirect=["report"],
)
def test_row(report: Report, name: str):
    assert name in report.cases, f"it did not run:\n{report.output[-3000:]}"
    for case in report.cases[name]:
        for kind in ("failure", "error"):
            found = case.find(kind)
            assert found is None, f"{case.attrib['name']}:\n{found.text}"
        skipped = case.find("skipped")
        if skipped is not None:
            pytest.skip(skipped.attrib.get("message", ""))


def test_every_file_has_rows():
    assert all(rows(file) for file in FILES)
    assert len(FILES) >= 1
    assert os.access(INSIDE / "scripted_server.py", os.R_OK)
