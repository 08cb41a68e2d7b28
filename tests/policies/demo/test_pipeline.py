"""The demo's engine: parts run once, failures stop it with their exit code, side-by-side commands share the work."""

from __future__ import annotations

import json
import shlex
import sys

import pytest

from robo_policies.demo import pipeline as demo
from robo_policies.demo.pipeline import Pipeline, Step, run_side_by_side


@pytest.fixture
def calls(monkeypatch):
    made = []

    def fake_main(words):
        made.append(words)
        return 2 if "fail" in words else 0

    monkeypatch.setattr("robo_core.cli.main.main", fake_main)
    return made


def part(name, *words):
    return Step(name, name, (words,))


def test_finished_parts_are_not_run_again(tmp_path, calls):
    parts = [part("a", "x", "y=1"), part("b", "z")]
    Pipeline(tmp_path).run(parts)
    Pipeline(tmp_path).run(parts)
    assert calls == [["x", "y=1"], ["z"]]


def test_a_changed_part_and_all_after_it_run_again(tmp_path, calls):
    Pipeline(tmp_path).run([part("a", "x"), part("b", "y"), part("c", "z")])
    calls.clear()
    Pipeline(tmp_path).run([part("a", "x"), part("b", "y", "more=1"), part("c", "z")])
    assert calls == [["y", "more=1"], ["z"]]


def test_a_failed_part_stops_the_line_with_its_exit_code_and_is_tried_again(tmp_path, calls):
    parts = [part("a", "x"), part("b", "fail"), part("c", "z")]
    for _ in range(2):
        with pytest.raises(SystemExit) as stopped:
            Pipeline(tmp_path).run(parts)
        assert stopped.value.code == 2
    assert calls == [["x"], ["fail"], ["fail"]]


def test_the_time_of_interrupted_runs_is_counted(tmp_path, calls, monkeypatch):
    clock = iter([0.0, 5.0, 100.0, 107.0])
    monkeypatch.setattr(demo.time, "monotonic", lambda: next(clock))
    with pytest.raises(SystemExit):
        Pipeline(tmp_path).run([part("a", "fail")])
    monkeypatch.setattr("robo_core.cli.main.main", lambda words: 0)
    line = Pipeline(tmp_path)
    line.run([part("a", "fail")])
    assert line.seconds == {"a": 12.0}
    assert json.loads((tmp_path / "parts.json").read_text())["a"]["seconds"] == 12.0


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A program in the place of Python: runs its last word as shell."""
    program = tmp_path / "stand_in"
    program.write_text('#!/bin/sh\nfor last; do :; done\neval "$last"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(demo, "POLL_SECONDS", 0.02)


def test_commands_side_by_side_share_one_bar_and_show_what_they_said(tmp_path, stand_in, capfd):
    report = shlex.quote(json.dumps({"name": "t", "total": 4, "unit": "steps", "done": 4, "note": "loss 1"}))
    code = run_side_by_side(
        [(f'echo {report} > "$ROBO_RM_PROGRESS_FILE"; echo one',), ("echo two",)], tmp_path / "logs"
    )
    captured = capfd.readouterr()
    assert code == 0
    assert "one" in captured.out
    assert "two" in captured.out
    assert "200/200 %" in captured.err


def test_when_one_command_fails_the_others_are_stopped_and_its_words_are_shown(tmp_path, stand_in, capfd):
    commands = [("exec sleep 60",), ("echo the store is gone >&2; exit 2",)]
    assert run_side_by_side(commands, tmp_path / "logs") != 0
    assert "the store is gone" in capfd.readouterr().err
