"""What a command shows while it runs: progress bars, tables, single lines.

On a terminal the bars are live, with rate and time left; elsewhere (a log file, CI) one plain line now and then. A
process started by another command reports to it instead, through the file named in ``ROBO_RM_PROGRESS_FILE``, and the
other command shows the bar.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypedDict

PROGRESS_FILE_VARIABLE = "ROBO_RM_PROGRESS_FILE"
SECONDS_BETWEEN_REPORTS = 0.5
SECONDS_BETWEEN_PLAIN_LINES = 15.0


class ProgressReport(TypedDict):
    """How far another process is, as it reports through ``ROBO_RM_PROGRESS_FILE``."""

    name: str
    total: float | None
    unit: str
    done: float
    note: str


class Bar(Protocol):
    """A running count of work done."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Count ``amount`` more units as done; ``note`` is shown behind the bar."""


def text_width(most: int = 120) -> int:
    """Columns for running text: those of the terminal, at most ``most``, which is also what a file or a pipe gets."""
    return min(most, shutil.get_terminal_size((most, 24)).columns) if sys.stdout.isatty() else most


def say(text: str) -> None:
    """Print one line to the user, unwrapped."""
    if _reports():
        print(text, flush=True)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers are right-aligned.

    On a terminal it has lines around it and cells wrap to the window. In a file or a pipe each row is one line of plain
    columns, for grep and awk.
    """
    if not _reports():
        return
    body = [list(row) for row in rows]
    numeric = [bool(body) and all(isinstance(row[i], int | float) for row in body) for i in range(len(columns))]
    # A cell is one line of text whatever it is made of.
    cells = [[" ".join(_cell(value).split()) for value in row] for row in body]
    if sys.stdout.isatty():
        _print_drawn(title, columns, cells, numeric)
    else:
        _print_plain(title, columns, cells, numeric)


def _print_plain(title: str, columns: Sequence[str], cells: list[list[str]], numeric: Sequence[bool]) -> None:
    if title:
        print(title)
    lines = [list(columns), *cells]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        parts = zip(line, widths, numeric, strict=True)
        print("  ".join(text.rjust(width) if right else text.ljust(width) for text, width, right in parts).rstrip())
    sys.stdout.flush()


def _print_drawn(title: str, columns: Sequence[str], cells: list[list[str]], numeric: Sequence[bool]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", title_style="bold")
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for line in cells:
        # Text, not markup: a file name such as "[1].mp4" must print as it is.
        table.add_row(*map(Text, line))

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise  # the error being handled; rich would end with exit code 1

    Screen(file=sys.stdout, color_system=None if no_colour() else "auto").print(table)


def no_colour() -> bool:
    """Whether the user wants plain text (``NO_COLOR``, https://no-color.org), bold type included."""
    return bool(os.environ.get("NO_COLOR"))


def shortened(names: Sequence[object], most: int = 5) -> str:
    """A list for people: all of it, or the first three and how many there are: ``a, b, c ... 26 in all``."""
    if len(names) <= most:
        return ", ".join(map(str, names))
    return f"{', '.join(map(str, names[:3]))} ... {len(names)} in all"


def _reports() -> bool:
    """Of several processes that train together (``torchrun`` numbers them), the first one reports."""
    return os.environ.get("RANK", "0") == "0"


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "-"  # what was not measured
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


@contextmanager
def progress_bar(name: str, total: float | None, unit: str = "it", done: float = 0) -> Iterator[Bar]:
    """Show work going on: ``with progress_bar("record", total=80, unit="episodes") as bar: bar.advance()``.

    Args:
        name: what is being done.
        total: units of work in all; None where it is not known.
        unit: what is counted.
        done: units finished by an earlier run that is being resumed; they do not count in the rate.
    """
    report_to = os.environ.get(PROGRESS_FILE_VARIABLE)
    if not _reports():
        yield _SilentBar()
    elif report_to:
        reported = _ReportedBar(Path(report_to), name, total, unit, done)
        yield reported
        reported.report()
    elif sys.stderr.isatty():
        with _live_bar(name, total, unit, done) as bar:
            yield bar
    else:
        plain = _PlainBar(name, total, unit, done)
        yield plain
        plain.close()


@contextmanager
def _live_bar(name: str, total: float | None, unit: str, done: float) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.fields[total_text]} {task.fields[unit]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(file=sys.stderr, color_system=None if no_colour() else "auto")
    with Progress(*columns, console=console) as progress:
        total_text = "?" if total is None else f"{total:.0f}"
        task = progress.add_task(
            name, total=total, completed=int(done), unit=unit, note="", rate="", total_text=total_text
        )
        started = time.monotonic()

        class _Live:
            def advance(self, amount: float = 1, note: str = "") -> None:
                current = progress.tasks[0].completed + amount
                rate = (current - done) / max(time.monotonic() - started, 1e-9)
                progress.update(task, advance=amount, rate=f"{rate:.3g}/s", note=note)

        yield _Live()


class _SilentBar:
    def advance(self, amount: float = 1, note: str = "") -> None:
        """Count nothing."""


class _ReportedBar:
    """Tells another process how far the work is, at most twice a second; see ``read_report``."""

    def __init__(self, path: Path, name: str, total: float | None, unit: str, done: float) -> None:
        self._path = path
        self._state: ProgressReport = {"name": name, "total": total, "unit": unit, "done": done, "note": ""}
        self._last = 0.0
        self.report()

    def advance(self, amount: float = 1, note: str = "") -> None:
        self._state["done"] += amount
        self._state["note"] = note or self._state["note"]
        if time.monotonic() - self._last >= SECONDS_BETWEEN_REPORTS:
            self.report()

    def report(self) -> None:
        self._last = time.monotonic()
        temporary = self._path.with_name(self._path.name + ".part")
        temporary.write_text(json.dumps(self._state))
        os.replace(temporary, self._path)


def read_report(path: Path) -> ProgressReport | None:
    """Read what a process reported; None where it has not reported yet."""
    try:
        report: ProgressReport = json.loads(path.read_text())
        return report
    except FileNotFoundError:
        return None


class _PlainBar:
    """One line at the start of work, now and then, and at its end."""

    def __init__(self, name: str, total: float | None, unit: str, done: float) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._first = self._done = done
        self._started = self._last = time.monotonic()
        self._note = ""

    def advance(self, amount: float = 1, note: str = "") -> None:
        self._done += amount
        self._note = note or self._note
        if time.monotonic() - self._last >= SECONDS_BETWEEN_PLAIN_LINES:
            self._line()

    def close(self) -> None:
        self._line()

    def _line(self) -> None:
        self._last = time.monotonic()
        elapsed = self._last - self._started
        rate = (self._done - self._first) / max(elapsed, 1e-9)
        text = f"{self._name}: {self._done:.0f}"
        if self._total is not None:
            text += f"/{self._total:.0f}"
        text += f" {self._unit}, {rate:.3g}/s, {elapsed:.0f} s"
        if self._total is not None and rate > 0 and self._done < self._total:
            text += f", {(self._total - self._done) / rate:.0f} s left"
        if self._note:
            text += f", {self._note}"
        print(text, file=sys.stderr, flush=True)
