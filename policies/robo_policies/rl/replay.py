"""Replay that stores what happened and composes the reward when it is sampled.

Each entry is one decision: observation, action, gold, the potentials before and after it and of its episode's start,
the steps it took, how it ended, the observation it really led to (the last one of its episode, never the next
episode's first) and what a cloned policy proposes there. Another shaping mode, scale or potential therefore needs no
new experience, and a new reward model relabels everything in one call. Potentials of different versions never mix.
Which decisions led to success in the end, and which one followed which, is found out when they are added.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError, ModelError
from robo_core.outputs import write_atomically
from robo_rm.shaping.core import check_discount
from robo_rm.shaping.modes import (
    Decisions,
    ShapingSettings,
    compose_reward,
    reward_terms,
    value_bounds,
    variance_shares,
)

Floats = npt.NDArray[np.float32]

POTENTIALS = ("potential", "next_potential", "start_potential")
SUCCEEDED, FOLLOWING = "succeeded", "following"
FIGURES = ("gold", *POTENTIALS, "terminated", "truncated", "steps")
KEPT = (SUCCEEDED, FOLLOWING)
"""Fields that the replay finds out itself."""
NONE = -1


@dataclass(frozen=True)
class Batch:
    """B decisions as a learner takes them.

    Attributes:
        observation: (B, O + 1), the potential last.
        action: (B, A).
        reward: (B,) composed.
        bootstrap: (B,) factor on the value of the next observation: g^steps, of all decisions of an n-step return; 0
            where the task ended, not 0 where only the time did.
        next_observation: (B, O + 1).
        next_proposal: (B, A) what the cloned policy proposes there; zeros without one.
        gold: (B,).
        bounds: (B, 2) what the value of the next observation can be at least and at most; None where it is not known.
    """

    observation: Floats
    action: Floats
    reward: Floats
    bootstrap: Floats
    next_observation: Floats
    next_proposal: Floats
    gold: Floats
    bounds: Floats | None = None

    def deal(self, count: int) -> Iterator[Batch]:
        """So many batches of equal size, the first of the first and every count-th decision after it, and so on."""
        held = [(place.name, getattr(self, place.name)) for place in fields(self)]
        for first in range(count):
            part: dict[str, Any] = {name: values if values is None else values[first::count] for name, values in held}
            yield Batch(**part)


class Replay:
    """A ring of decisions.

    Args:
        capacity: most decisions kept; the oldest go first.
        observation_size: O, without the potential.
        action_size: A.
        version: of the potential whose values it holds.
    """

    def __init__(self, capacity: int, observation_size: int, action_size: int, version: str) -> None:
        if capacity < 1:
            raise ConfigError(f"capacity={capacity}: the replay must hold one decision at least")
        self.capacity, self.version = capacity, version
        self.size = self._next = 0
        self._pays_once = True
        self._led_to_success: npt.NDArray[np.int64] | None = None
        self._store: dict[str, npt.NDArray[Any]] = {
            "observation": np.zeros((capacity, observation_size), np.float32),
            "next_observation": np.zeros((capacity, observation_size), np.float32),
            "action": np.zeros((capacity, action_size), np.float32),
            "next_proposal": np.zeros((capacity, action_size), np.float32),
            **{name: np.zeros(capacity, np.float32) for name in ("gold", *POTENTIALS)},
            "terminated": np.zeros(capacity, np.bool_),
            "truncated": np.zeros(capacity, np.bool_),
            "steps": np.zeros(capacity, np.int16),
            "episode": np.zeros(capacity, np.int64),
            SUCCEEDED: np.zeros(capacity, np.bool_),
            FOLLOWING: np.full(capacity, NONE, np.int64),
        }
        # The newest decision of each episode that is not over.
        self._newest: dict[int, int] = {}

    def __len__(self) -> int:
        return self.size

    @property
    def pays_once(self) -> bool:
        """Whether every gold so far was 0, or at most 1 and the end: values are bounded then."""
        return self._pays_once

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """The stored values of one field, oldest place first in memory order, (size, ...)."""
        return self._store[name][: self.size]

    def add(self, decisions: Mapping[str, npt.ArrayLike], version: str) -> None:
        """Store decisions: one array (n, ...) for each field.

        Raises:
            ConfigError: a field is missing, of a wrong shape or not finite; or the potentials are of another version.
        """
        if version != self.version:
            raise ConfigError(
                f"the replay holds potentials of {self.version} and these are of {version}; relabel it first, "
                "since a critic cannot learn from two potentials at once"
            )
        missing = set(self._store) - set(KEPT) - set(decisions)
        if missing:
            raise ConfigError(f"decisions lack {', '.join(sorted(missing))}")
        rows = {n: np.asarray(decisions[n], dtype=kept.dtype) for n, kept in self._store.items() if n not in KEPT}
        count = len(rows["gold"])
        rows |= {SUCCEEDED: np.zeros(count, np.bool_), FOLLOWING: np.full(count, NONE, np.int64)}
        for name, values in rows.items():
            if values.shape != (count, *self._store[name].shape[1:]):
                raise ConfigError(f"{name} of {count} decisions has shape {values.shape}")
            if not np.isfinite(values).all():
                raise ConfigError(f"{name} of a decision is NaN or infinite; nothing was stored")
        self._pays_once &= _pays_once(rows)
        if count > self.capacity:
            rows, count = {name: values[-self.capacity :] for name, values in rows.items()}, self.capacity
        places = (self._next + np.arange(count)) % self.capacity
        for name, values in rows.items():
            self._store[name][places] = values
        self._next = (self._next + count) % self.capacity
        self.size = min(self.size + count, self.capacity)
        self._connect(places, rows)
        for episode in np.unique(rows["episode"][rows["gold"] > 0]):
            self[SUCCEEDED][self["episode"] == episode] = True
        self._led_to_success = None

    def _connect(self, places: npt.NDArray[np.int64], rows: Mapping[str, npt.NDArray[Any]]) -> None:
        """Let the decisions before these, of the same episodes, know where they are."""
        ended = rows["terminated"] | rows["truncated"]
        for place, episode, over in zip(places.tolist(), rows["episode"].tolist(), ended.tolist(), strict=True):
            before = self._newest.pop(episode, NONE)
            if before != NONE and before != place and self._store["episode"][before] == episode:
                self._store[FOLLOWING][before] = place
            if not over:
                self._newest[episode] = place

    @property
    def led_to_success(self) -> npt.NDArray[np.int64]:
        """Places of the decisions whose episode had got gold when it ended or was last heard of."""
        if self._led_to_success is None:
            self._led_to_success = np.flatnonzero(self[SUCCEEDED])
        return self._led_to_success

    def sample(
        self,
        rng: np.random.Generator,
        count: int,
        settings: ShapingSettings,
        discount: float,
        ahead: int = 1,
        succeeded: int = 0,
    ) -> Batch:
        """Draw decisions with replacement, evenly but for some, and compose their rewards.

        Args:
            rng: draws.
            count: B.
            settings: of the reward.
            discount: g for one control step.
            ahead: n of n-step returns: rewards of so many decisions are summed, discounted, before the value of what
                follows; fewer where the episode ends, or where no more of it is stored.
            succeeded: how many of the B come from episodes that succeeded.

        Raises:
            ConfigError: nothing is stored yet, or nothing that succeeded.
        """
        if not self.size:
            raise ConfigError("nothing is stored in the replay yet")
        places = rng.integers(0, self.size, count - succeeded)
        if succeeded:
            if not len(self.led_to_success):
                raise ConfigError("no episode in the replay has succeeded yet")
            places = np.concatenate([places, rng.choice(self.led_to_success, succeeded)])
        first, last = places, places
        reward, gold = np.zeros(count), np.zeros(count)
        factor: npt.NDArray[np.float64] = np.ones(count)
        live = np.ones(count, dtype=bool)
        for _ in range(ahead):
            chosen = {name: self._store[name][places] for name in FIGURES}
            reward += live * factor * compose_reward(settings, self._decisions(chosen), discount)
            gold += live * factor * chosen["gold"]
            factor = np.where(live, factor * np.power(discount, chosen["steps"]), factor)
            last = np.where(live, places, last)
            following = self._store[FOLLOWING][places]
            live &= following != NONE
            places = np.where(live, following, places)
        chosen = {name: self._store[name][last] for name in ("next_observation", "next_potential", "next_proposal")}
        bounds = value_bounds(settings, chosen["next_potential"]) if self.pays_once else None
        return Batch(
            observation=_with(self._store["observation"][first], self._store["potential"][first]),
            action=self._store["action"][first],
            reward=reward.astype(np.float32),
            bootstrap=np.where(self._store["terminated"][last], 0.0, factor).astype(np.float32),
            next_observation=_with(chosen["next_observation"], chosen["next_potential"]),
            next_proposal=chosen["next_proposal"],
            gold=gold.astype(np.float32),
            bounds=None if bounds is None else np.stack(bounds, axis=1).astype(np.float32),
        )

    def relabel(self, version: str, score: Callable[[Replay], Mapping[str, npt.ArrayLike]]) -> None:
        """Give every decision the potentials of another model, all or none.

        Args:
            version: of the new potential.
            score: takes this replay and returns arrays (size,) for ``potential``, ``next_potential`` and
                ``start_potential``.

        Raises:
            ConfigError: an array is missing, of another length or not finite; nothing is changed then.
        """
        made = score(self)
        fresh = {}
        for name in POTENTIALS:
            if name not in made:
                raise ConfigError(f"relabelling gave no {name}")
            fresh[name] = np.asarray(made[name], dtype=np.float32)
            if fresh[name].shape != (self.size,) or not np.isfinite(fresh[name]).all():
                raise ConfigError(f"relabelling gave a {name} of shape {fresh[name].shape}, or one that is no number")
        for name, values in fresh.items():
            self._store[name][: self.size] = values
        self.version = version

    def shares(self, settings: ShapingSettings, discount: float) -> dict[str, float]:
        """Each term's share of the learning reward's variance over everything stored."""
        check_discount(discount)
        return variance_shares(reward_terms(settings, self._decisions({n: self[n] for n in self._store}), discount))

    def seen(self) -> Floats:
        """(size, O + 1) what was observed, the potential last."""
        return _with(self["observation"], self["potential"])

    def best_to_come(self) -> Floats:
        """(size,) the highest potential after a decision in the rest of its episode as stored; 1 before success."""
        best: Floats = np.where(self["terminated"] & (self["gold"] > 0), np.float32(1), self["next_potential"])
        following = self[FOLLOWING].copy()
        # Every round looks twice as far ahead as the one before.
        while (live := following != NONE).any():
            there = np.where(live, following, 0)
            best = np.where(live, np.maximum(best, best[there]), best)
            following = np.where(live, following[there], NONE)
        return best

    def save(self, path: Path) -> None:
        """Write everything to one file, atomically."""
        import safetensors.numpy

        note = {
            "version": self.version,
            "size": self.size,
            "next": self._next,
            "capacity": self.capacity,
            # Of everything ever stored, not only of what is still held: a resumed run learns as it would have.
            "pays_once": self._pays_once,
        }
        plain = {name: np.ascontiguousarray(self[name]) for name in self._store}
        write_atomically(path, safetensors.numpy.save(plain, {"replay": json.dumps(note)}))

    def load(self, path: Path) -> None:
        """Take up what `save` wrote.

        Raises:
            ModelError: the file is missing, damaged, or of other sizes.
        """
        import safetensors

        try:
            with safetensors.safe_open(path, "np") as file:
                note = json.loads((file.metadata() or {})["replay"])
                stored = {name: file.get_tensor(name) for name in self._store}
                pays_once = bool(note["pays_once"])
        except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
            raise ModelError(f"{path} is no replay of this version or is damaged ({error})") from error
        size = int(note["size"])
        if int(note["capacity"]) != self.capacity:
            raise ModelError(f"{path} is a replay of capacity {note['capacity']}, not {self.capacity}")
        for name, values in stored.items():
            if values.shape != (size, *self._store[name].shape[1:]):
                raise ModelError(f"{path}: {name} has shape {values.shape}; it is of another world")
        for name, values in stored.items():
            self._store[name][:size] = values
        self._pays_once, self._led_to_success = pays_once, None
        live = np.flatnonzero((stored[FOLLOWING] == NONE) & ~stored["terminated"] & ~stored["truncated"])
        self._newest = dict(zip(stored["episode"][live].tolist(), live.tolist(), strict=True))
        self.size, self._next, self.version = size, int(note["next"]), str(note["version"])

    @staticmethod
    def _decisions(chosen: Mapping[str, npt.NDArray[Any]]) -> Decisions:
        return Decisions(
            chosen["gold"], chosen["potential"], chosen["next_potential"], chosen["start_potential"],
            chosen["terminated"], chosen["truncated"], chosen["steps"].astype(np.int64),
        )  # fmt: skip


def _pays_once(rows: Mapping[str, npt.NDArray[Any]]) -> bool:
    gold = rows["gold"]
    return bool(((gold == 0) | ((gold > 0) & (gold <= 1) & rows["terminated"])).all())


def _with(observation: Floats, potential: Floats) -> Floats:
    return np.concatenate([observation, potential[:, None]], axis=1)
