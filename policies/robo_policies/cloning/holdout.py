"""Episodes that are not trained on, and how far a policy's actions are from those demonstrated in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from robo_policies.cloning.images import Pictures
from robo_policies.cloning.learned import LearnedPolicy
from robo_policies.cloning.windows import ACTION, Demonstrations
from robo_rm.labels.split import store_split

if TYPE_CHECKING:
    from robo_datasets import DemoStore

# Frames to measure on: evenly over the held-out episodes.
MOST_FRAMES = 512
BATCH = 64


def hold_out(store: DemoStore, demonstrations: Demonstrations, holdout: float, seed: int) -> np.ndarray:
    """Which frames are held out, (N,) bool: those of the first episodes of the split that ``store`` keeps for ``seed``.

    A reward model of the same seed and holdout holds out the same ones, see `robo_rm.labels.split`.

    Args:
        store: where the demonstrations come from.
        demonstrations: all frames, N.
        holdout: a number of episodes, or a share between 0 and 1.
        seed: which split.

    Raises:
        ConfigError: the number is negative, or leaves no episode to train on.
    """
    episodes = [store.episode(uuid) for uuid in demonstrations.uuids]
    held = {episode.uuid for episode in store_split(store, episodes, holdout, seed, "episodes")[1]}
    drawn = np.array([uuid in held for uuid in demonstrations.uuids])
    return np.repeat(drawn, np.diff(demonstrations.starts))


def held_out_errors(
    policy: LearnedPolicy,
    demonstrations: Demonstrations,
    held: np.ndarray,
    statistics: Mapping[str, Mapping[str, np.ndarray]],
    pictures: Pictures | None = None,
    weights: np.ndarray | None = None,
) -> dict[str, Any]:
    """Mean absolute error of the actions on the held-out frames; what lies past the end of an episode does not count.

    Args:
        policy: judged with the noise it starts with after a reset.
        demonstrations: all frames, N.
        held: (N,) bool, what :func:`hold_out` gave.
        statistics: normalisation of the training frames.
        pictures: the cameras.
        weights: (N,) weight of each frame, to measure the error on what is worth imitating as well.

    Returns:
        ``holdout_frames``; ``holdout_action_l1``, mean over chunk and joints in the units of the actions;
        ``holdout_action_l1_normalised``, the same with each joint divided by its deviation over the training frames;
        ``holdout_action_l1_executed``, normalised, of the part of each chunk that is carried out; and, with
        ``weights``, ``holdout_action_l1_weighted``, normalised, the mean over frames weighted by them.
    """
    frames = np.flatnonzero(held)
    frames = frames[np.unique(np.linspace(0, len(frames) - 1, MOST_FRAMES).astype(np.int64))]
    errors, inside = [], []
    policy.reset()
    for start in range(0, len(frames), BATCH):
        chosen = frames[start : start + BATCH]
        ahead = chosen[:, None] + np.arange(policy.chunk_size)
        inside.append(ahead < demonstrations.ends[chosen][:, None])
        true = demonstrations.arrays[ACTION][np.minimum(ahead, demonstrations.ends[chosen][:, None] - 1)]
        back = np.arange(1 - policy.observation_steps, 1)
        seen = np.maximum(chosen[:, None] + back, demonstrations.firsts[chosen][:, None])
        observation = {key: values[seen] for key, values in demonstrations.arrays.items() if key != ACTION}
        if pictures is not None:
            read = pictures.read(seen.ravel())
            observation |= {key: values.reshape(*seen.shape, *values.shape[1:]) for key, values in read.items()}
        errors.append(np.abs(policy.act(observation) - true))
    policy.reset()
    error, counts = np.concatenate(errors), np.concatenate(inside)
    scaled = error / statistics[ACTION]["std"]
    executed = counts & (np.arange(policy.chunk_size) < policy.execution_horizon)
    result = {
        "holdout_frames": len(frames),
        "holdout_action_l1": _mean(error, counts),
        "holdout_action_l1_normalised": _mean(scaled, counts),
        "holdout_action_l1_executed": _mean(scaled, executed),
    }
    if weights is not None:
        result["holdout_action_l1_weighted"] = _mean(scaled, counts * weights[frames][:, None])
    return result


def _mean(error: np.ndarray, counts: np.ndarray) -> float | None:
    """Mean of (n, H, A) over joints, and over n and H as ``counts`` (n, H) weighs them; None where nothing counts."""
    total = float(counts.sum())
    return float((error.mean(-1) * counts).sum() / total) if total > 0 else None
