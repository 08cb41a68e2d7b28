"""What a training is about to learn from: episodes by task and stage, and what should be known before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from robo_core.console import print_table, say
from robo_core.errors import ConfigError, StoreError
from robo_rm.labels.outcomes import HOW_TO_MARK
from robo_rm.training.constant import constant, describe_constant

# Fewer training episodes than this, and fewer than are held out: the numbers were given the wrong way round.
FEWEST = 3
NAMED = 3


@dataclass(frozen=True)
class Split:
    """The episodes of a store as a training uses them.

    Attributes:
        train: learned from.
        held_out: kept to evaluate the model.
        validation: that decide when to stop.
        unlabelled: left out because they have no stage label.
        failed: left out because they failed, and nothing says how far they got.
        labelled: whether stage labels make the progress.
        unmarked: left out because nobody marked their outcome.
    """

    train: Sequence[Any]
    held_out: Sequence[Any] = ()
    validation: Sequence[Any] = ()
    unlabelled: Sequence[Any] = ()
    failed: Sequence[Any] = ()
    labelled: bool = True
    unmarked: Sequence[Any] = ()

    @property
    def parts(self) -> dict[str, Sequence[Any]]:
        """The parts by the name of their column."""
        return {
            "train": self.train,
            "held out": self.held_out,
            "validation": self.validation,
            "unlabelled": self.unlabelled,
            "failed, not used": self.failed,
            "no outcome, not used": self.unmarked,
        }


@dataclass(frozen=True)
class Summary:
    """Tables and warnings about a split."""

    columns: list[str]
    tasks: list[list[Any]]
    stages: list[list[Any]]
    notes: list[str] = field(default_factory=list)

    def show(self) -> None:
        """Print it."""
        print_table("Episodes", self.columns, self.tasks)
        if self.stages:
            print_table("Stages", ["stage", "train episodes", "held out", "fraction of train frames"], self.stages)
        for note in self.notes:
            say(note)


def check_split(split: Split, store: Any, holdout: float) -> None:
    """Refuse a split that trains on next to nothing.

    Raises:
        ConfigError: two episodes or one are trained on, and more are held out.
    """
    train, held = len(split.train), len(split.held_out)
    if train < FEWEST and held > train:
        raise ConfigError(
            f"holdout={holdout:g} leaves {train} of {train + held + len(split.validation)} episodes of {store.path} to "
            f"train on{_without(split)}; give a smaller holdout="
        )


def summarise(split: Split, stages: Sequence[str], notes: Sequence[str] = ()) -> Summary:
    """Tables by task and by stage, and what matters about them.

    Args:
        split: the episodes.
        stages: names of the stages; empty where they do not matter.
        notes: further ones.
    """
    parts = {name: list(episodes) for name, episodes in split.parts.items() if episodes or name == "train"}
    columns, rows = task_rows(parts)
    tasks = sorted({episode.task or "" for episodes in parts.values() for episode in episodes})
    table, unseen = _stage_rows(split, stages) if split.labelled and stages else ([], [])
    return Summary(columns, rows, table, [*_warnings(split, tasks, unseen), *notes])


def task_rows(parts: Mapping[str, Sequence[Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of a table that counts episodes (``.task .success``) by task, part and outcome."""
    tasks = sorted({episode.task or "" for episodes in parts.values() for episode in episodes})
    columns = ["task", *parts, "succeeded", "failed", "outcome unknown"]
    rows: list[list[Any]] = []
    for task in tasks:
        mine = {name: [e for e in episodes if (e.task or "") == task] for name, episodes in parts.items()}
        outcomes = [e.success for episodes in mine.values() for e in episodes]
        counts = [sum(outcome is wanted for outcome in outcomes) for wanted in (True, False, None)]
        rows.append([task or "(no instruction)", *(len(episodes) for episodes in mine.values()), *counts])
    if len(rows) > 1:
        rows.append(["all", *(sum(row[column] for row in rows) for column in range(1, len(columns)))])
    return columns, rows


def check_states(store: Any, key: str | None, train: Sequence[Any], others: Sequence[Any]) -> str:
    """Refuse states that are not finite; returns a note about those dimensions that never change in training.

    Args:
        store: for the error and for names.
        key: of the state; None: the model reads none.
        train: episodes learned from.
        others: episodes that the model is evaluated on.

    Raises:
        StoreError: names episode, frame and key of the first value that is not finite.
    """
    if key is None:
        return ""
    low: list[npt.NDArray[np.float64]] = []
    high: list[npt.NDArray[np.float64]] = []
    for number, episode in enumerate([*train, *others]):
        values = np.asarray(episode[key][:], dtype=np.float64)
        check_finite(values, str(episode.uuid), key, store.path)
        if number < len(train) and len(values):
            low.append(values.min(axis=0))
            high.append(values.max(axis=0))
    if not low:
        return ""
    least, most = np.min(low, axis=0), np.max(high, axis=0)
    names = store.features[key].get("names")
    still = constant(least, most)
    text = describe_constant({key: still}, {key: names if isinstance(names, list | tuple) else None})
    return f"never changes in training and tells the model nothing: {text}" if text else ""


def check_finite(values: npt.NDArray[Any], uuid: str, key: str, path: Any) -> None:
    """Refuse frames (T, ...) with NaN or an infinity.

    Raises:
        StoreError: names episode, frame and key.
    """
    rows = values.reshape(len(values), -1)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        wrong = rows[bad[0]]
        place = int(np.flatnonzero(~np.isfinite(wrong))[0])
        many = f" ({bad.size} such frames)" if bad.size > 1 else ""
        raise StoreError(
            f"{path}: episode {uuid}, frame {bad[0]}: {key}[{place}] is {wrong[place]}{many}; repair or remove the "
            f"episode before training. `robo-rm doctor store={path}` lists all of them"
        )


def _stage_rows(split: Split, stages: Sequence[str]) -> tuple[list[list[Any]], list[str]]:
    labels = [np.asarray(episode.stage) for episode in split.train]
    held = [np.asarray(episode.stage) for episode in split.held_out]
    total = max(1, sum(int((row >= 0).sum()) for row in labels))
    rows, unseen = [], []
    for number, name in enumerate(stages):
        count = sum(bool((row == number).any()) for row in labels)
        frames = sum(int((row == number).sum()) for row in labels)
        rows.append([name, count, sum(bool((row == number).any()) for row in held), f"{frames / total:.1%}"])
        if not count:
            unseen.append(name)
    return rows, unseen


def _warnings(split: Split, tasks: Sequence[str], unseen: Sequence[str]) -> list[str]:
    """What matters about a split."""
    notes = []
    used = len(split.train) + len(split.held_out) + len(split.validation)
    total = used + len(split.unlabelled) + len(split.failed) + len(split.unmarked)
    if split.unlabelled:
        notes.append(
            f"warning: {len(split.unlabelled)} of {total} episodes have no stage labels and train nothing "
            f"({_named(split.unlabelled)}); label them with store.set_stages, or import with stages="
        )
    if split.failed:
        notes.append(
            f"{len(split.failed)} failed episodes are left out: without stage labels nobody knows how far they got"
        )
    if split.unmarked:
        notes.append(
            f"warning: {len(split.unmarked)} of {total} episodes have no outcome (success) and are left out, as this "
            f"model learns from outcomes alone; {HOW_TO_MARK}"
        )
    learned = {episode.task or "" for episode in split.train}
    for task in tasks:
        if task not in learned:
            notes.append(f"warning: no episode of the task {task!r} is trained on; the model does not learn it")
    if unseen:
        notes.append(f"warning: no training episode enters the stages {', '.join(map(repr, unseen))}")
    if len(split.held_out) > len(split.train):
        notes.append(
            f"warning: more episodes are held out ({len(split.held_out)}) than trained on ({len(split.train)})"
        )
    if not split.held_out:
        notes.append("nothing is held out: no figure will say how the model does on episodes it has not seen")
    outcomes = [episode.success for episode in split.train]
    if None in outcomes:
        notes.append(_unknown(split, outcomes.count(None)))
    if outcomes and split.labelled and all(outcome is False for outcome in outcomes):
        notes.append("warning: every training episode failed; the model never sees the task done")
    if outcomes and False not in outcomes and split.labelled:
        notes.append("no episode that failed is trained on: a model that has only seen success sees success everywhere")
    return notes


def _unknown(split: Split, count: int) -> str:
    which = "1 training episode has" if count == 1 else f"{count} training episodes have"
    if not split.labelled:
        taken = "is taken for a demonstration" if count == 1 else "are taken for demonstrations"
        return f"{which} no outcome (success) and {taken} that went well"
    return (
        f"{which} no outcome (success): those that end in the last stage of their task count as "
        f"finished, in the others the last stage counts as unfinished; {HOW_TO_MARK}"
    )


def _without(split: Split) -> str:
    more = [(split.unlabelled, "no stage labels"), (split.unmarked, "no outcome"), (split.failed, "failed")]
    parts = [f"{len(episodes)} more {'' if why == 'failed' else 'have '}{why}" for episodes, why in more if episodes]
    return f" ({', '.join(parts)})" if parts else ""


def _named(episodes: Sequence[Any]) -> str:
    names = ", ".join(str(episode.uuid) for episode in episodes[:NAMED])
    return f"{names}, ..." if len(episodes) > NAMED else names
