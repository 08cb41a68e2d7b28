"""What a policy is about to be cloned from, and what should be known about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from robo_core.console import print_table, say
from robo_policies.cloning.settings import WeightSettings
from robo_policies.cloning.windows import ACTION, Demonstrations
from robo_rm.labels.outcomes import HOW_TO_MARK
from robo_rm.training.constant import describe_constant
from robo_rm.training.summary import Split, check_split, task_rows

if TYPE_CHECKING:
    from robo_datasets import DemoStore
    from robo_datasets.store.episode import Episode

SHOWN = 3

READS_NONE = (
    "this policy reads none: it learns a mixture of them. Give it a store of one task, or clone a policy that reads "
    "instructions (see docs/policies.md)"
)
READS_CONSTANT = (
    "every sample is given the same words (constant=): the policy learns a mixture of them. Give it a store of one task"
)
"""What becomes of several instructions in a policy that reads none, and in one that is given one for all."""


def summarise_cloning(
    store: DemoStore,
    demonstrations: Demonstrations,
    weights: np.ndarray,
    held: np.ndarray,
    settings: WeightSettings,
    still: Mapping[str, np.ndarray],
    reads: str = READS_NONE,
) -> None:
    """Print the episodes by task and what matters about them, before anything is trained.

    Args:
        store: where they come from.
        demonstrations: all frames, N.
        weights: (N,) sample weights of the frames that are trained on; 0 for those held out.
        held: (N,) bool, the frames held out.
        settings: where the weights come from.
        still: key -> (D,) bool, the dimensions that never change.
        reads: what becomes of several instructions.
    """
    parts = _parts(store, demonstrations, weights, held)
    columns, rows = task_rows({name: group for name, group in parts.items() if name == "train" or group})
    print_table("Episodes", columns, rows)
    used = np.logical_or.reduceat(weights > 0, demonstrations.starts[:-1])
    for note in cloning_notes(demonstrations, used, settings, still, names_of(store), reads):
        say(note)


def check_cloning_split(
    store: DemoStore, demonstrations: Demonstrations, weights: np.ndarray, held: np.ndarray, holdout: float
) -> None:
    """Refuse to train on next to nothing; arguments as in `summarise_cloning`, and what was asked for.

    Raises:
        ConfigError: two episodes or one are trained on, and more are held out.
    """
    parts = _parts(store, demonstrations, weights, held)
    check_split(Split(parts["train"], parts["held out"], labelled=False), store, holdout)


def _parts(
    store: DemoStore, demonstrations: Demonstrations, weights: np.ndarray, held: np.ndarray
) -> dict[str, list[Episode]]:
    """Episodes by what becomes of them."""
    firsts = demonstrations.starts[:-1]
    out, used = held[firsts], np.logical_or.reduceat(weights > 0, firsts)
    parts: dict[str, list[Episode]] = {"train": [], "held out": [], "no weight": []}
    for uuid, is_out, is_used in zip(demonstrations.uuids, out, used, strict=True):
        parts["held out" if is_out else "train" if is_used else "no weight"].append(store.episode(uuid))
    return parts


def cloning_notes(
    demonstrations: Demonstrations,
    used: np.ndarray,
    settings: WeightSettings,
    still: Mapping[str, np.ndarray],
    names: Mapping[str, Sequence[str] | None],
    reads: str = READS_NONE,
) -> list[str]:
    """What should be known about the episodes that are trained on, (E,) bool; arguments as above."""
    notes = []
    instructions = sorted({task for task, has in zip(demonstrations.tasks, used, strict=True) if has and task})
    if len(instructions) > 1:
        shown = ", ".join(repr(text) for text in instructions[:SHOWN]) + (", ..." if len(instructions) > SHOWN else "")
        notes.append(f"warning: the episodes have {len(instructions)} instructions ({shown}) and {reads}")
    outcomes = [outcome for outcome, has in zip(demonstrations.success, used, strict=True) if has]
    failed, unknown = outcomes.count(False), outcomes.count(None)
    if failed and settings.mode == "none":
        notes.append(
            f"warning: {failed} failed episodes are cloned like the others; weights=success_only or weights=rabc leave "
            "out what failed"
        )
    if unknown:
        notes.append(f"{unknown} of {len(outcomes)} episodes have no outcome (success) and are cloned like successes")
    left_out = sum(outcome is None for outcome in demonstrations.success) if settings.mode == "success_only" else 0
    if left_out:
        notes.append(
            f"warning: {left_out} of {len(demonstrations.success)} episodes have no outcome (success) and are left out "
            f"by weights=success_only; {HOW_TO_MARK}"
        )
    if text := describe_constant({key: mask for key, mask in still.items() if key != ACTION}, names):
        notes.append(f"never changes and tells the policy nothing: {text}")
    if text := describe_constant({ACTION: still[ACTION]}, names):
        notes.append(f"never changes; the policy always gives the one value: {text}")
    if demonstrations.lost:
        notes.append(
            f"warning: {demonstrations.lost} moves by less than float32, in which policies compute, can tell at its "
            "offset, and is taken for constant; store it relative to a fixed value"
        )
    return notes


def names_of(store: DemoStore) -> dict[str, Sequence[str] | None]:
    """key -> names of its dimensions, where the store has them."""
    found = {key: feature.get("names") for key, feature in store.features.items()}
    return {key: names if isinstance(names, list | tuple) else None for key, names in found.items()}
