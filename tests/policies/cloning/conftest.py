from __future__ import annotations

import numpy as np
import pytest

from robo_datasets import DemoStore
from robo_policies.cloning.settings import ActSettings, DiffusionSettings
from robo_rm.training.budget import Budget

CAMERAS = ("observation.images.front", "observation.images.wrist")


def draw(place: np.ndarray, goal: np.ndarray, size: tuple[int, int] = (72, 96)) -> np.ndarray:
    """A picture of the toy task: where the point is, and its goal."""
    image = np.full((*size, 3), 40, np.uint8)
    for where, channel in ((place, 0), (goal, 1)):
        row, column = (np.clip((where + 1) / 2, 0, 1) * (np.array(size) - 8)).astype(int)
        image[row : row + 8, column : column + 8, channel] = 250
    return image


@pytest.fixture(scope="session")
def picture_store(point_store, tmp_path_factory) -> DemoStore:
    """The toy demonstrations, the goal to be seen from two cameras (one upside down) instead of known."""
    features = {key: point_store.features[key] for key in ("observation.state", "action")}
    features |= {key: {"shape": (72, 96, 3), "dtype": "uint8"} for key in CAMERAS}
    store = DemoStore.create(tmp_path_factory.mktemp("stores") / "pictures.zarr", features, fps=10)
    for number in range(8):
        demo = point_store[number]
        states, goals = demo["observation.state"][:], demo["observation.environment_state"][:, :2]
        frames = np.stack([draw(*pair) for pair in zip(states, goals, strict=True)])
        with store.writer(task=demo.task, success=demo.success) as episode:
            episode.extend(
                {
                    "observation.state": states,
                    "action": demo["action"][:],
                    CAMERAS[0]: frames,
                    CAMERAS[1]: frames[:, ::-1],
                }
            )
    return store


@pytest.fixture(scope="session")
def tiny_diffusion() -> DiffusionSettings:
    return DiffusionSettings(
        chunk_size=8, execution_horizon=3, down_dims=[32, 64], diffusion_step_embed_dim=16, num_inference_steps=5
    )


@pytest.fixture(scope="session")
def small_pictures() -> dict[str, ActSettings | DiffusionSettings]:
    """Policies that look at pictures, as small as they come."""
    return {
        "act": ActSettings(
            chunk_size=4, execution_horizon=2, dim_model=16, n_heads=2, dim_feedforward=32, n_encoder_layers=1,
            image_size=[64, 96], shift=3,
        ),
        "diffusion": DiffusionSettings(
            chunk_size=4, execution_horizon=2, down_dims=[16, 16], diffusion_step_embed_dim=8, num_inference_steps=3,
            keypoints=4, image_size=[64, 96],
        ),
    }  # fmt: skip


@pytest.fixture(scope="session")
def diffusion_policy(point_store, tiny_diffusion, quick, tmp_path_factory):
    """The toy task, learned by a diffusion policy: what training returned."""
    from robo_policies import train_policy

    out = tmp_path_factory.mktemp("policies") / "diffusion"
    return train_policy(point_store, out, Budget(500), tiny_diffusion, training=quick)
