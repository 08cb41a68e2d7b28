"""Stages that come again after a later one: a fall back that a robot made good, or two steps of one name.

A stage stands for one place on the way (`robo_rm.labels.progress`), so where it comes again progress goes back to it.
That is right after a drop. It is wrong where the task itself does a thing twice, as when pick, place, pick, place are
named by two stages: labels then fall back to 0 half-way in every demonstration. They are distinguished by how often
they happen: a drop in few demonstrations, a step of the task in most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robo_core.errors import ConfigError, LabelError
from robo_rm.labels.progress import UNLABELLED

if TYPE_CHECKING:
    from robo_datasets import Episode

ERROR, FALL_BACK = "error", "fall_back"
RULES = (ERROR, FALL_BACK)
# Demonstrations of a task in which a stage comes again are more than this fraction: it is the task that repeats.
MOST = 0.5


@dataclass(frozen=True)
class Repeat:
    """Where an episode goes back to a stage: at ``frame`` from ``before`` to ``stage``, last seen until ``left``."""

    uuid: str
    frame: int
    stage: int
    before: int
    left: int


def repeat_of(episode: Episode) -> Repeat | None:
    """The first time that a stored episode enters a stage again that it had left for a later one."""
    labels = np.asarray(episode.stage, dtype=np.int64)
    known = np.flatnonzero(labels != UNLABELLED)
    if not known.size:
        return None
    visited = labels[known]
    for place in np.flatnonzero(np.diff(visited) < 0).tolist():
        stage, frame = int(visited[place + 1]), int(known[place + 1])
        earlier = known[: place + 1][visited[: place + 1] == stage]
        if earlier.size:
            return Repeat(str(episode.uuid), frame, stage, int(visited[place]), int(earlier[-1]))
    return None


def check_repeats(episodes: Sequence[Episode], stages: Sequence[str], rule: str = ERROR) -> list[str]:
    """What to say of the stages that come again in training episodes.

    Args:
        episodes: of the training split, with stage labels.
        stages: names of the stages.
        rule: ``error``, or ``fall_back`` where progress is to go back with the stage even if most episodes do so.

    Returns:
        Notes for the user; none where no stage comes again.

    Raises:
        LabelError: in most demonstrations of a task a stage comes again, and the rule is ``error``.
        ConfigError: there is no such rule.
    """
    if rule not in RULES:
        raise ConfigError(f"repeats={rule}: choose one of {', '.join(RULES)}")
    by_task: dict[str, list[Episode]] = {}
    for episode in episodes:
        by_task.setdefault(episode.task or "", []).append(episode)
    notes = []
    for task, group in by_task.items():
        # A failure that tries again and again says nothing of the task; alone, failures are all there is.
        shown = [episode for episode in group if episode.success is not False] or group
        found = [repeat for repeat in map(repeat_of, shown) if repeat is not None]
        if not found:
            continue
        first, many = found[0], f"{len(found)} of {len(shown)}"
        where = (
            f"stage {stages[first.stage]!r} comes again after {stages[first.before]!r} in {many} demonstrations"
            f"{f' of {task!r}' if task else ''} (episode {first.uuid}: left at frame {first.left}, again at frame "
            f"{first.frame})"
        )
        if rule == ERROR and len(found) > MOST * len(shown):
            raise LabelError(
                f"{where}, so progress falls back there. If the task does it twice, give the second time a stage name "
                "of its own; if these are drops that were made good, train with repeats=fall_back"
            )
        notes.append(f"{where}; progress goes back there, as after a drop")
    return notes
