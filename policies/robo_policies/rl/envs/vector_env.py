"""N environments stepped together by macro-actions, with the potential, as the learners see them.

`make_vector_env` builds Gymnasium's vector of environments: `SyncVectorEnv` in this process, or `ProcessVectorEnv`
in others. `MacroActionVectorEnv` adds what a learner needs beside it: potentials scored in
one batch, the behaviour prior's actions, seeds that count on, early termination, and snapshots to resume from.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypedDict, cast

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.envs.macro_action import (
    ENVIRONMENT_STATE,
    STATE,
    ActionMap,
    Array,
    Environment,
    flatten,
    make_macro_action_env,
)
from robo_policies.rl.envs.process_vector_env import ProcessVectorEnv
from robo_policies.rl.types import BehaviorPrior, Floats, TransitionColumns
from robo_rm.shaping.potential import TRUE_PROGRESS, Potential
from robo_rm.shaping.potential_based import check_discount, macro_action_reward

Envs: TypeAlias = "SyncVectorEnv | ProcessVectorEnv"

MIN_PROGRESS = 0.01
"""Rise of the potential above its highest value in the episode that counts as progress."""


class Snapshot(TypedDict):
    """Where N episodes stand, in plain values."""

    next_seed: int
    seeds: list[int]
    actions: list[list[list[float]]]


@dataclass
class StepResult:
    """What one macro-action in each of N environments led to.

    Attributes:
        transitions: one for each environment.
        done: (N,) the episode is over, by success or time.
        seeds: (N,) of the episodes that the transitions belong to.
    """

    transitions: TransitionColumns
    done: npt.NDArray[np.bool_]
    seeds: npt.NDArray[np.int64]


def make_vector_env(
    make_env: Callable[[], Environment],
    count: int,
    actions: ActionMap,
    potential: Potential,
    processes: int = 0,
) -> Envs:
    """Gymnasium's vector of environments under macro-actions; nothing is reset automatically.

    Args:
        make_env: makes one environment; with processes, it is pickled by cloudpickle.
        count: N.
        actions: how actions are carried out.
        potential: its cameras are rendered where the observations lack them.
        processes: that share the environments, each stepping its part of them one after the other; 0 steps all of them
            here.

    Raises:
        ConfigError: no environment, or more processes than environments.
    """
    if count < 1 or not 0 <= processes <= count:
        raise ConfigError(
            f"{count} environments in {processes} processes: give an environment at least to each process"
        )
    make = functools.partial(make_macro_action_env, make_env, actions, tuple(potential.cameras))
    if not processes:
        return SyncVectorEnv([make] * count, autoreset_mode=AutoresetMode.DISABLED)
    return ProcessVectorEnv(make, count, processes)


class MacroActionVectorEnv:
    """N environments, their potentials and the behaviour prior's actions.

    Args:
        envs: of `make_vector_env`.
        actions: how actions are carried out.
        potential: for N environments, scored every ``actions.action_repeat`` steps.
        discount: g for one control step.
        seed: of the first episode; each further episode takes the next number.
        prior: the behaviour prior, or None.
        patience: macro-actions without progress of the potential after which an episode is truncated, as by a time
            limit: what follows is still bootstrapped from, so the optimal policy stays optimal. 0 for never.

    Raises:
        ConfigError: a patience below 0, or a discount outside (0, 1].
    """

    def __init__(
        self,
        envs: Envs,
        actions: ActionMap,
        potential: Potential,
        discount: float,
        seed: int,
        prior: BehaviorPrior | None = None,
        patience: int = 0,
    ) -> None:
        check_discount(discount)
        if patience < 0:
            raise ConfigError(
                f"learning.early_termination_patience={patience}: give a number of macro-actions, or 0 for never"
            )
        self.envs, self.actions, self.potential = envs, actions, potential
        self.num_envs = envs.num_envs
        self.seeds = np.zeros(self.num_envs, dtype=np.int64)
        self._discount, self._next_seed, self._prior, self._patience = discount, seed, prior, patience
        self._pending: Floats | None = None
        self._observed: dict[str, Array] = {}
        self._flat: Floats = np.zeros((self.num_envs, 0), np.float32)
        self._prior_actions: Floats | None = None
        self._phi = np.zeros(self.num_envs)
        self._start_phi = np.zeros(self.num_envs)
        self._max_phi = np.zeros(self.num_envs)
        self._stalled = np.zeros(self.num_envs, dtype=np.int64)
        self._actions_so_far: list[list[Floats]] = [[] for _ in range(self.num_envs)]

    @property
    def observation_size(self) -> int:
        """O, without the potential."""
        space = cast(spaces.Dict, self.envs.single_observation_space)
        return sum(int(np.prod(space[key].shape or ())) for key in (STATE, ENVIRONMENT_STATE) if key in space.spaces)

    @property
    def action_size(self) -> int:
        """A."""
        return len(self.actions.low)

    def prior_actions(self) -> Floats | None:
        """(N, A) the behaviour prior's actions here, or None without one."""
        return self._prior_actions

    def refresh_prior(self) -> None:
        """Ask the behaviour prior again, since it has changed."""
        if self._prior is not None:
            keys = [key for key in (STATE, ENVIRONMENT_STATE) if key in self._observed]
            states = {key: self._observed[key].astype(np.float32) for key in keys}
            self._prior_actions = np.clip(self._prior(states), -1, 1).astype(np.float32)

    def observations(self) -> Floats:
        """(N, O + 1) what the learner sees, the potential last."""
        return np.concatenate([self._flat, self._phi[:, None]], axis=1).astype(np.float32)

    def reset(self, which: npt.NDArray[np.int64] | None = None) -> None:
        """Start new episodes in the given environments, or in all."""
        chosen = np.arange(self.num_envs) if which is None else which
        for index in chosen.tolist():
            self.seeds[index], self._actions_so_far[index] = self._next_seed, []
            self._next_seed += 1
        mask = np.isin(np.arange(self.num_envs), chosen)
        seeds: list[int | None] = [*self.seeds.tolist()]
        with self._dead_processes_reported():
            observed, infos = self.envs.reset(seed=seeds, options={"reset_mask": mask})
        self._observed = cast("dict[str, Array]", observed)
        self.potential.begin(chosen)
        self._phi[chosen] = self._score(self._observed, infos, chosen)
        self._start_phi[chosen] = self._max_phi[chosen] = self._phi[chosen]
        self._stalled[chosen] = 0
        self._flatten()

    def step(self, actions: Floats) -> StepResult:
        """Carry out one macro-action (N, A) in every environment; episodes that end start again.

        Raises:
            ModelError: an action, an observation or a potential is not finite.
            ConfigError: a task reward is not finite.
        """
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: Floats) -> None:
        """Start a macro-action (N, A) in every environment; environments in other processes work from now on.

        Raises:
            ModelError: an action is not finite.
        """
        if not np.isfinite(actions).all():
            index = int(np.argwhere(~np.isfinite(actions))[0][0])
            raise ModelError(f"the policy's action for environment {index} is {actions[index].tolist()}")
        self._pending = actions
        for index, action in enumerate(actions):
            self._actions_so_far[index].append(action.copy())
        if isinstance(self.envs, ProcessVectorEnv):
            with self._dead_processes_reported():
                self.envs.step_async(actions)

    def step_wait(self) -> StepResult:
        """What the macro-action started with `step_async` led to; episodes that end start again.

        Raises:
            ModelError: an observation or a potential is not finite, or an environment's process died.
            ConfigError: a task reward is not finite.
        """
        assert self._pending is not None
        actions, self._pending = self._pending, None
        before, phi, seeds = self._flat, self._phi.copy(), self.seeds.copy()
        with self._dead_processes_reported():
            step = self.envs.step_wait() if isinstance(self.envs, ProcessVectorEnv) else self.envs.step(actions)
        observed, _, terminated, truncated, infos = step
        self._observed = cast("dict[str, Array]", observed)
        flat = self._flat = self._flattened()
        rewards: list[list[float]] = infos["rewards"].tolist()
        task_reward = np.array([macro_action_reward(values, self._discount) for values in rewards])
        # Phi of a terminal state is 0, so it is neither rendered nor scored; of a time limit's last state it counts.
        next_phi = np.zeros(self.num_envs)
        live = np.flatnonzero(~terminated)
        next_phi[live] = self._score(self._observed, infos, live)
        self._phi = next_phi
        self._count_stalled(np.arange(self.num_envs))
        if self._patience:
            truncated = truncated | ((self._stalled >= self._patience) & ~terminated)
        self.refresh_prior()
        transitions: TransitionColumns = {
            "observation": before,
            "next_observation": flat,
            "action": np.clip(actions, -1, 1),
            "next_prior_action": np.zeros_like(actions) if self._prior_actions is None else self._prior_actions,
            "task_reward": task_reward,
            "potential": phi,
            "next_potential": next_phi.copy(),
            "start_potential": self._start_phi.copy(),
            "terminated": terminated.copy(),
            "truncated": truncated.copy(),
            "steps": np.array([len(values) for values in rewards], dtype=np.int64),
            "episode": seeds,
        }
        done = terminated | truncated
        if done.any():
            self.reset(np.flatnonzero(done))
        return StepResult(transitions, done, seeds)

    def snapshot(self) -> Snapshot:
        """Where the episodes stand: each one's seed and its actions so far."""
        actions = [[action.tolist() for action in done] for done in self._actions_so_far]
        return {"next_seed": self._next_seed, "seeds": self.seeds.tolist(), "actions": actions}

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot, by carrying out the same actions from the same seeds.

        The environments' states are bit-exact; potentials of several environments, which are scored one by one here,
        agree to the rounding of their batches.
        """
        actions = dict(zip(snapshot["seeds"], snapshot["actions"], strict=True))
        self.seeds[:] = snapshot["seeds"]
        with self._dead_processes_reported():
            observed, infos = self.envs.reset(seed=list(snapshot["seeds"]), options={"actions": actions})
        self._observed = cast("dict[str, Array]", observed)
        self._next_seed = snapshot["next_seed"]
        for index, done in enumerate(snapshot["actions"]):
            only = np.array([index])
            self._actions_so_far[index] = [np.array(action, dtype=np.float32) for action in done]
            self.potential.begin(only)
            for step, (observation, info) in enumerate(infos["history"][index]):
                self._phi[only] = self._score(*_batched(observation, info), only, rows=np.zeros(1, np.int64))
                if step == 0:
                    self._start_phi[only] = self._max_phi[only] = self._phi[only]
                    self._stalled[only] = 0
                else:
                    self._count_stalled(only)
        self._flatten()

    def close(self) -> None:
        """Close the environments and stop their processes; safe to call again."""
        self.envs.close()

    def _flatten(self) -> None:
        self._flat = self._flattened()
        self.refresh_prior()

    def _flattened(self) -> Floats:
        """(N, O); the states of all environments must be finite."""
        rows = [{key: value[index] for key, value in self._observed.items()} for index in range(self.num_envs)]
        return np.stack([flatten(row) for row in rows])

    def _count_stalled(self, which: npt.NDArray[np.int64]) -> None:
        """Count the macro-actions since the potential last rose above its highest value in the episode."""
        rose = self._phi[which] > self._max_phi[which] + MIN_PROGRESS
        self._stalled[which] = np.where(rose, 0, self._stalled[which] + 1)
        self._max_phi[which] = np.maximum(self._max_phi[which], self._phi[which])

    def _score(
        self,
        observed: Mapping[str, Array],
        infos: Mapping[str, object],
        which: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64] | None = None,
    ) -> npt.NDArray[np.float64]:
        """(n,) potentials of the environments ``which``, whose values stand in the given rows of the arrays."""
        if not len(which):
            return np.zeros(0)
        rows = which if rows is None else rows
        inputs = {key: value[rows] for key, value in observed.items()}
        if "progress" in infos:
            inputs[TRUE_PROGRESS] = np.asarray(infos["progress"], dtype=np.float64)[rows]
        images = cast("Mapping[str, npt.NDArray[np.uint8]]", infos.get("images", {}))
        inputs |= {key: images[key][rows] for key in self.potential.cameras if key in images}
        values = np.asarray(self.potential.score(inputs, which), dtype=np.float64)
        if not np.isfinite(values).all():
            index = int(which[int(np.argmin(np.isfinite(values)))])
            raise ModelError(f"the potential of environment {index} is not finite")
        return values

    @contextlib.contextmanager
    def _dead_processes_reported(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            self.close()
            raise ModelError("an environment's process died; its last lines are above") from error


def _batched(
    observation: Mapping[str, Array], info: Mapping[str, object]
) -> tuple[dict[str, Array], dict[str, object]]:
    """One environment's observation and info as those of a vector of one."""
    images = cast("Mapping[str, npt.NDArray[np.uint8]]", info.get("images", {}))
    progress = {"progress": np.array([info["progress"]])} if "progress" in info else {}
    batch = {key: value[None] for key, value in observation.items()}
    return batch, {**progress, "images": {key: image[None] for key, image in images.items()}}
