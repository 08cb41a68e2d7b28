"""Writes small checkpoints of LeRobot's ACT and Diffusion, and the actions they give, into a folder of its version.

    python tests/policies/cloning/checkpoints/make.py

Run once for each version of LeRobot; `test_lerobot_versions.py` loads what every version wrote.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from robo_policies.cloning.learned import load_policy
from robo_policies.cloning.learners import make_learner
from robo_policies.cloning.lerobot_versions import lerobot_version
from robo_policies.cloning.settings import ActSettings, DiffusionSettings

HERE = Path(__file__).parent
DIMS = {"observation.state": 3, "observation.environment_state": 4, "action": 2}
SEEN = {"observation.state": [0.3, -0.2, 0.9], "observation.environment_state": [1.0, 0.1, -0.4, 0.6]}
SETTINGS = {
    "act": ActSettings(
        chunk_size=4, execution_horizon=2, dim_model=16, n_heads=2, dim_feedforward=16, n_encoder_layers=1,
        use_vae=True, n_vae_encoder_layers=1, latent_dim=4,
    ),
    "diffusion": DiffusionSettings(
        chunk_size=4, execution_horizon=2, down_dims=[8], diffusion_step_embed_dim=8, num_inference_steps=3
    ),
}  # fmt: skip


def statistics() -> dict[str, dict[str, np.ndarray]]:
    """Statistics of a data set that nobody has seen."""
    random = np.random.default_rng(0)
    result = {}
    for key, size in DIMS.items():
        mean, std = random.normal(size=size).astype(np.float32), random.uniform(0.5, 2, size).astype(np.float32)
        result[key] = {"mean": mean, "std": std, "min": mean - 3 * std, "max": mean + 3 * std}
    return result


def main() -> None:
    """Write the folders, and ``actions.json`` beside them."""
    actions = {}
    root = HERE / f"lerobot-{lerobot_version()}"
    for kind, settings in SETTINGS.items():
        torch.manual_seed(0)
        make_learner(settings, DIMS, {}).save(root / kind, statistics())
        seen = {key: np.array(value, np.float32) for key, value in SEEN.items()}
        actions[kind] = load_policy(root / kind, "cpu").act(seen).tolist()
        for card in (root / kind).glob("README.md"):
            card.unlink()
    (root / "actions.json").write_text(json.dumps({"observation": SEEN, "actions": actions}, indent=1) + "\n")


if __name__ == "__main__":
    main()
