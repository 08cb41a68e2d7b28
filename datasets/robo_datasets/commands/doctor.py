"""Check a demo store: files, checksums, time stamps, cameras, signals, stages.

Prints a table of its findings, then each one, and exits with 1 if there are errors. With repair=true it rebuilds the
index, salvages or removes what killed writers left, and moves damaged episodes and edits to .quarantine inside the
store; nothing that was committed is deleted.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from robo_core.cli.following import say_next, say_then
from robo_core.console import print_table, say
from robo_core.errors import ConfigError, StoreError
from robo_core.outputs import OutputFolder, write_atomically
from robo_datasets import doctor, recognise, store
from robo_datasets.commands.following import say_training

if TYPE_CHECKING:
    from robo_datasets.doctor.findings import Report

GROUP = "datasets"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm doctor``."""

    store: str = MISSING
    """Demo store to check."""
    repair: bool = False
    """Fix what can be fixed; nothing that was committed is deleted."""
    rows: int = 100
    """Maximum number of findings to print, errors first; all are counted."""
    out: str = ""
    """Folder for config.yaml, metrics.json and findings.json (all of them); none by default."""


def run(config: Config) -> None:
    """Examine, repair if asked to, print, and exit with 1 where errors stand."""

    root = Path(config.store)
    if not config.store or config.rows < 1:
        raise ConfigError("give store=PATH and rows of at least 1")
    if not (root / store.GROUP_FILE).is_file() and not (root / store.EPISODES).is_dir():
        why = f"there is no demo store at {root}; make one with robo-rm record or robo-rm import"
        raise StoreError(recognise.not_a_store(root, why))
    report = doctor.examine.examine(root)
    done = doctor.repair.repair(root, report) if config.repair else []
    if report.findings:
        print_table(
            f"doctor: {root}", ("severity", "check", "findings", "episodes or files", "repaired"), _rows(report)
        )
    order = sorted(range(len(report.findings)), key=lambda number: report.findings[number].severity != doctor.ERROR)
    for number in order[: config.rows]:
        say(_line(report, number, config.repair))
    if len(order) > config.rows:
        say(f"and {len(order) - config.rows} more; raise rows=, or give out=DIR for findings.json")
    for sentence in done:
        say(sentence)
    metrics = report.metrics()
    say(
        f"{metrics['episodes']} whole episodes, {metrics['frames']} frames: {metrics['errors']} errors, "
        f"{metrics['warnings']} warnings, {metrics['repaired']} repaired"
    )
    if config.out:
        output = OutputFolder(config.out, config)
        output.write_metrics(metrics)
        details = [
            {
                **{key: value for key, value in asdict(finding).items() if key != "remedy"},
                "repaired": n in report.repaired,
            }
            for n, finding in enumerate(report.findings)
        ]
        write_atomically(output.path("findings.json"), json.dumps(details, indent=1) + "\n")
        output.announce()
    if report.open_errors:
        if config.repair:
            say_then("restore what is left from a copy, or import those episodes again into a new store")
        else:
            say_next("doctor", store=config.store, repair="true")
        raise SystemExit(1)
    say_training(config.store)


def _rows(report: Report) -> list[tuple[object, ...]]:
    """One row for each check that found something, errors first."""
    groups: dict[tuple[str, str], list[int]] = {}
    for number, finding in enumerate(report.findings):
        groups.setdefault((finding.severity, finding.check), []).append(number)
    return [
        (
            *group,
            len(numbers),
            len({report.findings[number].where for number in numbers}),
            sum(number in report.repaired for number in numbers),
        )
        for group, numbers in sorted(groups.items())
    ]


def _line(report: Report, number: int, repairing: bool) -> str:
    """One finding on one line, for people and for grep."""
    finding = report.findings[number]
    place = "" if finding.where in finding.message else f"{finding.where}: "
    if number in report.repaired:
        advice = " [repaired]"
    elif finding.remedy is not None and not repairing:
        advice = f" [repair=true {finding.remedy.advice}]"
    else:
        advice = ""
    return f"{finding.severity}, {finding.check}: {place}{finding.message}{advice}"
