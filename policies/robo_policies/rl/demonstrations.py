"""Demonstrations of a store as decisions for the replay: success ends the task, everything else only ends the time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError, StoreError
from robo_policies.rl.decisions import ENVIRONMENT_STATE, STATE, ActionMap, Proposer
from robo_rm.shaping.core import decision_gold

ACTION = "action"
SIMULATOR_PROGRESS = "simulator.progress"

# How far the joints of joint-target worlds move in nearly all decisions of the demonstrations; the rest are cut.
REACH_QUANTILE = 0.995


def demonstrated_reach(episodes: Sequence[Any], repeat: int, absolute: Sequence[int]) -> list[float]:
    """(A,) reach of an `ActionMap` that covers what was demonstrated.

    Args:
        episodes: stored episodes with ``observation.state`` and ``action``.
        repeat: control steps in a decision.
        absolute: indices of the actions that are absolute (grippers); their reach is infinite.

    Raises:
        StoreError: no episode is as long as a decision.
    """
    moves = []
    for episode in episodes:
        state, action = np.asarray(episode[STATE][:]), np.asarray(episode[ACTION][:])
        size = min(state.shape[1], action.shape[1])
        if len(action) > repeat:
            moves.append(np.abs(action[repeat - 1 :, :size] - state[: len(action) - repeat + 1, :size]))
    if not moves:
        raise StoreError(f"no demonstration is longer than a decision of {repeat} steps")
    reach = np.quantile(np.concatenate(moves), REACH_QUANTILE, axis=0).clip(1e-3)
    reach[list(absolute)] = np.inf
    return [float(value) for value in reach]


def demonstrated_decisions(
    episodes: Sequence[Any],
    actions: ActionMap,
    discount: float,
    potentials: Sequence[npt.ArrayLike] | None = None,
    propose: Proposer | None = None,
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Each episode as rows for `Replay.add`.

    Decisions begin at frames 0, k, 2k, ... An episode's success at its last frame, or where the simulator's progress
    first says so, is gold 1 and ends the task;
    otherwise its last decision is truncated, whatever it looks like. The state after the last action was not
    recorded, so the last frame is what the last decision led to.

    Args:
        episodes: stored episodes.
        actions: how the learner's actions are carried out; k is its repeat.
        discount: g for one control step.
        potentials: (T,) of each episode at every frame, or None for 0.
        propose: the cloned policy, or None.

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
        if _end(episode) > 0:
            rows = _decisions(episode, actions, discount, potential, propose)
            yield {**rows, "episode": np.full(len(rows["gold"]), number)}


def _end(episode: Any) -> int:
    """The frame that ends the task: a world ends at its first success, a recording may run on."""
    if episode.success and SIMULATOR_PROGRESS in episode:
        done = np.flatnonzero(np.asarray(episode[SIMULATOR_PROGRESS][:]).ravel() >= 1.0)
        if len(done):
            return int(done[0])
    return int(episode.length) - 1


def _decisions(
    episode: Any,
    actions: ActionMap,
    discount: float,
    potential: npt.NDArray[np.float64],
    propose: Proposer | None,
) -> dict[str, npt.NDArray[Any]]:
    keys = [key for key in (STATE, ENVIRONMENT_STATE) if key in episode]
    arrays = {key: np.asarray(episode[key][:], dtype=np.float32) for key in keys}
    seen = np.concatenate(list(arrays.values()), axis=1)
    commands = np.asarray(episode[ACTION][:], dtype=np.float32)
    last = _end(episode)
    starts = np.arange(0, last, actions.repeat)
    stops = np.minimum(starts + actions.repeat, last)
    steps = stops - starts
    golds = np.zeros(len(starts))
    if episode.success:
        golds[-1] = decision_gold([0.0] * (int(steps[-1]) - 1) + [1.0], discount)
    ended = np.zeros(len(starts), dtype=bool)
    ended[-1] = True
    size = commands.shape[1]
    proposed: npt.NDArray[np.float32] = np.zeros((len(stops), size), np.float32)
    if propose is not None:
        proposed = np.clip(propose({key: values[stops] for key, values in arrays.items()}), -1, 1)
    pairs = zip(starts.tolist(), stops.tolist(), strict=True)
    return {
        "observation": seen[starts],
        "next_observation": seen[stops],
        "action": np.stack([actions.action(seen[a], commands[a:b]) for a, b in pairs]),
        "next_proposal": proposed,
        "gold": golds,
        "potential": potential[starts],
        "next_potential": potential[stops],
        "start_potential": np.full(len(starts), potential[0]),
        "terminated": ended & bool(episode.success),
        "truncated": ended & (not episode.success),
        "steps": steps,
    }
