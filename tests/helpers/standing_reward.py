"""A reward model whose progress stops half way."""

from __future__ import annotations

import numpy as np

from robo_rm.reward_models.prediction import Estimate


class Stream:
    def __init__(self, steps: list) -> None:
        self.steps = steps

    def step(self, frames, state=None) -> Estimate:
        self.steps.append(int(frames["observation.images.front"][0, 0, 0]))
        return Estimate(min(len(self.steps) / 40, 0.5), np.array([0.2, 0.8], np.float32), 0.1)


class Reward:
    """A reward model of 20 frames a second that stops rising half way."""

    stages, cameras, state_key = ["reach", "grasp"], ["observation.images.front"], None
    provenance = {"fps": 20.0}  # noqa: RUF012 - as the protocol has it

    def __init__(self) -> None:
        self.steps: list[int] = []

    def stream(self, task=None) -> Stream:
        return Stream(self.steps)
