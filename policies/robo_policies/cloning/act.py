"""LeRobot's ACT as a learner: its own network, its own files, a loss per sample.

Action Chunking with Transformers (Zhao et al., arXiv 2304.13705): from one observation the network predicts the next H
actions at once. The network, its configuration and the pre- and post-processors are LeRobot's; what is ours is the
loss per sample, which weighting needs, and the settings for vectors instead of pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robo_datasets.errors import MissingPartError
from robo_policies.cloning.settings import ActSettings
from robo_policies.cloning.windows import ACTION, ENVIRONMENT_STATE, STATE

if TYPE_CHECKING:
    import numpy as np
    import torch
    from lerobot.policies.act.configuration_act import ACTConfig


def act_config(settings: ActSettings, dims: Mapping[str, int], device: str) -> ACTConfig:
    """LeRobot's configuration for ``settings`` on vectors of the sizes ``dims`` (key -> D).

    Raises:
        MissingPartError: LeRobot is not installed.
    """
    try:
        from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
        from lerobot.policies.act.configuration_act import ACTConfig
    except ImportError as error:
        raise MissingPartError(
            f"LeRobot is needed for this policy ({error}); pip install 'robo-rm[lerobot]'"
        ) from error

    kinds = {STATE: FeatureType.STATE, ENVIRONMENT_STATE: FeatureType.ENV}
    return ACTConfig(
        input_features={key: PolicyFeature(kinds[key], (dims[key],)) for key in kinds},
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (dims[ACTION],))},
        # LeRobot's default leaves the environment state as it is, in whatever units it has.
        normalization_mapping=dict.fromkeys(("VISUAL", "STATE", "ENV", "ACTION"), NormalizationMode.MEAN_STD),
        chunk_size=settings.chunk_size,
        n_action_steps=settings.execution_horizon,
        dim_model=settings.dim_model,
        n_heads=settings.n_heads,
        dim_feedforward=settings.dim_feedforward,
        n_encoder_layers=settings.n_encoder_layers,
        n_decoder_layers=settings.n_decoder_layers,
        use_vae=settings.use_vae,
        n_vae_encoder_layers=settings.n_vae_encoder_layers,
        latent_dim=settings.latent_dim,
        kl_weight=settings.kl_weight,
        dropout=settings.dropout,
        device=device,
        push_to_hub=False,
    )


class ActLearner:
    """LeRobot's ACT network with a loss per sample.

    Args:
        settings: the shape of the network.
        dims: key -> D for the observation keys and the action.
        device: "cpu" or "cuda".
    """

    def __init__(self, settings: ActSettings, dims: Mapping[str, int], device: str = "cpu") -> None:
        config = act_config(settings, dims, device)
        from lerobot.policies.act.modeling_act import ACTPolicy

        self.policy = ACTPolicy(config).to(device)

    @property
    def network(self) -> torch.nn.Module:
        """What is trained."""
        return self.policy.model

    def losses(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of each sample, (B,) float32: LeRobot's own before it takes the mean.

        Masked L1 over chunk and joints, plus ``kl_weight`` times the divergence of the latent (ACT, equation 3).
        """
        actions, (mean, log_variance) = self.policy.model(dict(batch))
        error = (actions.float() - batch[ACTION]).abs() * ~batch["action_is_pad"][..., None]
        losses = error.mean((1, 2))
        if mean is not None:
            mean, log_variance = mean.float(), log_variance.float()
            divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(-1)
            losses = losses + self.policy.config.kl_weight * divergence
        return losses

    def save(self, folder: Path, statistics: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Write the files that LeRobot's own training writes: configuration, weights, both processors."""
        import torch
        from lerobot.policies.act.processor_act import make_act_pre_post_processors

        tensors: dict[str, dict[str, Any]] = {
            key: {name: torch.from_numpy(value) for name, value in values.items()} for key, values in statistics.items()
        }
        self.policy.save_pretrained(folder)
        for pipeline in make_act_pre_post_processors(self.policy.config, tensors):
            pipeline.save_pretrained(folder)
