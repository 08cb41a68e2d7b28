"""Priors of each task, where the tasks of a store have stages of their own in one list.

A task that never enters a stage has the share 0 of it, so its progress runs from 0 to 1 over its own stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robo_datasets.console import say
from robo_rm.labels.progress import episode_segments, training_priors


def task_priors(episodes: Sequence[Any], stages: int) -> dict[str, list[float]]:
    """Stage priors (K,) by instruction; empty where all tasks go through the same stages, so that they share theirs.

    Of a task of which no episode finished a stage (failures alone) nobody knows how long its stages take: the stages it
    entered, and those that no task entered, share its progress evenly.

    Raises:
        LabelError: a stage label is out of range.
    """
    by_task: dict[str, list[Any]] = {}
    entered: dict[str, set[int]] = {}
    for episode in episodes:
        by_task.setdefault(episode.task or "", []).append(episode)
        seen = np.unique(np.asarray(episode.stage))
        entered.setdefault(episode.task or "", set()).update(seen[seen >= 0].tolist())
    names = list(entered)
    # A failed try alone may not have come to a later stage; what counts is a stage that another task has for itself.
    if all(not (entered[a] - entered[b] and entered[b] - entered[a]) for a in names for b in names):
        return {}
    found = {}
    for name, group in by_task.items():
        if any(segment.complete for episode in group for segment in episode_segments(episode, stages)):
            found[name] = training_priors(group, stages).tolist()
            continue
        own = entered[name] | (set(range(stages)) - set().union(*entered.values()))
        found[name] = [float(stage in own) / len(own) for stage in range(stages)]
        say(
            f"note: no episode of the task {name!r} finished a stage, so it is learned from as failures alone; how "
            "long its stages take is not known and taken as even. Add a success of it to measure its progress"
        )
    return found


def priors_of(provenance: Mapping[str, Any], task: str | None) -> npt.NDArray[np.float64]:
    """The priors (K,) by which a model's progress on a task is measured."""
    found = (provenance.get("task_priors") or {}).get(task or "", provenance["priors"])
    return np.asarray(found, dtype=np.float64)
