"""Priors of each task, where the tasks of a store have stages of their own in one list.

A task that never enters a stage has the fraction 0 of it, so its progress runs from 0 to 1 over its own stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robo_core.console import say
from robo_datasets.store.instructions import Phrasings
from robo_rm.labels.outcomes import last_stages, own_stages
from robo_rm.labels.progress import episode_segments, training_priors

if TYPE_CHECKING:
    from robo_datasets import Episode


def task_priors(
    episodes: Sequence[Episode], stages: int, groups: Sequence[Sequence[str]] = ()
) -> dict[str, list[float]]:
    """Stage priors (K,) by instruction; empty where all tasks go through the same stages, so that they share theirs.

    Of a task of which no episode finished a stage (failures alone) nobody knows how long its stages take: the stages it
    entered, and those that no task entered, share its progress evenly.

    Args:
        episodes: of the training split.
        stages: K.
        groups: instructions that mean the same task; they share its priors.

    Raises:
        LabelError: a stage label is out of range.
    """
    known = Phrasings(groups)
    by_task: dict[str, list[Episode]] = {}
    entered: dict[str, set[int]] = {}
    for episode in episodes:
        task = known.task(episode.task or "")
        by_task.setdefault(task, []).append(episode)
        stages_entered = np.unique(np.asarray(episode.stage))
        entered.setdefault(task, set()).update(stages_entered[stages_entered >= 0].tolist())
    if not own_stages(entered):
        return {}
    lasts = last_stages(entered, stages)
    found: dict[str, list[float]] = {}
    for name, group in by_task.items():
        last = lasts[name]
        if any(segment.complete for episode in group for segment in episode_segments(episode, stages, last)):
            priors = training_priors(group, stages, last).tolist()
        else:
            own = entered[name] | (set(range(stages)) - set().union(*entered.values()))
            priors = [float(stage in own) / len(own) for stage in range(stages)]
            say(
                f"note: no episode of the task {name!r} finished a stage, so it is learned from as failures alone; how "
                "long its stages take is not known and taken as even. Add a success of it to measure its progress"
            )
        found |= {phrasing: list(priors) for phrasing in known.of(name)}
    return found


def priors_of(provenance: Mapping[str, Any], task: str | None) -> npt.NDArray[np.float64]:
    """The priors (K,) by which a model's progress on a task is measured."""
    own = provenance.get("task_priors") or {}
    known = Phrasings(provenance.get("instruction_groups") or ())
    found = own.get(task or "", own.get(known.task(task or ""), provenance["priors"]))
    return np.asarray(found, dtype=np.float64)
