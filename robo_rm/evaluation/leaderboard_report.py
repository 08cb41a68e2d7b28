"""The page that `robo-rm leaderboard` writes: who is best and how surely, then metrics, outcomes, disputed episodes."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from robo_rm.evaluation import probe_table
from robo_rm.evaluation.advice import METRICS, advise
from robo_rm.evaluation.leaderboard import Board, board_rows, most_disputed
from robo_rm.report.charts import roc_figure
from robo_rm.report.film_strip import strip_frames
from robo_rm.report.leaderboard_charts import compared_figure, intervals_figure
from robo_rm.report.page import Page

if TYPE_CHECKING:
    from robo_datasets import DemoStore

DISPUTED = 5
SHOWN = ("auroc", "rho", "hallucination", "hallucination_probes", "mse", "voc", "stage_accuracy", "boundary_f1")


def write_board(
    board: Board, store: DemoStore, camera: str | None, path: str | os.PathLike[str], following: str = ""
) -> Path:
    """Write the self-contained page.

    Args:
        board: the models and their metrics.
        store: of the episodes.
        camera: key for film strips, None for none.
        path: to write to.
        following: the command to type next.
    """
    lead = f"Evaluated on {board.scope} of {Path(store.path).name}."
    page = Page("Reward models side by side", lead, "reward_baselines.md", following)
    page.section("Which one?")
    page.verdicts(verdicts(board))
    page.section("The metrics")
    page.prose(
        "Best mean place first. All are measured by one truth, the stage shares of the store. `*` marks a metric that "
        "differs from the first model's by more than chance: a randomisation test on the same episodes, at 5 % for all "
        "comparisons of the board together (Holm)."
    )
    page.table(["metric", *board.names, "over"], board_rows(board))
    page.image(
        _intervals(board),
        "Dots are the metrics, lines 95 % intervals over episodes; the first model is on top.",
        alt=f"The metrics of the table above with their intervals, one panel each, for {', '.join(board.names)}",
    )
    _probes(page, board)
    roc = _roc(board)
    if roc is not None:
        page.section("Outcomes")
        page.image(
            roc,
            "By final progress: every threshold's failures passed against successes passed.",
            alt=f"ROC curves of final progress for {', '.join(board.names[:4])}",
        )
    page.section("What they disagree on")
    page.prose(
        "The episodes on which the curves lie furthest apart. The dashed line is the truth where it was measured."
    )
    for uuid in most_disputed(board, DISPUTED):
        page.image(
            _compared(board, store, camera, uuid),
            alt=f"Episode {uuid[:8]}: {_ends(board, uuid)}",
            photo=camera is not None,
        )
    return page.write(path)


def verdicts(board: Board) -> list[tuple[str, str]]:
    """Plain words: the first model, what it is surely better at, and what each may be trusted for."""
    best = board.best
    found: list[tuple[str, str]] = []
    for other in board.names[1:]:
        ahead, behind = _sure(board, other)
        if ahead and not behind:
            found.append(
                ("yes", f"{best} is ahead of {other} beyond chance on {', '.join(ahead)}, and behind on nothing.")
            )
        elif ahead:
            text = f"{best} is ahead of {other} on {', '.join(ahead)}, and behind on {', '.join(behind)}."
            found.append(("care", text))
        elif behind:
            found.append(("care", f"{best} has the better mean place, yet {other} is ahead on {', '.join(behind)}."))
        else:
            count = len(board.evaluations[best].episodes)
            found.append(("know", f"{best} and {other} cannot be distinguished on these {count} episodes."))
    for name in board.names:
        uses = {item.use: item.mark for item in advise(board.evaluations[name]) if item.use}
        marks = {"yes": "yes", "care": "with care", "no": "no"}
        words = "; ".join(f"{use}: {marks[mark]}" for use, mark in uses.items())
        found.append(("know", f"{name} may be trusted for {words}."))
    return found


def _sure(board: Board, other: str) -> tuple[list[str], list[str]]:
    """Metrics on which the first model is better, and worse, than another beyond chance."""
    ahead: list[str] = []
    behind: list[str] = []
    for metric in SHOWN:
        if not board.surely(other, metric):
            continue
        other_is_better = (board.differences[other][metric].value > 0) == (METRICS[metric].better == "high")
        (behind if other_is_better else ahead).append(metric)
    return ahead, behind


def _intervals(board: Board) -> Figure:
    shown = [f for f in SHOWN if any(math.isfinite(e.metrics[f].value) for e in board.evaluations.values())]
    rows = {metric: [board.evaluations[name].metrics[metric] for name in board.names] for metric in shown}
    return intervals_figure(rows, board.names, {metric: METRICS[metric].better for metric in shown})


def _probes(page: Page, board: Board) -> None:
    kinds = list(dict.fromkeys(kind for e in board.evaluations.values() for kind in e.by_probe))
    if not kinds:
        return
    page.section("Where nothing happens")
    page.prose("Fraction of frames of each probe whose predicted stage is beyond the true one. " + probe_table.ABOUT)
    everyone = list(board.evaluations.values())
    rows = [
        [kind, *(f"{e.by_probe[kind]['claimed']:.3f}" if kind in e.by_probe else "-" for e in everyone)]
        for kind in kinds
    ]
    page.table(["probe", *board.names], rows)


def _roc(board: Board) -> Figure | None:
    episodes = board.evaluations[board.best].episodes
    known = np.array([episode.success is not None for episode in episodes])
    good = np.array([episode.success is True for episode in episodes])[known]
    if not good.any() or good.all():
        return None
    scores = [(n, np.array([x.final for x in board.evaluations[n].episodes])[known]) for n in board.names[:4]]
    return roc_figure(scores, good)


def _ends(board: Board, uuid: str) -> str:
    ends = {name: next(x for x in e.episodes if x.uuid == uuid).final for name, e in board.evaluations.items()}
    return ", ".join(f"{name} ends at {end:.2f}" for name, end in ends.items())


def _compared(board: Board, store: DemoStore, camera: str | None, uuid: str) -> Figure:
    evaluated = {name: next(x for x in e.episodes if x.uuid == uuid) for name, e in board.evaluations.items()}
    first = evaluated[board.best]
    truth = first.simulator if first.simulator is not None and first.failed else first.label
    return compared_figure(
        f"{first.kind}, episode {uuid[:8]}",
        store.fps,
        {name: episode.prediction.progress for name, episode in evaluated.items()},
        truth,
        first.success,
        None if camera is None else strip_frames(store.episode(uuid), camera),
    )
