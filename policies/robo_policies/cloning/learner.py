"""What training and checkpoint need of a policy, and what all of LeRobot's policies have in common here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robo_policies.cloning.settings import ActSettings, DiffusionSettings
from robo_policies.cloning.windows import ACTION, ENVIRONMENT_STATE, STATE, Span

if TYPE_CHECKING:
    import numpy as np
    import torch

    from robo_policies.cloning.images import Size


EPSILON = 1e-20
"""What LeRobot's normalisation adds to a deviation; only keeps 0 / 0 away, for a constant action."""


class Learner:
    """A policy of LeRobot's in training: its own network and files, and a loss per sample.

    Attributes:
        policy: LeRobot's.
        span: which frames a sample takes.
    """

    policy: Any
    span: Span

    @property
    def network(self) -> torch.nn.Module:
        """What is trained."""
        raise NotImplementedError

    def losses(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of each sample, (B,) float32."""
        raise NotImplementedError

    def processors(self, statistics: Mapping[str, Mapping[str, torch.Tensor]]) -> tuple[Any, ...]:
        """LeRobot's own pre- and post-processor for ``statistics``."""
        from lerobot.policies.factory import make_pre_post_processors

        processors: tuple[Any, ...] = make_pre_post_processors(self.policy.config, dataset_stats=statistics)
        for step in (step for pipeline in processors for step in pipeline.steps if hasattr(step, "eps")):
            # LeRobot divides by std + eps and multiplies by std: with its eps of 1e-8, small units would come out
            # otherwise than they were trained.
            step.eps = EPSILON
        return processors

    def save(self, folder: Path, statistics: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Write the files that LeRobot's own training writes: configuration, weights, both processors."""
        self.policy.save_pretrained(folder)
        for pipeline in self.processors(as_tensors(statistics)):
            pipeline.save_pretrained(folder)


def within_episode(error: torch.Tensor, padded: torch.Tensor) -> torch.Tensor:
    """Mean error of each sample over the actions that lie inside its episode, (B,).

    The loss of a sample does not depend on how much of its chunk is padding: sum of valid errors / valid entries.
    Weights need losses that are alike: with weights w, a batch is sum(w l) / sum(w). LeRobot's own rule is another in
    each version, and neither is used: ACT and Diffusion of 0.4.4 set the padding to 0 and take the mean over the whole
    chunk, so that the last frame of an episode, the one before success, trains at 1 / H of the others; those of 0.6
    divide the sum over the batch by its valid entries, so that a sample counts by how much of its chunk is inside.

    Args:
        error: (B, H, A) error of every action and joint.
        padded: (B, H) bool, actions past an end of the episode; one of each sample is not.
    """
    inside = (~padded).to(error.dtype)
    return (error.mean(-1) * inside).sum(-1) / inside.sum(-1).clamp(min=1)


def as_tensors(statistics: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, torch.Tensor]]:
    """Statistics as LeRobot's processors take them."""
    import torch

    return {
        key: {name: torch.from_numpy(value) for name, value in values.items()} for key, values in statistics.items()
    }


def common_configuration(
    settings: ActSettings | DiffusionSettings, dims: Mapping[str, int], cameras: Mapping[str, Size], device: str
) -> dict[str, Any]:
    """What the configurations of LeRobot's own policies have in common: what goes in and out, and where it runs."""
    from lerobot.configs.types import FeatureType, PolicyFeature

    kinds = {STATE: FeatureType.STATE, ENVIRONMENT_STATE: FeatureType.ENV}
    vectors = {key: PolicyFeature(kinds[key], (dims[key],)) for key in kinds if key in dims}
    pictures = {key: PolicyFeature(FeatureType.VISUAL, (3, *size)) for key, size in cameras.items()}
    return {
        "input_features": vectors | pictures,
        "output_features": {ACTION: PolicyFeature(FeatureType.ACTION, (dims[ACTION],))},
        "n_action_steps": settings.execution_horizon,
        "vision_backbone": settings.vision_backbone,
        # Nothing is fetched: backbones are trained from scratch.
        "pretrained_backbone_weights": None,
        "device": device,
        "push_to_hub": False,
    }
