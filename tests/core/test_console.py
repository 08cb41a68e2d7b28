"""Progress bars and tables, on a terminal and off it."""

from __future__ import annotations

import pytest

from robo_core.cli.following import beside_store, saved_setting, say_next, say_then, without_next
from robo_core.console import PROGRESS_FILE_VARIABLE, print_table, progress_bar, read_report, shortened
from robo_core.metric_table import metric_rows, print_metrics


def test_off_a_terminal_a_bar_ends_with_one_line_of_totals(capfd):
    with progress_bar("record", total=3, unit="episodes") as bar:
        for index in range(3):
            bar.advance(note=f"success {index}/3")
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("record: 3/3 episodes, ")
    assert lines[0].endswith("success 2/3")


def test_a_resumed_bar_does_not_count_earlier_work_in_its_rate(capfd):
    with progress_bar("train", total=1_000_000, unit="steps", done=999_999):
        pass
    assert "train: 999999/1000000 steps, 0/s" in capfd.readouterr().err


def test_a_child_process_reports_to_the_file_its_parent_reads(tmp_path, monkeypatch, capfd):
    path = tmp_path / "progress.json"
    assert read_report(path) is None
    monkeypatch.setenv(PROGRESS_FILE_VARIABLE, str(path))
    with progress_bar("train", total=10, unit="steps", done=2) as bar:
        bar.advance(3, note="loss 1")
    report = read_report(path)
    assert report == {"name": "train", "total": 10, "unit": "steps", "done": 5, "note": "loss 1"}
    assert capfd.readouterr().err == ""


def test_a_live_bar_shows_count_rate_and_note(monkeypatch, capfd):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "150")
    with progress_bar("record", total=2, unit="episodes") as bar:
        bar.advance(note="fine")
        bar.advance(note="fine")
    assert "2/2 episodes" in capfd.readouterr().err


def test_a_table_prints_names_with_brackets_as_they_are(capfd):
    print_table("files", ["name", "size"], [("[bold].mp4", 3), ("b", 12.34567)])
    out = capfd.readouterr().out
    assert "[bold].mp4" in out
    assert "12.35" in out


def test_a_table_shows_a_dash_for_what_was_not_measured(capfd):
    print_table("figures", ["name", "value"], [("auroc", float("nan")), ("mse", 0.5)])
    words = capfd.readouterr().out.split()
    assert "nan" not in words
    assert words[words.index("auroc") + 1] == "-"


def test_a_table_in_a_pipe_is_plain_columns_one_line_a_row(capfd):
    print_table("files", ["name", "size", "why"], [("a", 3, "x " * 100), ("longer", 12, "two\nlines")])
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "files"
    assert lines[1] == "name    size  why"
    assert lines[2].startswith("a          3  x x x")
    assert lines[3] == "longer    12  two lines"


@pytest.mark.parametrize("no_colour", [True, False])
def test_a_table_on_a_terminal_fits_80_columns_and_is_plain_text_where_no_color_is_set(
    no_colour, capfd, monkeypatch, become_terminal
):
    become_terminal()
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", **({"NO_COLOR": "1"} if no_colour else {})}.items():
        monkeypatch.setenv(name, value)
    print_table("metrics", ["metric", "value", "what it is"], [("auroc", 0.5, "chance " * 30)])
    out = capfd.readouterr().out
    assert ("\x1b" in out) is not no_colour
    assert no_colour is False or max(len(line) for line in out.splitlines()) <= 80
    assert "\u2502" in out


def test_long_lists_are_shortened():
    assert shortened(["a", "b", "c", "d", "e"]) == "a, b, c, d, e"
    assert shortened(list("abcdefghijklmnopqrstuvwxyz")) == "a, b, c ... 26 in all"


def test_a_table_of_metrics_says_what_each_is_and_why_one_is_missing(capfd):
    metrics = {"extra": 3, "auroc": float("nan"), "hallucination": None, "mse": 0.0123456, "steps": 400.0}
    meanings = {"mse": "squared error", "auroc": "chance", "hallucination": "claims", "steps": "steps done"}
    print_metrics("Trained model", metrics, meanings, {"auroc": "no failures held out"})
    assert capfd.readouterr().out.splitlines() == [
        "Trained model",
        "metric         value                     what it is",
        "mse            0.01235                   squared error",
        "auroc          - (no failures held out)  chance",
        "hallucination  -                         claims",
        "steps          400                       steps done",
        "extra          3",
    ]
    assert metric_rows({"done": True}, {}, {}) == [("done", "yes", "")]


def test_the_next_command_is_quoted_for_a_shell_and_leaves_out_what_is_empty(capfd):
    say_next("import lerobot", source="my data", store="demos.zarr", out="", **{"weights.name": "w"})
    assert capfd.readouterr().out == "next: robo-rm import lerobot 'source=my data' store=demos.zarr weights.name=w\n"
    with without_next():
        say_next("doctor", store="demos.zarr")
        say_then("look at it")
    assert capfd.readouterr().out == ""
    say_then("look at it")
    assert capfd.readouterr().out == "next: look at it\n"
    assert beside_store("runs/demos.zarr/", "rm") == "runs/demos_rm"


def test_a_setting_is_read_back_from_the_folder_of_a_command(tmp_path):
    (tmp_path / "config.yaml").write_text("store: demos.zarr\ncount: 3\n")
    assert saved_setting(tmp_path, "store") == "demos.zarr"
    assert saved_setting(tmp_path, "count") == saved_setting(tmp_path, "no") == saved_setting("nowhere", "store") == ""
    (tmp_path / "config.yaml").write_text("[")
    assert saved_setting(tmp_path, "store") == ""
