"""Weights of any kind as a progress file from which LeRobot's sample weighting makes just those weights.

LeRobot reads progress, not weights: ``--sample_weighting.type=rabc`` computes SARM's equations 5-9 from the progress of
a file, with D the policy's chunk. For frame t of an episode of T frames, e = 1e-6, mu and sigma over all rows::

    r_t = F(min(t + D, T - 1)) - F(t)        w_t = clip((r_t - (max(mu, 0) - 2 sigma)) / (4 sigma + e), 0, 1)

for 0 <= r_t <= kappa. With mu = 2 sigma and 4 sigma + e = 1 that is w_t = r_t, so F is found backwards from the end of
each episode, F(t) = F(min(t + D, T - 1)) - w_t. It is no progress any more: it falls below 0. Mean and deviation are
brought to those values by rows behind the last frame of the dataset, which no sample ever names.

Equal to the weights within 1e-6 (the rule computes in float32), but for one frame: an episode's last has r = 0, hence
weight 0 whatever it should have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError

EPSILON = 1e-6
"""LeRobot's ``--sample_weighting.epsilon``."""
KAPPA = 1.0
"""What ``--sample_weighting.kappa`` must be: no gain is above it but one of weight 1."""
SMALLEST_CHUNK = 6
"""Chunk size from which mean and deviation can be brought to any value."""

_STD = (1 - EPSILON) / 4
_MEAN = 2 * _STD


def check_chunk(chunk: int) -> None:
    """Raise ConfigError where the policy's chunk is too short for weights in this form."""
    if chunk < SMALLEST_CHUNK:
        raise ConfigError(
            f"lerobot_chunk={chunk}: LeRobot makes these weights for chunks of {SMALLEST_CHUNK} actions and more"
        )


def progress_for_weights(weights: npt.NDArray[np.floating], chunk: int) -> npt.NDArray[np.float64]:
    """The (T,) values F of one episode from whose gains over ``chunk`` frames LeRobot makes the (T,) ``weights``."""
    length = len(weights)
    values = np.zeros(length)
    for frame in range(length - 2, -1, -1):
        values[frame] = values[min(frame + chunk, length - 1)] - weights[frame]
    return values


def balancing_progress(weights: Sequence[npt.NDArray[np.floating]], chunk: int) -> list[npt.NDArray[np.float64]]:
    """Made-up episodes, (chunk,) each, that bring mean and deviation of all gains to what the rule needs.

    Args:
        weights: (T,) of every real episode.
        chunk: actions in the policy's chunk.

    Raises:
        ConfigError: the chunk is too short for it.
    """
    check_chunk(chunk)
    # The last frame of an episode gains nothing, real or made up.
    gains = np.concatenate([np.append(np.asarray(one, np.float64)[:-1], 0.0) for one in weights])
    count, total, squares = len(gains), float(gains.sum()), float((gains**2).sum())
    episodes = 2
    while True:
        free, rows = episodes * (chunk - 1), count + episodes * chunk
        mean = (_MEAN * rows - total) / free
        variance = ((_STD**2 + _MEAN**2) * rows - squares) / free - mean**2
        if variance >= 0:
            break
        episodes += 2
    # Half of the episodes gain the one, half the other.
    reach = math.sqrt(variance)
    return [
        np.append(np.full(chunk - 1, -(mean + (reach if number % 2 else -reach))), 0.0) for number in range(episodes)
    ]
