"""Episodes whose outcome nobody marked: which of them went through their task, and how to mark them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from robo_datasets.store.instructions import Phrasings

if TYPE_CHECKING:
    from robo_datasets import Episode

HOW_TO_MARK = "where they went well, say it: success=true relabel=true at the import, or store.set_success"


def finished_unknown(
    episodes: Mapping[str, Episode], stages: int, groups: Sequence[Sequence[str]] = ()
) -> frozenset[str]:
    """Episodes of unknown outcome whose stage annotation ends in the last stage of their task.

    The last stage of a task is the store's last, but where tasks have stages of their own, the last that any episode of
    the task enters.

    Args:
        episodes: by uuid; ``.task .success .stage``, the latter (T,) with -1 where unlabelled.
        stages: K, of the store.
        groups: instructions that mean the same task.
    """
    known = Phrasings(groups)
    entered: dict[str, set[int]] = {}
    ends: dict[str, tuple[str, int]] = {}
    for uuid, episode in episodes.items():
        labels = np.asarray(episode.stage, dtype=np.int64)
        labels = labels[labels >= 0]
        if labels.size:
            task = known.task(episode.task or "")
            entered.setdefault(task, set()).update(np.unique(labels).tolist())
            ends[uuid] = task, int(labels[-1])
    lasts = last_stages(entered, stages)
    return frozenset(
        uuid for uuid, (task, end) in ends.items() if episodes[uuid].success is None and end == lasts[task]
    )


def last_stages(entered: Mapping[str, set[int]], stages: int) -> dict[str, int]:
    """Last stage of each task by the stages that its episodes entered; K - 1 of all, unless tasks have their own."""
    own = own_stages(entered)
    return {task: max(places, default=stages - 1) if own else stages - 1 for task, places in entered.items()}


def own_stages(entered: Mapping[str, set[int]]) -> bool:
    """Whether two tasks have each a stage that the other lacks: a failed try alone may not have come to a later one."""
    sets = list(entered.values())
    return any(a - b and b - a for a in sets for b in sets)
