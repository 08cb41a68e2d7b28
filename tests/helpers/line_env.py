"""A tiny environment for tests: move a point to the goal on a line; reward 1 and the end when it gets there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from robo_core.errors import ConfigError
from robo_datasets import DemoStore


class LineEnv(gymnasium.Env[Any, Any]):
    """State (2,): place and goal, both in [-1, 1]. Action (1,): velocity. ``info`` has the true progress."""

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

    def render_cameras(self, cameras: Any) -> dict[str, np.ndarray]:
        """An image with the point and the goal as bright columns."""
        image = np.full((24, 32, 3), 40, dtype=np.uint8)
        for place, colour in ((self.goal, (40, 220, 40)), (self.place, (220, 40, 40))):
            column = round((place + 1.2) / 2.4 * 28)
            image[:, column : column + 3] = colour
        return {f"observation.images.{camera}": image for camera in cameras}


class WeatheredLine(LineEnv):
    """The same with an environment's state (2,): the weather, which changes nothing, and the distance to the goal."""

    environment_state_names = ("weather", "way")

    def __init__(self, max_steps: int = 40) -> None:
        super().__init__(max_steps)
        self.observation_space.spaces["observation.environment_state"] = spaces.Box(-9, 9, (2,), np.float32)

    def _seen(self) -> tuple[Any, dict[str, Any]]:
        observation, info = super()._seen()
        weather = float(self.np_random.uniform(-9, 9))
        observation["observation.environment_state"] = np.array([weather, self.goal - self.place], np.float32)
        return observation, info


def line_store(path: Path, episodes: int = 6, failures: int = 1, env: LineEnv | None = None) -> DemoStore:
    """Demonstrations that walk to the goal at half speed; the last ones give up half-way."""
    env = LineEnv(200) if env is None else env
    features = {
        "observation.state": {"shape": (2,), "dtype": "float32"},
        "action": {"shape": (1,), "dtype": "float32"},
        "simulator.progress": {"shape": (1,), "dtype": "float32"},
        "observation.images.front": {"shape": (24, 32, 3), "dtype": "uint8"},
    }
    if isinstance(env, WeatheredLine):
        features["observation.environment_state"] = {"shape": (2,), "dtype": "float32"}
    store = DemoStore.create(path, features=features, fps=10, stages=["reach", "arrive"])
    for number in range(episodes):
        observation, info = env.reset(seed=1000 + number)
        failed = number >= episodes - failures
        with store.writer(task=LineEnv.task, success=not failed) as episode:
            for t in range(200):
                place, goal = observation["observation.state"]
                action = np.array([0.5 * np.sign(goal - place)], dtype=np.float32)
                frame = {**observation, "action": action, "simulator.progress": [info["progress"]]}
                stage = int(info["progress"] > 0.5)
                episode.add({**frame, **env.render_cameras(["front"])}, timestamp=t / 10, stage=stage)
                if info["success"] or (failed and info["progress"] > 0.5):
                    break
                observation, _, _, _, info = env.step(action)
    return store


def line_ensemble(folder: Path) -> Path:
    """Two untrained reward models of the task as one, saved."""
    from robo_rm import load_reward_model
    from robo_rm.reward_models.baselines.ensemble import EnsembleDescription, EnsembleModel

    members = [load_reward_model(line_model(folder / f"single-{seed}", seed)) for seed in range(2)]
    EnsembleModel(members, EnsembleDescription(2, "lcb", 1.0), members[0].provenance).save(folder)
    return folder


def line_model(folder: Path, seed: int = 0) -> Path:
    """A small untrained reward model of the task, saved."""
    import torch

    from robo_rm.reward_models.stage.model import StageDescription, StageRewardModel
    from robo_rm.settings import ConvSettings, StageSettings

    torch.manual_seed(seed)
    reward = StageSettings(history=2, gap_seconds=0.4, width=16, layers=1, heads=2, dropout=0.0, use_state=False)
    described = StageDescription(
        stages=["reach", "arrive"],
        priors=[0.5, 0.5],
        cameras={"observation.images.front": (24, 32)},
        state_key=None,
        state_size=0,
        fps=10.0,
        task=LineEnv.task,
        reward=reward,
        encoder=ConvSettings(image_size=24, channels=[8, 8, 16], stem=2, dropout=0.0),
    )
    StageRewardModel(described.network(), described, {"fps": 10.0, "priors": [0.5, 0.5]}).save(folder)
    return folder


class RefusingLine(LineEnv):
    """Fails in its second step."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.steps:
            raise ConfigError("this far and no further")
        return super().step(action)
