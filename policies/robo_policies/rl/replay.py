"""Replay that stores what happened and composes the reward when it is sampled.

Each entry is one decision: observation, action, gold, the potentials before and after it and of its episode's start,
the steps it took, how it ended, the observation it really led to (the last one of its episode, never the next
episode's first) and what a cloned policy proposes there. Another shaping mode, scale or potential therefore needs no
new experience, and a new reward model relabels everything in one call. Potentials of different versions never mix.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robo_datasets.errors import ConfigError, ModelError
from robo_datasets.outputs import write_atomically
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

SMALLEST_SPREAD = 0.01
"""Least scale of an observed value: what hardly varied in the demonstrations may well vary elsewhere."""
MOST = 10.0
"""Bound of a network's inputs, in spreads of the demonstrations."""


@dataclass(frozen=True)
class Batch:
    """B decisions as a learner takes them.

    Attributes:
        observation: (B, O + 1), the potential last.
        action: (B, A).
        reward: (B,) composed.
        bootstrap: (B,) factor on the value of the next observation: g^steps, 0 where the task ended, not 0 where only
            the time did.
        next_observation: (B, O + 1).
        next_proposal: (B, A) what the cloned policy proposes there; zeros without one.
        gold: (B,).
        bounds: (2, B) what the value of the next observation can be at least and at most; None where it is not known.
    """

    observation: Floats
    action: Floats
    reward: Floats
    bootstrap: Floats
    next_observation: Floats
    next_proposal: Floats
    gold: Floats
    bounds: Floats | None = None


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
        self._store: dict[str, npt.NDArray[Any]] = {
            "observation": np.zeros((capacity, observation_size), np.float32),
            "next_observation": np.zeros((capacity, observation_size), np.float32),
            "action": np.zeros((capacity, action_size), np.float32),
            "next_proposal": np.zeros((capacity, action_size), np.float32),
            **{name: np.zeros(capacity, np.float32) for name in ("gold", *POTENTIALS)},
            "terminated": np.zeros(capacity, np.bool_),
            "truncated": np.zeros(capacity, np.bool_),
            "steps": np.zeros(capacity, np.int16),
        }

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
        missing = set(self._store) - set(decisions)
        if missing:
            raise ConfigError(f"decisions lack {', '.join(sorted(missing))}")
        rows = {name: np.asarray(decisions[name], dtype=kept.dtype) for name, kept in self._store.items()}
        count = len(rows["gold"])
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

    def sample(self, rng: np.random.Generator, count: int, settings: ShapingSettings, discount: float) -> Batch:
        """Draw decisions evenly, with replacement, and compose their rewards.

        Raises:
            ConfigError: nothing is stored yet.
        """
        if not self.size:
            raise ConfigError("nothing is stored in the replay yet")
        places = rng.integers(0, self.size, count)
        chosen = {name: values[places] for name, values in self._store.items()}
        decisions = self._decisions(chosen)
        reward = compose_reward(settings, decisions, discount).astype(np.float32)
        bounds = value_bounds(settings, chosen["next_potential"]) if self.pays_once else None
        bootstrap = np.where(chosen["terminated"], 0.0, np.power(discount, chosen["steps"])).astype(np.float32)
        return Batch(
            observation=_with(chosen["observation"], chosen["potential"]),
            action=chosen["action"],
            reward=reward,
            bootstrap=bootstrap,
            next_observation=_with(chosen["next_observation"], chosen["next_potential"]),
            next_proposal=chosen["next_proposal"],
            gold=chosen["gold"],
            bounds=None if bounds is None else np.stack(bounds).astype(np.float32),
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

    def scaling(self, potential: bool = True) -> tuple[Floats, Floats]:
        """Mean and spread (O + 1,) of what is observed, the potential last; (O,) without it.

        Values in metres and radians differ by orders of magnitude, and a network sees best what is of order one.
        """
        seen = self["observation"]
        if potential:
            seen = _with(seen, self["potential"])
        mean, spread = seen.mean(axis=0, dtype=np.float64), seen.std(axis=0, dtype=np.float64)
        return mean.astype(np.float32), spread.clip(SMALLEST_SPREAD).astype(np.float32)

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
        self._pays_once = pays_once
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
