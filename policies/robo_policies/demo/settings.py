"""Settings of ``robo-rm demo``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm demo``."""

    out: str = MISSING
    """Folder for everything the demo makes; report.html is the page to open."""
    episodes: int = 100
    """Demonstrations to record and learn from."""
    held_out: int = 40
    """Further demonstrations, recorded only to evaluate the reward model."""
    reward_steps: int | None = None
    """Training steps of the reward model; null for seven passes over the frames, about 1650 steps with 100 episodes."""
    policy_steps: int = 2000
    """Training steps of each policy."""
    rollouts: int = 100
    """Evaluation episodes of each policy, from the same random starts."""
    image_size: int = 128
    """Height and width of the recorded frames, in pixels."""
    seed: int = 0
    """Seed of everything."""
