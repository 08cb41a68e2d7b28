"""Progress bars and tables, on a terminal and off it."""

from __future__ import annotations

from robo_core.console import PROGRESS_FILE_VARIABLE, print_table, progress_bar, read_report


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
    assert words[words.index("auroc") + 2] == "-"
