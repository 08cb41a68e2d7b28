"""A toy task for policies: a point that has to come to a goal, with a store of demonstrations of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from robo_datasets import DemoStore
from robo_policies.cloning.settings import ActSettings, CloningSettings
from robo_rm.training.budget import Budget

FEATURES: dict[str, dict[str, Any]] = {
    "observation.state": {"shape": (2,), "dtype": "float32"},
    "observation.environment_state": {"shape": (3,), "dtype": "float32"},
    "action": {"shape": (2,), "dtype": "float32"},
}


class PointEnv(gymnasium.Env):
    """The action is where the point should be next; it succeeds within 0.2 of the goal, or is cut off at 40 steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own convention
    render_mode = "rgb_array"
    name = "point"
    stages = ("far", "near")
    fps = 10

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            {
                key: spaces.Box(-np.inf, np.inf, FEATURES[key]["shape"], np.float32)
                for key in FEATURES
                if key != "action"
            }
        )
        self.action_space = spaces.Box(-2, 2, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.goal = self.np_random.uniform(-1, 1, (2, 2)).astype(np.float32)
        self.steps = 0
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        way = np.asarray(action, np.float32) - self.place
        self.place = self.place + way * min(1.0, 0.3 / (float(np.linalg.norm(way)) + 1e-9))
        self.steps += 1
        info = self._info()
        return self._observation(), float(info["success"]), info["success"], self.steps >= 40, info

    def render(self) -> np.ndarray:
        image = np.zeros((32, 32, 3), np.uint8)
        x, y = np.clip((self.place + 1) * 16, 0, 31).astype(int)
        image[y, x] = 255
        return image

    def _observation(self) -> dict[str, np.ndarray]:
        constant = np.float32(0.25)  # a dimension that never moves
        return {
            "observation.state": self.place.copy(),
            "observation.environment_state": np.append(self.goal, constant).astype(np.float32),
        }

    def _info(self) -> dict[str, Any]:
        left = float(np.linalg.norm(self.goal - self.place))
        return {"success": left < 0.2, "stage": int(left < 0.4), "progress": max(0.0, 1 - left / 3)}


def point_episode(seed: int, good: bool = True) -> tuple[dict[str, np.ndarray], bool]:
    """One demonstration: towards the goal, or (``good`` false) always away from it."""
    env = PointEnv()
    observation, info = env.reset(seed=seed)
    rows: dict[str, list[np.ndarray]] = {key: [] for key in FEATURES}
    for _ in range(16):
        way = env.goal - env.place if good else env.place - env.goal
        action = env.place + 0.2 * way / (np.linalg.norm(way) + 1e-6)
        for key, value in {**observation, "action": action}.items():
            rows[key].append(value)
        observation, _, _, _, info = env.step(action)
        if info["progress"] > 0.98:
            break
    return {key: np.stack(values).astype(np.float32) for key, values in rows.items()}, bool(info["success"])


def fill(store: DemoStore, seeds: range, good: bool = True) -> list[str]:
    """Append demonstrations; returns their UUIDs."""
    uuids = []
    for seed in seeds:
        arrays, success = point_episode(seed, good)
        with store.writer(task="go to the goal", success=success) as episode:
            episode.extend(arrays)
        uuids.append(episode.uuid)
    return uuids


@pytest.fixture(scope="session")
def point_env() -> type[PointEnv]:
    return PointEnv


@pytest.fixture(scope="session")
def point_store(tmp_path_factory: pytest.TempPathFactory) -> DemoStore:
    """24 good demonstrations; shared, so nothing may be added to it."""
    store = DemoStore.create(tmp_path_factory.mktemp("stores") / "point.zarr", features=FEATURES, fps=10)
    fill(store, range(24))
    return store


@pytest.fixture
def new_store(tmp_path: Path) -> Callable[..., DemoStore]:
    """Make a store of ``good`` and ``bad`` demonstrations."""

    def make(good: int = 4, bad: int = 0, name: str = "demos.zarr") -> DemoStore:
        store = DemoStore.create(tmp_path / name, features=FEATURES, fps=10)
        fill(store, range(good))
        fill(store, range(100, 100 + bad), good=False)
        return store

    return make


@pytest.fixture(scope="session")
def tiny_act() -> ActSettings:
    """An ACT that trains a step in milliseconds, with every part of it switched on."""
    return ActSettings(
        chunk_size=5, execution_horizon=3, dim_model=32, n_heads=2, dim_feedforward=64, n_encoder_layers=1,
        n_decoder_layers=1, use_vae=True, n_vae_encoder_layers=1, latent_dim=4, dropout=0.1,
    )  # fmt: skip


@pytest.fixture(scope="session")
def quick() -> CloningSettings:
    return CloningSettings(batch_size=32, learning_rate=2e-3, precision="fp32", ema_decay=0.98)


@pytest.fixture(scope="session")
def point_policy(point_store, tiny_act, quick, tmp_path_factory):
    """The toy task, learned: (policy, what training returned)."""
    from robo_policies import train_policy

    out = tmp_path_factory.mktemp("policies") / "point"
    return train_policy(point_store, out, Budget(400), tiny_act, training=quick)
