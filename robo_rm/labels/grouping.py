"""Coarser stages for a store: SARM's sparse annotation made from the dense one, or the whole task as one stage.

A view of the store: episodes, frames and everything else are the store's own, only stages and their labels differ. A
model trained on it says so in its provenance (``stage_groups``), and is scored and evaluated on the same view.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from robo_datasets import DemoStore, Episode
    from robo_datasets.store.episode import EpisodeArray

SINGLE = "task"


class GroupedStore:
    """A store whose stages are put together.

    Args:
        store: `DemoStore`.
        groups: new stage -> places of the store's stages in it, in the order of the task; every stage in one group,
            neighbours together. ``{"task": []}`` takes every frame as the one stage "task", labelled or not.
        setting: where the groups came from, for errors.

    Raises:
        ConfigError: a stage is missing, named twice or unknown, or the order of the task is broken.
    """

    def __init__(self, store: DemoStore, groups: Mapping[str, Sequence[int]], setting: str = "stage_groups") -> None:
        self._store = store
        self.groups = {str(name): [int(place) for place in places] for name, places in groups.items()}
        self.stages = list(self.groups)
        self.lookup: npt.NDArray[np.int16] | None = None
        if self.groups != {SINGLE: []}:
            self.lookup = _lookup(self.groups, list(store.stages), setting)

    @property
    def plain(self) -> DemoStore:
        """The store itself."""
        return self._store

    def episode(self, uuid: str) -> Episode:
        """An episode of a name; errors are the store's."""
        return self.grouped(self._store.episode(uuid))

    def __getitem__(self, place: int) -> Episode:
        return self.grouped(self._store[place])

    def __iter__(self) -> Iterator[Episode]:
        return map(self.grouped, self._store)

    def grouped(self, episode: Episode) -> Episode:
        """An episode of the store with the coarser labels."""
        # The view passes on all that it does not change, so it reads as an episode.
        return cast("Episode", GroupedEpisode(episode, self))

    def __len__(self) -> int:
        return len(self._store)

    def set_stages(self, *_: object) -> None:
        """Refused: labels belong to the store itself.

        Raises:
            StoreError: always.
        """
        raise StoreError(f"stages of {self._store.path} cannot be set through a view of coarser ones")

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


class GroupedEpisode:
    """An episode of a `GroupedStore`; ``stage`` holds the coarser labels."""

    def __init__(self, episode: Episode, store: GroupedStore) -> None:
        self._episode, self._view = episode, store

    @property
    def stage(self) -> npt.NDArray[np.int16]:
        """(T,) int16, -1 where unlabelled."""
        lookup = self._view.lookup
        if lookup is None:
            return np.zeros(self._episode.length, dtype=np.int16)
        # The last entry is what -1 finds.
        grouped: npt.NDArray[np.int16] = lookup[np.asarray(self._episode.stage, dtype=np.int64)]
        return grouped

    def __getitem__(self, key: str) -> EpisodeArray:
        return self._episode[key]

    def __contains__(self, key: object) -> bool:
        return key in self._episode

    def __iter__(self) -> Iterator[str]:
        return iter(self._episode)

    def __len__(self) -> int:
        return len(self._episode)

    def __getattr__(self, name: str) -> object:
        return getattr(self._episode, name)


def named_groups(stages: Sequence[str], groups: Sequence[Sequence[int]]) -> dict[str, list[int]]:
    """Groups of places with the names of their stages, joined; ``[[]]`` is the whole task."""
    if [list(places) for places in groups] == [[]]:
        return {SINGLE: []}
    return {
        " + ".join(stages[place] if 0 <= place < len(stages) else str(place) for place in places): list(places)
        for places in groups
    }


def as_trained(store: DemoStore, provenance: Mapping[str, Any]) -> DemoStore:
    """The store as a model was trained on it: a view of coarser stages where it was trained on one.

    Raises:
        ConfigError: the store's stages are not those that were put together.
    """
    groups = provenance.get("stage_groups")
    if not groups or isinstance(store, GroupedStore):
        return store
    # The view passes on all that it does not change, so it reads as a store.
    return cast("DemoStore", GroupedStore(store, groups))


def _lookup(groups: Mapping[str, list[int]], stages: list[str], setting: str) -> npt.NDArray[np.int16]:
    listed = [place for places in groups.values() for place in places]
    if listed != list(range(len(stages))):
        known = ", ".join(f"{place} {name!r}" for place, name in enumerate(stages)) or "none"
        raise ConfigError(
            f"{setting}={list(groups.values())} must list the store's stages each once and in their order; they "
            f"are: {known}. For the task as one stage give {setting}=[[]]"
        )
    lookup = np.full(len(stages) + 1, -1, dtype=np.int16)
    for number, places in enumerate(groups.values()):
        if not places:
            raise ConfigError(f"{setting}={list(groups.values())}: a group holds no stage")
        lookup[places] = number
    return lookup
