"""Set-up brings the libraries and programs that pip cannot, or says the one line that does."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest

from robo_policies.system import libraries
from robo_policies.system.libraries import (
    DRIVERS,
    EGL,
    NETWORK,
    OSMESA,
    RENDERING,
    VIDEO,
    ensure_libraries,
    missing_parts,
)


def pretend(monkeypatch: pytest.MonkeyPatch, absent: set[str], root: bool) -> list[list[str]]:
    """A machine without some libraries; returns the commands that are run there, after which they are there."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(command)
        known = "libglib2.0-0" not in command
        if command[1] == "install" and known:
            brought = {
                n
                for part in (*RENDERING, *VIDEO, *NETWORK)
                if set(part.packages) & set(command)
                for n in part.libraries
            }
            absent.difference_update(brought)
        return SimpleNamespace(returncode=0 if known else 100)

    monkeypatch.setattr(libraries, "_loads", lambda name: name not in absent)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("os.geteuid", lambda: 0 if root else 1000)
    monkeypatch.setattr("shutil.which", lambda name: None if name in absent else f"/usr/bin/{name}")
    return commands


def test_one_version_of_ffmpeg_is_enough(monkeypatch):
    pretend(monkeypatch, set(VIDEO[0].libraries[1:]), root=True)
    assert missing_parts(VIDEO) == []


def test_what_is_missing_is_installed_under_the_name_that_the_release_knows(monkeypatch):
    commands = pretend(monkeypatch, {*VIDEO[0].libraries, "libglib-2.0.so.0", "ip"}, root=True)
    assert ensure_libraries() == ["rendering: found", "LeRobot's video: found", "tests across a network: found"]
    installed = [command[-1] if command[-1] != DRIVERS else command[-2] for command in commands[1:]]
    assert installed == ["libglib2.0-0", "libglib2.0-0t64", "ffmpeg", "iproute2"]


def test_nothing_is_run_where_nothing_is_missing(monkeypatch):
    commands = pretend(monkeypatch, set(), root=True)
    ensure_libraries()
    assert commands == []


def test_another_user_is_told_the_line_to_run(monkeypatch):
    commands = pretend(monkeypatch, {"libOSMesa.so.8", *VIDEO[0].libraries}, root=False)
    rendering, video, network = ensure_libraries()
    assert network == "tests across a network: found"
    assert commands == []
    assert "but usable" in rendering
    assert rendering.endswith("libgl1-mesa-dri libosmesa6'")
    assert video.endswith("run: sudo sh -c 'apt-get update && apt-get install -y --no-install-recommends ffmpeg'")


def test_without_both_ways_to_draw_nothing_is_called_usable(monkeypatch):
    pretend(monkeypatch, {*EGL.libraries, *OSMESA.libraries}, root=False)
    assert "usable" not in ensure_libraries()[0]
