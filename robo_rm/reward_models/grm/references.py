"""What the start and the goal of a task look like: moments of training demonstrations, kept with the weights.

They never come from the episode that is judged: its goal is not known before it is over, and its first frame may lie
anywhere on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from robo_rm.reward_models.frames import Size, with_change
from robo_rm.reward_models.grm.labels import Truth


class References(nn.Module):
    """R pairs of moments, those of each task one after the other; nothing in it is trained.

    Buffers: ``images_0``, ``images_1``, ... (2R, h, w, C) uint8, one for each camera, of 3 channels, or of 6 where the
    change since the first frame of the same episode is shown; and, where the model reads a state, ``state`` (2R, D_s)
    and ``first`` (2R, D_s), the state at that first frame. The R starts come before the R goals.
    """

    state: torch.Tensor
    first: torch.Tensor

    def __init__(self, cameras: Mapping[str, Size], state_size: int, count: int, change: bool = False) -> None:
        super().__init__()
        self.cameras, self.count, self.has_state, self.change = list(cameras), count, bool(state_size), change
        channels = 6 if change else 3
        for number, (height, width) in enumerate(cameras.values()):
            self.register_buffer(f"images_{number}", torch.zeros(2 * count, height, width, channels, dtype=torch.uint8))
        if state_size:
            self.register_buffer("state", torch.zeros(2 * count, state_size))
            self.register_buffer("first", torch.zeros(2 * count, state_size))

    def images(self, key: str) -> torch.Tensor:
        """(2R, h, w, C) uint8 of a camera."""
        images: torch.Tensor = getattr(self, f"images_{self.cameras.index(key)}")
        return images

    def fill(self, places: Sequence[int], truths: Sequence[Truth], data: Any) -> None:
        """Take the start and the goal of the episodes at ``places`` of the training data."""
        moments = [[reference_frames(truths[place])[moment] for place in places] for moment in (0, 1)]
        pairs = [(place, frame) for row in moments for place, frame in zip(places, row, strict=True)]
        for key in self.cameras:
            shown = []
            for place, frame in pairs:
                rows = data.reader.read(place, key, np.array([0, frame], dtype=np.int64))
                shown.append((with_change(rows[1:], rows[:1]) if self.change else rows[1:])[0])
            self.images(key).copy_(torch.from_numpy(np.stack(shown)))
        if self.has_state:
            self.state.copy_(torch.from_numpy(np.stack([data.states[place][frame] for place, frame in pairs])))
            self.first.copy_(torch.from_numpy(np.stack([data.states[place][0] for place, _ in pairs])))


def reference_frames(truth: Truth) -> tuple[int, int]:
    """(start, goal) frames of an episode that reached the goal: the first and the last of which anything is known."""
    known = truth.known
    return int(known[0]), int(known[-1])


def choose_references(tasks: Sequence[str], reached: Sequence[int], count: int, seed: int) -> dict[str, list[int]]:
    """For each task up to ``count`` of the episodes that reached the goal, drawn at random.

    Args:
        tasks: of all episodes.
        reached: places of the episodes that reached the goal.
        count: most for a task.
        seed: of the draw.
    """
    by_task: dict[str, list[int]] = {}
    for place in np.random.default_rng((seed, 17)).permutation(np.asarray(reached, dtype=np.int64)).tolist():
        by_task.setdefault(tasks[place], []).append(place)
    return {task: sorted(by_task[task][:count]) for task in sorted(by_task)}
