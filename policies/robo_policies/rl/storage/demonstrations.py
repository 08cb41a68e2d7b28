"""Demonstrations of a store as transitions: success terminates an episode, everything else truncates it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError, StoreError
from robo_datasets import Episode
from robo_datasets.store.windows import inside, read_columns
from robo_policies.rl.envs.macro_action import ENVIRONMENT_STATE, STATE, ActionMap
from robo_policies.rl.types import BehaviorPrior, TransitionColumns
from robo_rm.shaping.potential import TRUE_PROGRESS
from robo_rm.shaping.potential_based import macro_action_reward

ACTION = "action"

REACH_QUANTILE = 0.995
"""Fraction of the demonstrated macro-actions whose displacements the reach covers; the rest are clipped."""


def demonstrated_reach(episodes: Sequence[Episode], action_repeat: int, absolute: Sequence[int]) -> list[float]:
    """(A,) reach of an `ActionMap` that covers what was demonstrated.

    Args:
        episodes: stored episodes with ``observation.state`` and ``action``.
        action_repeat: control steps in a macro-action.
        absolute: indices of the actions that are absolute (grippers); their reach is infinite.

    Raises:
        StoreError: no episode is as long as a macro-action.
    """
    moves = []
    for episode in episodes:
        state, action = np.asarray(episode[STATE][:]), np.asarray(episode[ACTION][:])
        size = min(state.shape[1], action.shape[1])
        if len(action) > action_repeat:
            # |command at the end of a macro-action - measured state at its start|, at every frame.
            start, end = state[: len(action) - action_repeat + 1, :size], action[action_repeat - 1 :, :size]
            moves.append(np.abs(end - start))
    if not moves:
        raise StoreError(f"no demonstration is longer than a macro-action of {action_repeat} steps")
    reach = np.quantile(np.concatenate(moves), REACH_QUANTILE, axis=0).clip(1e-3)
    reach[list(absolute)] = np.inf
    return [float(value) for value in reach]


def demonstrated_transitions(
    episodes: Sequence[Episode],
    actions: ActionMap,
    discount: float,
    potentials: Sequence[npt.ArrayLike] | None = None,
    prior: BehaviorPrior | None = None,
) -> Iterator[TransitionColumns]:
    """Each episode as transitions for `ReplayBuffer.add`.

    Macro-actions start at frames 0, k, 2k, ... Success at the last frame, or where the simulator's progress first
    reports it, is task reward 1 and terminates the episode; otherwise the last transition is truncated, whatever it
    looks like. The state after the last action was not recorded, so the last frame is its next observation.

    Args:
        episodes: stored episodes.
        actions: how the learner's actions are carried out; k is its action_repeat.
        discount: g for one control step.
        potentials: (T,) of each episode at every frame, or None for 0.
        prior: the behaviour prior, or None.

    Raises:
        StoreError: an episode lacks the state or actions, or its success is not known.
        ConfigError: a potential of another length than its episode.
    """
    for number, episode in enumerate(episodes):
        if episode.success is None:
            raise StoreError(
                f"episode {episode.uuid} does not say whether it succeeded; set it with store.set_success, since a "
                "learner must know where the task ended"
            )
        missing = [key for key in (STATE, ACTION) if key not in episode]
        if missing:
            raise StoreError(f"episode {episode.uuid} has no {missing[0]}; reinforcement learning needs it")
        potential = np.zeros(episode.length) if potentials is None else np.asarray(potentials[number], dtype=np.float64)
        if potential.shape != (episode.length,):
            raise ConfigError(
                f"the potential of episode {episode.uuid} has shape {potential.shape} for {episode.length} frames"
            )
        if _last_frame(episode) > 0:
            yield _transitions(episode, number, actions, discount, potential, prior)


def _last_frame(episode: Episode) -> int:
    """The frame that ends the task: an environment ends at its first success, a recording may run on."""
    if episode.success and TRUE_PROGRESS in episode:
        done = np.flatnonzero(np.asarray(episode[TRUE_PROGRESS][:]).ravel() >= 1.0)
        if len(done):
            return int(done[0])
    return int(episode.length) - 1


def _transitions(
    episode: Episode,
    number: int,
    actions: ActionMap,
    discount: float,
    potential: npt.NDArray[np.float64],
    prior: BehaviorPrior | None,
) -> TransitionColumns:
    arrays = read_columns([episode], [key for key in (STATE, ENVIRONMENT_STATE) if key in episode]).arrays
    observed = np.concatenate(list(arrays.values()), axis=1)
    commands = read_columns([episode], [ACTION]).arrays[ACTION]
    last = _last_frame(episode)
    starts = np.arange(0, last, actions.action_repeat)
    stops, _ = inside(starts + actions.action_repeat, 0, last)
    steps = stops - starts
    task_reward = np.zeros(len(starts))
    if episode.success:
        # Success comes with the last step of the last macro-action: g^(steps - 1).
        task_reward[-1] = macro_action_reward([0.0] * (int(steps[-1]) - 1) + [1.0], discount)
    ended = np.zeros(len(starts), dtype=bool)
    ended[-1] = True
    prior_action: npt.NDArray[np.float32] = np.zeros((len(stops), commands.shape[1]), np.float32)
    if prior is not None:
        prior_action = np.clip(prior({key: values[stops] for key, values in arrays.items()}), -1, 1)
    pairs = zip(starts.tolist(), stops.tolist(), strict=True)
    return {
        "observation": observed[starts],
        "next_observation": observed[stops],
        "action": np.stack([actions.action(observed[a], commands[a:b]) for a, b in pairs]),
        "next_prior_action": prior_action,
        "task_reward": task_reward,
        "potential": potential[starts],
        "next_potential": potential[stops],
        "start_potential": np.full(len(starts), potential[0]),
        "terminated": ended & bool(episode.success),
        "truncated": ended & (not episode.success),
        "steps": steps,
        "episode": np.full(len(starts), number),
    }
