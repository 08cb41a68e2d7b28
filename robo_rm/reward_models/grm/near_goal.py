"""Tasks that end where they began: a goal image cannot tell them from tasks not begun.

Folding a cloth and laying it back, opening and closing a door, driving a round: start and goal look alike, so the
forward and the backward perspective say the same of both ends. It is found before training, from stored episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robo_rm.training.constant import mean_and_scale

# Below this the end is nearer to the start than 30 % of how far the episode goes from it. Tasks that do change the
# scene were found between .6 and 1.2, and one that runs back to its start below .05.
NEAR = 0.3
EPISODES, FRAMES, SIZE = 12, 24, (24, 32)


def start_goal_distance(episodes: Sequence[Any], cameras: Sequence[str], state_key: str | None) -> float:
    """How far the last frame lies from the first, in units of how far the episode goes from it.

    The distance is the root mean square over the pixels of small images, or over the joints in units of their spread;
    the unit is its 0.9 quantile along the episode. The camera, or the state, that tells them apart best counts; median
    over up to 12 episodes. About 1 for a task that leaves its mark, near 0 for one that ends where it began.

    Args:
        episodes: stored episodes that reached the goal.
        cameras: keys of the images the model reads.
        state_key: key of the state, or None.
    """
    found = []
    for episode in episodes[:EPISODES]:
        frames = np.unique(np.linspace(0, episode.length - 1, FRAMES).astype(np.int64))
        views = [np.asarray(episode.frames(key, frames, size=SIZE), dtype=np.float64) for key in cameras]
        if state_key is not None:
            state = np.asarray(episode[state_key][:], dtype=np.float64)[frames]
            mean, scale = mean_and_scale(state)
            views.append((state - mean) / scale)
        found.append(max(_ends_apart(view.reshape(len(frames), -1)) for view in views))
    return float(np.median(found)) if found else 1.0


def _ends_apart(view: npt.NDArray[np.float64]) -> float:
    distance = np.sqrt(np.square(view - view[:1]).mean(axis=1))
    reach = float(np.quantile(distance, 0.9))
    return float(distance[-1]) / reach if reach > 0 else 0.0
