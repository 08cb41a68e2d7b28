"""Which episodes of a store a model knows: it was trained on them, they chose its checkpoint, or they calibrated it.

Known by name and by what they hold (`robo_datasets.store.fingerprint`), so that a copy in another store, under
another name, with another outcome or other stages, or cut shorter, is not evaluated as unseen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from robo_core.errors import CorruptionError
from robo_datasets.store.fingerprint import Fingerprint, Known, fingerprint

if TYPE_CHECKING:
    from robo_datasets import DemoStore, Episode

TRAINED, STOPPED, CALIBRATED = "trained on", "chose its checkpoint", "calibrated it"


def contents(store: DemoStore, episodes: Iterable[Episode]) -> dict[str, dict[str, Fingerprint]]:
    """What training stores in a model's provenance to know its episodes by, ``{"contents": {uuid: fingerprint}}``."""
    return {"contents": {episode.uuid: fingerprint(store, episode.uuid) for episode in episodes}}


@dataclass(frozen=True)
class TrainingOverlap:
    """What a model, or one of several, knows of the episodes of a store."""

    roles: dict[str, str] = field(default_factory=dict)
    """By UUID of an episode of the store: what it, or the one it is a copy of, did for the model."""
    copies: dict[str, str] = field(default_factory=dict)
    """Of these, the ones under another name: the name the model knows."""
    alike: dict[str, str] = field(default_factory=dict)
    """Episodes with the states and actions of a known one and other images: encoded again, or scripted alike."""
    prints: dict[str, Fingerprint] = field(default_factory=dict, repr=False)
    """Fingerprints of the store's episodes."""

    def __contains__(self, uuid: object) -> bool:
        return uuid in self.roles

    def __or__(self, other: TrainingOverlap) -> TrainingOverlap:
        """What either of two models knows."""
        return TrainingOverlap(
            {**self.roles, **other.roles},
            {**self.copies, **other.copies},
            {**self.alike, **other.alike},
            {**self.prints, **other.prints},
        )

    def without_repeats(self, uuids: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Episodes without those that show, image by image, what an earlier one shows; and which those are."""
        first: dict[tuple[object, ...], str] = {}
        repeated: dict[str, str] = {}
        for uuid in uuids:
            print_ = self.prints.get(uuid)
            if print_ is None or not print_["cameras"]:
                continue
            key = (print_["length"], *sorted(print_["cameras"].values()), *sorted(print_["rows"].values()))
            if first.setdefault(key, uuid) != uuid:
                repeated[uuid] = first[key]
        return [uuid for uuid in uuids if uuid not in repeated], repeated

    def describe(self, uuids: Iterable[str]) -> str:
        """In words, how many of ``uuids`` did what, such as "3 of them trained on, 2 as copies under other names"."""
        chosen = [uuid for uuid in uuids if uuid in self.roles]
        counts = {role: sum(self.roles[u] == role for u in chosen) for role in (TRAINED, STOPPED, CALIBRATED)}
        words = [f"{count} of them {role}" for role, count in counts.items() if count]
        copied = sum(uuid in self.copies for uuid in chosen)
        if copied:
            words.append(f"{copied} as copies under other names")
        return ", ".join(words)


def training_overlap(provenance: Mapping[str, Any], store: DemoStore) -> TrainingOverlap:
    """What a model of this provenance knows of the episodes of ``store``."""
    roles = _named(provenance)
    prints: dict[str, Fingerprint] = {}
    for uuid in store.uuids:
        try:
            prints[uuid] = fingerprint(store, uuid)
        except CorruptionError:  # reported where it is read
            continue
    # A model that stored no contents is known by its episodes that are still in this store.
    fingerprints = {uuid: prints[uuid] for uuid in roles if uuid in prints} | _stored_fingerprints(provenance)
    known = Known({uuid: print_ for uuid, print_ in fingerprints.items() if uuid in roles})
    found, copies, alike = {}, {}, {}
    for uuid in store.uuids:
        if uuid in roles:
            found[uuid] = roles[uuid]
            continue
        likeness = known.find(prints[uuid]) if uuid in prints else None
        if likeness is None:
            continue
        if likeness.images:
            found[uuid], copies[uuid] = roles[likeness.name], likeness.name
        else:
            alike[uuid] = likeness.name
    return TrainingOverlap(found, copies, alike, prints)


def _named(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Role of each episode that the provenance names; what it was trained on before, too, where it was adapted."""
    init = provenance.get("init")
    before = _named(init) if isinstance(init, Mapping) else {}
    lists = {CALIBRATED: "calibration_uuids", STOPPED: "validation_uuids", TRAINED: "train_uuids"}
    return before | {str(uuid): role for role, key in lists.items() for uuid in provenance.get(key) or ()}


def _stored_fingerprints(provenance: Mapping[str, Any]) -> dict[str, Fingerprint]:
    init = provenance.get("init")
    before = _stored_fingerprints(init) if isinstance(init, Mapping) else {}
    return before | dict(provenance.get("contents") or {}) | dict(provenance.get("calibration_contents") or {})
