"""A tiny world for tests: move a point to the goal on a line; gold 1 and the end when it gets there."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class LineWorld(gymnasium.Env[Any, Any]):
    """State (2,): place and goal, both in [-1, 1]. Action (1,): velocity. ``info`` tells the true progress."""

    name, fps, stages, task = "line", 10, ("reach",), "reach the goal"

    def __init__(self, max_steps: int = 40) -> None:
        self.max_steps = max_steps
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)
        self.observation_space = spaces.Dict({"observation.state": spaces.Box(-2, 2, (2,), np.float32)})

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.goal = float(self.np_random.choice([-1.0, 1.0]) * self.np_random.uniform(0.6, 1.0))
        self.place, self.steps = 0.0, 0
        return self._seen()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = float(np.clip(self.place + 0.05 * float(np.asarray(action)[0]), -1.2, 1.2))
        self.steps += 1
        done = abs(self.place - self.goal) < 0.05
        observation, info = self._seen()
        return observation, float(done), done, not done and self.steps >= self.max_steps, info

    def _seen(self) -> tuple[Any, dict[str, Any]]:
        progress = 1 - min(1.0, abs(self.place - self.goal) / abs(self.goal))
        state = np.array([self.place, self.goal], dtype=np.float32)
        return {"observation.state": state}, {"progress": progress, "success": progress > 0.95}
