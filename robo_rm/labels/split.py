"""Which episodes are held out: one split of a store for every command, by episode and never by frame.

A split is an order of the store's episodes in which every beginning has successes and failures in proportion, and the
tasks within them. Who holds out k episodes holds out the first k, so that a reward model and a policy of one seed hold
out the same ones, and whoever holds out fewer holds out some of these. The order is stored in the store,
``splits/seed-<n>.json``: outcomes edited and episodes added later change nobody's part. Another split has another seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from robo_core.checksummed import open_seal, replace_durably, seal
from robo_core.errors import ConfigError, LabelError
from robo_datasets.store.layout import SPLITS, utc_now

if TYPE_CHECKING:
    from robo_datasets import DemoStore, Episode

VERSION = 1
HOW_TO_LABEL = (
    "to label it, type the import command again with stages=FILE relabel=true; to do without labels, train reward=hop, "
    "reward=frame_index or reward=goal_distance, or give stage_groups=[[]], which takes the whole task as one stage"
)
"""What to do about a store without stage labels, as errors of training say it."""


def labelled_episodes(store: DemoStore) -> list[Episode]:
    """Episodes of a store that have a stage label.

    Raises:
        LabelError: the store names no stages, or no episode is labelled.
    """
    if not store.stages:
        raise LabelError(f"{store.path} names no stages; {HOW_TO_LABEL}")
    episodes = [episode for episode in store if (np.asarray(episode.stage) >= 0).any()]
    if not episodes:
        raise LabelError(f"none of the {len(store)} episodes in {store.path} has stage labels; {HOW_TO_LABEL}")
    return episodes


def held_out_count(holdout: float, episodes: int, setting: str = "holdout") -> int:
    """How many of so many episodes ``holdout`` means: a number, or a fraction where it lies between 0 and 1.

    ``setting`` is what it is called, for errors.

    Raises:
        ConfigError: it is negative, not a number, or neither a whole number nor a fraction.
    """
    if not math.isfinite(holdout) or holdout < 0:
        raise ConfigError(f"{setting}={holdout:g}: give a number of episodes, 0 or more, or a fraction such as 0.1")
    if 0 < holdout < 1:
        return max(1, round(holdout * episodes))
    if holdout != int(holdout):
        raise ConfigError(f"{setting}={holdout:g}: give a whole number of episodes, or a fraction below 1 such as 0.1")
    return int(holdout)


def split_order(episodes: Sequence[Episode], seed: int) -> list[str]:
    """UUIDs of episodes (``.uuid .success .task``) in an order of which every beginning is in proportion.

    Outcomes are dealt evenly, within one; the episodes of an outcome evenly over its tasks. The order in which they are
    given does not matter: parallel writers commit in any.
    """
    named = sorted(episodes, key=lambda episode: str(episode.uuid))
    chance = np.random.default_rng(seed)
    drawn = [named[place] for place in chance.permutation(len(named))]
    outcomes: dict[str, dict[str, list[str]]] = {}
    for episode in drawn:
        tasks = outcomes.setdefault(str(episode.success), {})
        tasks.setdefault(str(getattr(episode, "task", "") or ""), []).append(str(episode.uuid))
    by_outcome = [_dealt([tasks[task] for task in sorted(tasks)], chance) for _, tasks in sorted(outcomes.items())]
    return _dealt(by_outcome, chance)


def _dealt(groups: Sequence[Sequence[str]], chance: np.random.Generator) -> list[str]:
    """Members of groups in an order in which each group comes evenly; of equals, chance decides which is first."""
    ties = chance.permutation(len(groups))
    placed = [
        ((rank + 0.5) / len(group), int(ties[number]), member)
        for number, group in enumerate(groups)
        for rank, member in enumerate(group)
    ]
    return [member for _, _, member in sorted(placed, key=lambda item: item[:2])]


def split_episodes(
    episodes: Sequence[Episode], holdout: float, seed: int, setting: str = "holdout"
) -> tuple[list[Episode], list[Episode]]:
    """(training, held out) of any episodes, in the order given; nothing is stored. ``setting`` is named in errors.

    Raises:
        ConfigError: ``holdout`` is negative or leaves nothing to train on.
    """
    count = held_out_count(holdout, len(episodes), setting)
    if setting == "holdout":
        _leave_some(holdout, count, len(episodes), "labelled episodes")
    elif count and count >= len(episodes):
        raise ConfigError(
            f"{setting}={holdout:g} leaves nothing to train on: {len(episodes)} episodes are left once others are held "
            f"out; give fewer, or {setting}=0"
        )
    held = set(split_order(episodes, seed)[:count])
    return _parted(episodes, held)


def store_split(
    store: DemoStore, episodes: Sequence[Episode], holdout: float, seed: int, called: str = "labelled episodes"
) -> tuple[list[Episode], list[Episode]]:
    """(training, held out) of some episodes of a store by the split it keeps, in the order given.

    Args:
        store: the demo store, or a view of it.
        episodes: those that the caller can use, such as the labelled ones. Of the split's first episodes those are
            held out that are among them, and further ones in its order until there are as many as asked for.
        holdout: a number, or a fraction (between 0 and 1) of the episodes given.
        seed: which split.
        called: what the episodes given are, for errors.

    Raises:
        ConfigError: ``holdout`` is negative or leaves nothing to train on.
        CorruptionError: the split in the store is damaged.
    """
    count = held_out_count(holdout, len(episodes))
    _leave_some(holdout, count, len(episodes), called)
    if not count:
        return list(episodes), []
    usable = {str(episode.uuid) for episode in episodes}
    batches = [[uuid for uuid in batch if uuid in usable] for batch in split_batches(store, seed)]
    if 0 < holdout < 1:
        # Each addition to the store gives its own fraction, so that nobody's training episode is held out later.
        held: list[str] = []
        before = 0
        for batch in batches:
            part = max(0, round(holdout * (before + len(batch))) - len(held))
            held += batch[:part]
            before += len(batch)
        held = held or [uuid for batch in batches for uuid in batch][:1]
    else:
        held = [uuid for batch in batches for uuid in batch][:count]
    return _parted(episodes, set(held))


def split_batches(store: DemoStore, seed: int) -> list[list[str]]:
    """The order of a store's episodes for a seed, in the batches in which they came to it; made and stored at first.

    Labelled episodes stand before the others, so that reward models, which need labels, hold out the same ones as
    policies. A store that cannot be written to has the same order, and does not keep it.

    Raises:
        CorruptionError: the file is damaged.
    """
    plain = getattr(store, "plain", store)
    path = plain.path / SPLITS / f"seed-{seed}.json"
    known: list[list[str]] = []
    if path.exists():
        known = cast(list[list[str]], open_seal(path.read_bytes(), path)["batches"])
    there = set(plain.uuids)
    listed = {uuid for batch in known for uuid in batch}
    new = [plain.episode(uuid) for uuid in plain.uuids if uuid not in listed]
    if new:
        labelled = [bool((np.asarray(episode.stage) >= 0).any()) for episode in new]
        parts = [[e for e, has in zip(new, labelled, strict=True) if has is wanted] for wanted in (True, False)]
        known = [*known, [uuid for part in parts for uuid in split_order(part, seed)]]
        _store(path, {"version": VERSION, "seed": seed, "created": utc_now(), "batches": known})
    return [[uuid for uuid in batch if uuid in there] for batch in known]


def _store(path: object, document: dict[str, object]) -> None:
    if not isinstance(path, Path):  # on a URL, which can only be read
        return
    try:
        path.parent.mkdir(exist_ok=True)
        replace_durably(path, seal(document))
    except OSError:
        return


def _leave_some(holdout: float, count: int, episodes: int, called: str) -> None:
    if count and count >= episodes:
        # Of three, two held out would leave one to train on, which is refused as well.
        fits = 2 if episodes > 3 else 1
        instead = f"holdout={fits}, or holdout=0" if episodes > 1 else "holdout=0"
        raise ConfigError(
            f"holdout={holdout:g} leaves nothing to train on: the store has {episodes} {called}; give "
            f"{instead} to train on all of them, with nothing left to evaluate the model on"
        )


def _parted(episodes: Sequence[Episode], held: set[str]) -> tuple[list[Episode], list[Episode]]:
    train = [episode for episode in episodes if str(episode.uuid) not in held]
    return train, [episode for episode in episodes if str(episode.uuid) in held]
