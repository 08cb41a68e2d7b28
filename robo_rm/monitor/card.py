"""The promise of a monitor and what was measured, for people: a table on the screen, a section on the model card."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from robo_core.console import print_table, say
from robo_core.outputs import write_atomically
from robo_rm.monitor.conformal import fewest_runs
from robo_rm.monitor.promise import MonitorCalibration
from robo_rm.reward_models.saving import CARD

HEADING = "## Progress monitor"
_UNITS = {"stall": "s", "overtime": "s", "regression": "of progress", "uncertainty": "of progress", "unfamiliar": ""}


def rows(found: MonitorCalibration) -> list[list[str]]:
    """(what, value) of the promise, the measurement and the levels of single scores."""
    measured = found.measured
    lines = [["calibrated on", f"{len(found.runs)} successful runs that trained nothing"]]
    for rate in found.rates:
        if rate not in found.promised():
            lines.append([f"alarm at {rate:.1%}", f"no promise: {fewest_runs(rate)} such runs are needed"])
            continue
        name = f"at_{rate:g}"
        lines += [
            [f"alarm at {rate:.1%}: promise", f"at most {rate:.1%} of successful runs raise it"],
            ["  measured, successes", _fraction(measured, f"false_alarms_{name}", "successes", "raised it")],
            ["  measured, failures", _fraction(measured, f"detected_{name}", "failures", "were detected")],
            ["  delay", _seconds(measured.get(f"delay_median_s_{name}"), "after the last true progress (median)")],
            ["  before the end", _seconds(measured.get(f"before_end_median_s_{name}"), "before the recording ended")],
            ["  alarms at", ", ".join(_level(key, value) for key, value in found.alarm_levels(rate).items())],
        ]
    bound = f"at most {found.done_rate:.1%} of failed runs" if found.done_rate else "no promise: too few failed runs"
    lines += [
        ["done above", f"{found.done_level:.3f} ({bound})"],
        ["  measured, successes", _fraction(measured, "done_on_successes", "successes", "were called done")],
        ["  measured, failures", _fraction(measured, "done_on_failures", "failures", "were called done")],
    ]
    return lines


def print_promise(found: MonitorCalibration) -> None:
    """Print the table, and what the promise depends on."""
    print_table("Progress monitor", ["what", "value"], rows(found))
    say("The promise holds for runs like the calibration runs: same robot, cameras, task and way of control.")
    if found.images is None:
        say("warning: images are not compared; training_store=PATH names the store that the model was trained on")


def write_card_section(folder: str | os.PathLike[str], found: MonitorCalibration | None) -> None:
    """Put the section on the model card in place of an earlier one; None takes it away."""
    path = Path(folder) / CARD
    text = path.read_text() if path.exists() else ""
    before, _, rest = text.partition(f"\n{HEADING}\n")
    _, mark, after = rest.partition("\n## ")
    text = before.rstrip("\n") + "\n" + (mark + after if mark else "")
    if found is not None:
        table = ["| what | value |", "|---|---|", *(f"| {what.strip()} | {value} |" for what, value in rows(found))]
        text = text.rstrip("\n") + f"\n\n{HEADING}\n\n" + "\n".join(table) + "\n"
    write_atomically(path, text)


def _fraction(measured: Mapping[str, float | None], name: str, total: str, words: str) -> str:
    if not measured.get(total):
        return f"not measured: no {total} were left over"
    low, high = measured[f"{name}_low"], measured[f"{name}_high"]
    return f"{measured[f'{name}_count']} of {measured[total]} {words} (95 % interval {low:.1%} to {high:.1%})"


def _seconds(value: float | None, what: str) -> str:
    return "not measured" if value is None else f"{value:.1f} s {what}"


def _level(name: str, value: float) -> str:
    return f"{name} never" if math.isinf(value) else f"{name} {value:.3g} {_UNITS[name]}".rstrip()
