"""The notebooks run from their first cell to their last, in an empty folder, on data that they make themselves."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import nbformat
import pytest

from robo_core.cli.app import settings_of
from robo_core.cli.commands import find_commands, pick_command
from robo_core.cli.composed import compose_command

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
SECONDS = 600  # for a whole notebook, on two cores


def cells(notebook: Path) -> list[nbformat.NotebookNode]:
    """The code cells."""
    return [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs_and_its_commands_compose(notebook):
    nbformat.validate(nbformat.read(notebook, as_version=4))
    commands = find_commands()
    for cell in cells(notebook):
        assert (cell.outputs, cell.execution_count) == ([], None)
        if not cell.source.startswith("%%bash\n"):
            compile(cell.source, notebook.name, "exec")
            continue
        for line in cell.source.replace("\\\n", " ").splitlines()[1:]:
            command, rest = pick_command(shlex.split(line)[1:], commands)
            assert isinstance(settings_of(command, compose_command(command, rest).config), command.schema)


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    # A kernel finds what the environment of these tests installs, robo-rm among it.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    run = nbformat.read(notebook, as_version=4)
    folder = tmp_path / "work"
    folder.mkdir()
    NotebookClient(run, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}).execute()
    nbformat.write(run, tmp_path / notebook.name)
    shown = [output for cell in run.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert [output for output in shown if output.output_type == "error"] == []


def test_there_are_two():
    assert [notebook.stem for notebook in NOTEBOOKS] == ["lerobot_to_weights", "shaped_rl"]
