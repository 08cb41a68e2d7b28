"""The replay buffer: stores what happened and composes the reward when it is sampled.

Each entry is one transition, a macro-action: observation, action, task reward, the potentials before and after it and
at its episode's start, the steps it took, how it ended, the observation it really led to (the last one of its episode,
never the next episode's first) and the behaviour prior's action there. Another shaping mode, scale or potential
therefore needs no new experience, and a new reward model relabels everything in one call. Potentials of different
versions never mix. Which transitions led to success in the end, and which one follows which, is worked out when they
are added.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from robo_core.errors import ConfigError, ModelError
from robo_core.outputs import write_atomically
from robo_policies.rl.types import Floats
from robo_rm.shaping.modes import (
    ShapingSettings,
    Transitions,
    compose_reward,
    reward_terms,
    value_bounds,
    variance_fractions,
)
from robo_rm.shaping.potential_based import check_discount

POTENTIALS = ("potential", "next_potential", "start_potential")
REWARD_FIELDS = ("task_reward", *POTENTIALS, "terminated", "truncated", "steps")
"""Fields that the reward is composed of."""
SUCCEEDED, NEXT_INDEX = "succeeded", "next_index"
DERIVED = (SUCCEEDED, NEXT_INDEX)
"""Fields that the buffer works out itself."""
NONE = -1


@dataclass(frozen=True)
class Batch:
    """B transitions as a learner takes them.

    Attributes:
        observation: (B, O + 1), the potential last.
        action: (B, A).
        reward: (B,) composed.
        bootstrap: (B,) factor on the value of the next observation: g^steps, of all transitions of an n-step return; 0
            where the task ended, not 0 at a time limit.
        next_observation: (B, O + 1).
        next_prior_action: (B, A) the behaviour prior's action there; zeros without one.
        task_reward: (B,).
        bounds: (B, 2) lower and upper bound on the value of the next observation; None where they are not known.
    """

    observation: Floats
    action: Floats
    reward: Floats
    bootstrap: Floats
    next_observation: Floats
    next_prior_action: Floats
    task_reward: Floats
    bounds: Floats | None = None

    def split(self, count: int) -> Iterator[Batch]:
        """So many batches of equal size: the i-th has transitions i, i + count, i + 2 count, ..."""
        for first in range(count):
            part = slice(first, None, count)
            yield Batch(
                self.observation[part], self.action[part], self.reward[part], self.bootstrap[part],
                self.next_observation[part], self.next_prior_action[part], self.task_reward[part],
                None if self.bounds is None else self.bounds[part],
            )  # fmt: skip


class ReplayBuffer:
    """A ring buffer of transitions.

    Args:
        capacity: maximum number of transitions; the oldest are overwritten.
        observation_size: O, without the potential.
        action_size: A.
        version: of the potential whose values it holds.

    Raises:
        ConfigError: a capacity below 1.
    """

    def __init__(self, capacity: int, observation_size: int, action_size: int, version: str) -> None:
        if capacity < 1:
            raise ConfigError(f"learning.buffer_size={capacity}: give 1 transition or more")
        self.capacity, self.version = capacity, version
        self.size = self._next = 0
        self._is_bounded = True
        self._successful: npt.NDArray[np.int64] | None = None
        self._floats = {
            "observation": np.zeros((capacity, observation_size), np.float32),
            "next_observation": np.zeros((capacity, observation_size), np.float32),
            "action": np.zeros((capacity, action_size), np.float32),
            "next_prior_action": np.zeros((capacity, action_size), np.float32),
            **{name: np.zeros(capacity, np.float32) for name in ("task_reward", *POTENTIALS)},
        }
        self._flags = {name: np.zeros(capacity, np.bool_) for name in ("terminated", "truncated", SUCCEEDED)}
        self._numbers = {
            "steps": np.zeros(capacity, np.int64),
            "episode": np.zeros(capacity, np.int64),
            NEXT_INDEX: np.full(capacity, NONE, np.int64),
        }
        self._store: dict[str, npt.NDArray[np.generic]] = {**self._floats, **self._flags, **self._numbers}
        # The newest transition of each episode that is not over.
        self._newest: dict[int, int] = {}

    def __len__(self) -> int:
        return self.size

    @property
    def is_bounded(self) -> bool:
        """Whether every task reward so far was 0, or at most 1 where the task ended: values are bounded then."""
        return self._is_bounded

    def floats(self, name: str) -> Floats:
        """The stored values (size, ...) of a float field, in memory order; a view."""
        return self._floats[name][: self.size]

    def flags(self, name: str) -> npt.NDArray[np.bool_]:
        """The stored values (size,) of ``terminated``, ``truncated`` or ``succeeded``; a view."""
        return self._flags[name][: self.size]

    def numbers(self, name: str) -> npt.NDArray[np.int64]:
        """The stored values (size,) of ``steps``, ``episode`` or ``next_index``; a view."""
        return self._numbers[name][: self.size]

    def add(self, transitions: Mapping[str, object], version: str) -> None:
        """Store transitions: one array (n, ...) for each field.

        Raises:
            ConfigError: a field is missing, of a wrong shape or not finite; or the potentials are of another version.
        """
        if version != self.version:
            raise ConfigError(
                f"the replay buffer holds potentials of {self.version} and these are of {version}; relabel it first, "
                "since a critic cannot learn from two potentials at once"
            )
        missing = set(self._store) - set(DERIVED) - set(transitions)
        if missing:
            raise ConfigError(f"transitions lack {', '.join(sorted(missing))}")
        rows: dict[str, npt.NDArray[np.generic]] = {
            name: np.asarray(transitions[name], dtype=stored.dtype)
            for name, stored in self._store.items()
            if name not in DERIVED
        }
        count = len(rows["task_reward"])
        for name, values in rows.items():
            if values.shape != (count, *self._store[name].shape[1:]):
                raise ConfigError(f"{name} of {count} transitions has shape {values.shape}")
            if not np.isfinite(values).all():
                raise ConfigError(f"{name} of a transition is NaN or infinite; nothing was stored")
        task_reward, terminated = rows["task_reward"].astype(np.float32), rows["terminated"].astype(bool)
        paid_at_end = (task_reward > 0) & (task_reward <= 1) & terminated
        self._is_bounded &= bool(((task_reward == 0) | paid_at_end).all())
        if count > self.capacity:
            rows, count = {name: values[-self.capacity :] for name, values in rows.items()}, self.capacity
        places = (self._next + np.arange(count)) % self.capacity
        for name, values in rows.items():
            self._store[name][places] = values
        self._flags[SUCCEEDED][places], self._numbers[NEXT_INDEX][places] = False, NONE
        self._next = (self._next + count) % self.capacity
        self.size = min(self.size + count, self.capacity)
        episodes = self._numbers["episode"][places]
        self._link(places, episodes, self._flags["terminated"][places] | self._flags["truncated"][places])
        for episode in np.unique(episodes[self._floats["task_reward"][places] > 0]):
            self.flags(SUCCEEDED)[self.numbers("episode") == episode] = True
        self._successful = None

    def _link(
        self, places: npt.NDArray[np.int64], episodes: npt.NDArray[np.int64], done: npt.NDArray[np.bool_]
    ) -> None:
        """Point the previous transition of each of these episodes to its successor."""
        for place, episode, over in zip(places.tolist(), episodes.tolist(), done.tolist(), strict=True):
            before = self._newest.pop(episode, NONE)
            # The previous one may have been overwritten since.
            if before != NONE and before != place and self._numbers["episode"][before] == episode:
                self._numbers[NEXT_INDEX][before] = place
            if not over:
                self._newest[episode] = place

    @property
    def successful(self) -> npt.NDArray[np.int64]:
        """Indices of the transitions of episodes that have received task reward."""
        if self._successful is None:
            self._successful = np.flatnonzero(self.flags(SUCCEEDED))
        return self._successful

    def sample(
        self,
        rng: np.random.Generator,
        count: int,
        settings: ShapingSettings,
        discount: float,
        n_step: int = 1,
        successful: int = 0,
    ) -> Batch:
        """Draw transitions uniformly with replacement, some from successful episodes, and compose their rewards.

        With r_j and k_j the composed reward and the steps of the j-th transition from the one drawn, an n-step return
        and its bootstrap factor are

            R = sum_{j < n} g^(k_0 + ... + k_{j-1}) r_j          bootstrap = g^(k_0 + ... + k_{n-1})

        with a smaller n where the episode ends, or where no more of it is stored.

        Args:
            rng: random generator.
            count: B.
            settings: of the reward.
            discount: g for one control step.
            n_step: n.
            successful: how many of the B come from episodes that succeeded.

        Raises:
            ConfigError: nothing is stored yet, or nothing that succeeded.
        """
        if not self.size:
            raise ConfigError("the replay buffer is empty")
        places = rng.integers(0, self.size, count - successful)
        if successful:
            if not len(self.successful):
                raise ConfigError("no episode in the replay buffer has succeeded yet")
            places = np.concatenate([places, rng.choice(self.successful, successful)])
        first, last = places, places
        reward, task_reward = np.zeros(count), np.zeros(count)
        factor: npt.NDArray[np.float64] = np.ones(count)
        live = np.ones(count, dtype=bool)
        for _ in range(n_step):
            # `live` masks the returns that have ended: their `places` stand still and add nothing more.
            step = self.reward_inputs(places)
            reward += live * factor * compose_reward(settings, step, discount)
            task_reward += live * factor * step.task_reward
            factor = np.where(live, factor * np.power(discount, step.steps), factor)
            last = np.where(live, places, last)
            following = self._numbers[NEXT_INDEX][places]
            live &= following != NONE
            places = np.where(live, following, places)
        next_potential = self._floats["next_potential"][last]
        bounds = value_bounds(settings, next_potential) if self.is_bounded else None
        return Batch(
            observation=_append(self._floats["observation"][first], self._floats["potential"][first]),
            action=self._floats["action"][first],
            reward=reward.astype(np.float32),
            # No value follows a terminal state; at a time limit the task would have gone on.
            bootstrap=np.where(self._flags["terminated"][last], 0.0, factor).astype(np.float32),
            next_observation=_append(self._floats["next_observation"][last], next_potential),
            next_prior_action=self._floats["next_prior_action"][last],
            task_reward=task_reward.astype(np.float32),
            bounds=None if bounds is None else np.stack(bounds, axis=1).astype(np.float32),
        )

    def relabel(self, version: str, score: Callable[[ReplayBuffer], Mapping[str, npt.ArrayLike]]) -> None:
        """Give every transition the potentials of another model, all or none.

        Args:
            version: of the new potential.
            score: takes this buffer and returns arrays (size,) for ``potential``, ``next_potential`` and
                ``start_potential``.

        Raises:
            ConfigError: an array is missing, of another length or not finite; nothing is changed then.
        """
        scored = score(self)
        fresh: dict[str, Floats] = {}
        for name in POTENTIALS:
            if name not in scored:
                raise ConfigError(f"relabelling gave no {name}")
            fresh[name] = np.asarray(scored[name], dtype=np.float32)
            if fresh[name].shape != (self.size,) or not np.isfinite(fresh[name]).all():
                raise ConfigError(f"relabelling gave a {name} of shape {fresh[name].shape}, or one that is not finite")
        for name, values in fresh.items():
            self.floats(name)[:] = values
        self.version = version

    def variance_fractions(self, settings: ShapingSettings, discount: float) -> dict[str, float]:
        """Each reward term's fraction of the learning reward's variance over everything stored."""
        check_discount(discount)
        return variance_fractions(reward_terms(settings, self.reward_inputs(slice(0, self.size)), discount))

    def observations(self) -> Floats:
        """(size, O + 1) all observations, the potential last."""
        return _append(self.floats("observation"), self.floats("potential"))

    def max_future_potential(self) -> Floats:
        """(size,) the highest potential after a transition in the rest of its episode as stored; 1 before success."""
        succeeded = self.flags("terminated") & (self.floats("task_reward") > 0)
        best: Floats = np.where(succeeded, np.float32(1), self.floats("next_potential"))
        following = self.numbers(NEXT_INDEX).copy()
        # Pointer doubling: each round covers twice as many transitions ahead as the one before.
        while (live := following != NONE).any():
            there = np.where(live, following, 0)
            best = np.where(live, np.maximum(best, best[there]), best)
            following = np.where(live, following[there], NONE)
        return best

    def save(self, path: Path) -> None:
        """Write everything to one file, atomically."""
        note = {
            "version": self.version,
            "size": self.size,
            "next": self._next,
            "capacity": self.capacity,
            # Of everything ever stored, not only of what is left: a resumed run learns as it would have.
            "is_bounded": self._is_bounded,
        }
        arrays = {name: np.ascontiguousarray(values[: self.size]) for name, values in self._store.items()}
        write_atomically(path, safetensors.numpy.save(arrays, {"replay_buffer": json.dumps(note)}))

    def load(self, path: Path) -> None:
        """Restore what `save` wrote.

        Raises:
            ModelError: the file is missing, damaged, or of other sizes.
        """
        try:
            with safetensors.safe_open(path, "np") as file:
                note = json.loads((file.metadata() or {})["replay_buffer"])
                stored = {name: file.get_tensor(name) for name in self._store}
                is_bounded = bool(note["is_bounded"])
        except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
            raise ModelError(f"{path} is not a replay buffer of this version or is damaged ({error})") from error
        size = int(note["size"])
        if int(note["capacity"]) != self.capacity:
            raise ModelError(f"{path} is a replay buffer of capacity {note['capacity']}, not {self.capacity}")
        for name, values in stored.items():
            if values.shape != (size, *self._store[name].shape[1:]):
                raise ModelError(f"{path}: {name} has shape {values.shape}; it is of another environment")
        for name, values in stored.items():
            self._store[name][:size] = values
        self.size, self._next, self.version = size, int(note["next"]), str(note["version"])
        self._is_bounded, self._successful = is_bounded, None
        ended = self.flags("terminated") | self.flags("truncated")
        live = np.flatnonzero((self.numbers(NEXT_INDEX) == NONE) & ~ended)
        self._newest = dict(zip(self.numbers("episode")[live].tolist(), live.tolist(), strict=True))

    def reward_inputs(self, places: npt.NDArray[np.int64] | slice) -> Transitions:
        """What the reward of the transitions at these places is composed of."""
        floats, flags = self._floats, self._flags
        return Transitions(
            floats["task_reward"][places], floats["potential"][places], floats["next_potential"][places],
            floats["start_potential"][places], flags["terminated"][places], flags["truncated"][places],
            self._numbers["steps"][places],
        )  # fmt: skip


def _append(observation: Floats, potential: Floats) -> Floats:
    return np.concatenate([observation, potential[:, None]], axis=1)
