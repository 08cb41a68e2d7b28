"""Settings of reinforcement learning: plain dataclasses, cheap to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LearningSettings:
    """The loop around the learner."""

    discount: float = 0.99
    """g for one control step; a decision of k steps is discounted by g^k."""
    repeat: int = 5
    """Control steps in a decision."""
    worlds: int = 1
    """Worlds stepped together, their images scored in one batch."""
    updates_per_decision: int = 4
    """Updates of the critics for each decision taken."""
    warmup: int = 200
    """Decisions taken before the first update: the cloned policy's, or random ones without it."""
    demonstration_share: float = 0.5
    """Share of each batch that comes from demonstrations."""
    proposal_noise: float = 0.1
    """Standard deviation of the noise on the cloned policy's actions while exploring."""
    clone_steps: int = 2000
    """Steps of cloning the demonstrated decisions, where no policy folder is given; 0 for no proposals."""
    capacity: int = 1_000_000
    """Decisions kept."""
    evaluate_every: int = 5000
    """Control steps between evaluations."""
    evaluation_episodes: int = 20
    """Episodes of an evaluation, always with the same starts."""
