"""Labels of episodes that an import finds in the store: compared with the source of today, replaced where asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from robo_core.arrays import Array
from robo_core.errors import LabelError
from robo_datasets.importers.source import Source, SourceEpisode
from robo_datasets.store.demo_store import DemoStore


class Labels(TypedDict, total=False):
    """Labels that differ, by what they should be, in the order in which they are reported."""

    stages: Array | None
    """(T,) ints; None where the store has no such stages."""
    success: bool | None
    instruction: str
    attributes: dict[str, object]


# Attributes that say where and how an episode was read rather than what it is: they change when a source moves.
_OF_THE_PLACE = frozenset({"folder", "file", "original_size", "assumed"})


@dataclass(frozen=True)
class ImportPlan:
    """What to do with each episode beyond its frames."""

    stages: Sequence[str] = ()
    """Stage names of a store that is made."""
    labels: Mapping[int, Array] | None = None
    """Episode number to per-frame stages (T,), indices into ``stages``."""
    success: Mapping[int, bool | None] | None = None
    """Episode number to success."""
    automatic: bool = True
    """Whether an unknown success only means that nothing says it."""


def store_labels(store: DemoStore, plan: ImportPlan) -> dict[int, Array]:
    """The plan's labels as numbers of the store's stages, by episode number."""
    table = np.array([*(store.stages.index(name) for name in plan.stages), -1], np.int16)  # the last: unlabelled
    return {number: table[labels] for number, labels in (plan.labels or {}).items()}


def label_again(
    store: DemoStore, source: Source, there: Mapping[int, str], plan: ImportPlan, relabel: bool
) -> tuple[int, dict[str, int]]:
    """Compare the episodes that were in the store with what the source and the plan say of them now.

    What the source does not say (an unknown success, an empty instruction, an attribute it lacks) replaces nothing.

    Args:
        store: where they are.
        source: where they come from.
        there: their names by position in the source.
        plan: stages and success.
        relabel: replace what differs.

    Returns:
        How many were relabelled; and where they were not to be, how many differ, by what differs.

    Raises:
        LabelError: an episode has another number of labels than frames.
    """
    known = set(plan.stages) <= set(store.stages)  # else it has none, and was not to be given these
    wanted = store_labels(store, plan) if known else {}
    changed, differing = 0, Counter[str]()
    for position, name in there.items():
        episode = source.episodes[position]
        found = _differences(store, source, episode, name, plan, wanted.get(episode.number))
        if not known and episode.number in (plan.labels or {}):
            found["stages"] = None
        if not relabel:
            differing.update(found.keys())
            continue
        if (stages := found.get("stages")) is not None:
            store.set_stages(name, stages)
        if "success" in found:
            store.set_success(name, found["success"])
        if "instruction" in found:
            store.set_task(name, found["instruction"])
        if "attributes" in found:
            store.set_attributes(name, found["attributes"])
        changed += bool(found)
    return changed, {what: differing[what] for what in Labels.__annotations__ if differing[what]}


def _differences(
    store: DemoStore,
    source: Source,
    episode: SourceEpisode,
    name: str,
    plan: ImportPlan,
    labels: Array | None,
) -> Labels:
    """What differs, as it should be."""
    held = store.episode(name)
    found: Labels = {}
    if labels is not None and len(labels) != held.length:
        raise LabelError(
            f"{source.path}: episode {episode.number} has {len(labels)} labels, it is in {store.path} with "
            f"{held.length} frames"
        )
    if labels is not None and not np.array_equal(held.stage, labels):
        found["stages"] = labels
    success = (plan.success or {}).get(episode.number, episode.success)
    # Whoever sets no outcome takes none away that somebody noted in the store; `unknown`, said, does.
    if success != held.success and (success is not None or not plan.automatic):
        found["success"] = success
    if episode.task and episode.task != held.task and (task := source.instruction(episode)) not in ("", held.task):
        found["instruction"] = task
    said = {key: _plain(value) for key, value in episode.attributes.items() if key not in _OF_THE_PLACE}
    attributes = held.attributes if said else {}
    if other := {key: value for key, value in said.items() if key not in attributes or attributes[key] != value}:
        found["attributes"] = other
    return found


def _plain(value: object) -> object:
    """As JSON gives it back: without tuples."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return {key: _plain(one) for key, one in value.items()} if isinstance(value, Mapping) else value
