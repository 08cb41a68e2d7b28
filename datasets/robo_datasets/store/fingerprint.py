"""What an episode holds, known from its files: the same demonstration is found again under any name, in any store.

A fingerprint comes from the checksum that stands behind every frame in a shard, so that making one decodes no image.
(The checksum of a whole file in COMMIT.json says nothing of content: a file that ends in its own CRC has always the
same one.) It leaves out what may change while the demonstration stays the same: names, times of writing, instruction,
outcome, stage labels, time stamps. As plain JSON:

    {"length": T,
     "cameras": {key: hash of all its frames},
     "pieces": [hash, ...],          of runs of `RUN` frames, the `PIECES` smallest ones: cut copies are found by them
     "rows": {key: hash},            of states, actions and other numbers
     "moves": [hash, ...]}           of runs of these, as pieces

Cameras whose images never change, and numbers that never change, are left out: two episodes with a dead camera are
not one.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple, TypedDict

import numpy as np

from robo_datasets.store.demo_store import DemoStore
from robo_datasets.store.episode import Episode
from robo_datasets.store.features import Feature

RUN = 8
"""Frames in a row that are all different: by chance no two recordings share them."""
PIECES = 16
SHARED = 4
"""Pieces in common that make an episode a cut copy: a quarter of its frames, about."""


class Fingerprint(TypedDict):
    """What an episode holds; see the module."""

    length: int
    cameras: dict[str, str]
    pieces: list[str]
    rows: dict[str, str]
    moves: list[str]


class Likeness(NamedTuple):
    """How an episode is like another one."""

    name: str
    """Of that one."""
    images: bool
    """Whether images of a camera are the same, byte by byte, all of them or a good part; else only numbers are."""


def fingerprint(store: DemoStore, uuid: str) -> Fingerprint:
    """What an episode holds, as plain JSON.

    Args:
        store: `DemoStore`, or a view of one that has it as ``plain``.
        uuid: the episode.

    Raises:
        StoreError: no such episode. CorruptionError: an array is damaged.
    """
    plain: DemoStore = getattr(store, "plain", store)
    episode = plain.episode(uuid)
    found: Fingerprint = {"length": episode.length, "cameras": {}, "pieces": [], "rows": {}, "moves": []}
    pieces: set[str] = set()
    moves: set[str] = set()
    for key, feature in plain.schema.items():
        if key not in episode:
            continue
        values = _frames(plain, episode, feature) if feature.is_frames else np.asarray(episode[key][:])
        if episode.length < 2 or bool((values != values[:1]).any()):
            found["cameras" if feature.is_frames else "rows"][key] = _hash(np.ascontiguousarray(values).tobytes())
        if feature.is_frames:
            pieces.update(_pieces(values))
        else:
            moves.update(f"{key} {piece}" for piece in _pieces(values))
    # By hash, so that which ones are kept has nothing to do with where they stand.
    found["pieces"] = sorted(pieces)[:PIECES]
    found["moves"] = sorted(_hash(move.encode()) for move in moves)[:PIECES]
    return found


def _frames(store: DemoStore, episode: Episode, feature: Feature) -> np.ndarray:
    """(T, 2) int64, size and checksum of every frame."""
    return np.ascontiguousarray(store.shard(episode.entry, feature).checksums(), "<i8")


def _hash(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()


def _pieces(frames: np.ndarray) -> set[str]:
    found = set()
    rows = [row.tobytes() for row in frames]
    for start in range(len(rows) - RUN + 1):
        run = rows[start : start + RUN]
        if len(set(run)) == RUN:
            found.add(_hash(b"".join(run)))
    return found


class Known:
    """Episodes by what they hold, to find copies of them.

    Args:
        prints: fingerprints by name.
    """

    def __init__(self, prints: Mapping[str, Fingerprint]) -> None:
        self._prints = prints
        self._cameras: dict[tuple[int, str], str] = {}
        self._pieces: dict[str, list[str]] = {}
        self._rows: dict[tuple[int, str, str], list[str]] = {}
        for name, candidate in prints.items():
            length = int(candidate["length"])
            for video in candidate["cameras"].values():
                self._cameras.setdefault((length, video), name)
            for piece in candidate["pieces"]:
                self._pieces.setdefault(piece, []).append(name)
            for key, checksum in candidate["rows"].items():
                self._rows.setdefault((length, key, checksum), []).append(name)

    def find(self, candidate: Fingerprint) -> Likeness | None:
        """The episode that shows the same images of a camera, all or a good part of them; else one with the same
        numbers in every changing feature that both have, which few or scripted motions may be by chance."""
        length = int(candidate["length"])
        for video in candidate["cameras"].values():
            name = self._cameras.get((length, video))
            if name is not None:
                return Likeness(name, True)
        cut = self._cut_from(candidate)
        if cut is not None:
            return Likeness(cut, True)
        return self._by_rows(candidate, length)

    def _cut_from(self, candidate: Fingerprint) -> str | None:
        """The episode that a good part of the images is from; its motions, where both have some, are the same too:
        images that a simulator draws may come again in another episode."""
        shared: dict[str, int] = {}
        for piece in candidate["pieces"]:
            for name in self._pieces.get(piece, ()):
                shared[name] = shared.get(name, 0) + 1
        for name in sorted(shared, key=lambda name: (-shared[name], name)):
            if shared[name] < SHARED:
                return None
            theirs = self._prints[name]["moves"]
            if not theirs or not candidate["moves"] or len(set(theirs) & set(candidate["moves"])) >= SHARED:
                return name
        return None

    def _by_rows(self, candidate: Fingerprint, length: int) -> Likeness | None:
        rows = candidate["rows"]
        candidates = (name for key, checksum in rows.items() for name in self._rows.get((length, key, checksum), ()))
        for name in candidates:
            theirs = self._prints[name]["rows"]
            if all(theirs[key] == rows[key] for key in rows.keys() & theirs.keys()):
                return Likeness(name, False)
        return None
