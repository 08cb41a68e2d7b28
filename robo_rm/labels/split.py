"""Which episodes a reward model trains on and which are held out; a split is by episode, never by frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robo_datasets.errors import ConfigError, LabelError


def labelled_episodes(store: Any) -> list[Any]:
    """Episodes of a store that have a stage label.

    Raises:
        LabelError: the store names no stages, or no episode is labelled.
    """
    if not store.stages:
        raise LabelError(f"{store.path} names no stages; give them when making the store (import with stages=...)")
    episodes = [episode for episode in store if (np.asarray(episode.stage) >= 0).any()]
    if not episodes:
        raise LabelError(
            f"none of the {len(store)} episodes in {store.path} has stage labels; "
            "import with stages=FILE or set them with store.set_stages"
        )
    return episodes


def split_episodes(episodes: Sequence[Any], holdout: int, seed: int) -> tuple[list[Any], list[Any]]:
    """(training, held out), in the order given; successes and failures are held out in proportion.

    Raises:
        ConfigError: ``holdout`` is negative or leaves nothing to train on.
    """
    if holdout < 0:
        raise ConfigError(f"holdout={holdout}: give a number of episodes, 0 or more")
    if holdout >= len(episodes):
        raise ConfigError(
            f"holdout={holdout} leaves nothing to train on: the store has {len(episodes)} labelled episodes; give "
            "holdout=2, or holdout=0 to train on all of them, with nothing left to judge the model on"
        )
    # By name: the order in which parallel writers committed episodes must not decide.
    named = sorted(range(len(episodes)), key=lambda index: str(episodes[index].uuid))
    order = np.array(named)[np.random.default_rng(seed).permutation(len(episodes))]
    by_outcome: dict[bool | None, list[int]] = {}
    for index in order.tolist():
        by_outcome.setdefault(episodes[index].success, []).append(index)
    # Places spread evenly over the outcomes one after the other give each its share, within one.
    ranked = [index for outcome in sorted(by_outcome, key=str) for index in by_outcome[outcome]]
    places = (np.arange(holdout) + 0.5) * len(ranked) / max(holdout, 1)
    held = {ranked[place] for place in places.astype(int).tolist()}
    train = [episode for index, episode in enumerate(episodes) if index not in held]
    return train, [episode for index, episode in enumerate(episodes) if index in held]
