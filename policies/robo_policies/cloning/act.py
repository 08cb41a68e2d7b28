"""LeRobot's ACT as a learner: its own network, its own files, a loss per sample.

Action Chunking with Transformers (Zhao et al., arXiv 2304.13705): from one observation the network predicts the next H
actions at once. The network, its configuration and the pre- and post-processors are LeRobot's; what is ours is the
loss per sample, which weighting needs, and the settings for vectors and for pictures without pretrained weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from robo_policies.cloning.learner import Learner, common_configuration, within_episode
from robo_policies.cloning.lerobot_versions import check_internals
from robo_policies.cloning.settings import ActSettings
from robo_policies.cloning.windows import ACTION, STATE, Span

if TYPE_CHECKING:
    import torch
    from lerobot.policies.act.configuration_act import ACTConfig

    from robo_policies.cloning.images import Size


def act_config(settings: ActSettings, dims: Mapping[str, int], cameras: Mapping[str, Size], device: str) -> ACTConfig:
    """LeRobot's configuration for ``settings``, vectors of the sizes ``dims`` and pictures of the sizes ``cameras``.

    Every setting that makes the network stands here: LeRobot's defaults change between its versions.
    """
    from lerobot.configs.types import NormalizationMode
    from lerobot.policies.act.configuration_act import ACTConfig

    return ACTConfig(
        **common_configuration(settings, dims, cameras, device),
        # LeRobot's default leaves the environment state as it is, in whatever units it has.
        normalization_mapping=dict.fromkeys(("VISUAL", "STATE", "ENV", "ACTION"), NormalizationMode.MEAN_STD),
        n_obs_steps=1,
        chunk_size=settings.chunk_size,
        replace_final_stride_with_dilation=0,
        pre_norm=False,
        feedforward_activation="relu",
        temporal_ensemble_coeff=None,
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
    )


class ActLearner(Learner):
    """LeRobot's ACT network with a loss per sample.

    Args:
        settings: the shape of the network.
        dims: key -> D for the observation keys and the action.
        cameras: key -> (height, width) of the pictures.
        device: "cpu" or "cuda".
    """

    def __init__(
        self,
        settings: ActSettings,
        dims: Mapping[str, int],
        cameras: Mapping[str, Size] | None = None,
        device: str = "cpu",
    ) -> None:
        config = act_config(settings, dims, cameras or {}, device)
        from lerobot.policies.act.modeling_act import ACTPolicy

        self.policy = ACTPolicy(config).to(device)
        check_internals(self.policy, "act")
        self.span = Span(settings.chunk_size)
        if cameras:
            import torch

            self.policy.model.backbone.to(memory_format=torch.channels_last)

    @property
    def network(self) -> torch.nn.Module:
        """What is trained."""
        return self.policy.model

    def losses(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of each sample, (B,) float32.

        L1 over the actions inside the episode and the joints, plus ``kl_weight`` times the divergence of the latent
        (ACT, equation 3). The same rule on every version of LeRobot: see `within_episode`.
        """
        actions, (mean, log_variance) = self.network(self._with_pictures(batch))
        losses = within_episode((actions.float() - batch[ACTION]).abs(), batch["action_is_pad"])
        if mean is not None:
            mean, log_variance = mean.float(), log_variance.float()
            divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(-1)
            losses = losses + self.policy.config.kl_weight * divergence
        return losses

    def _with_pictures(self, batch: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        cameras = self.policy.config.image_features
        pictures = {"observation.images": [batch[key] for key in cameras]} if cameras else {}
        return with_a_state({**batch, **pictures})


def with_a_state(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with an empty state where there is none.

    LeRobot's network asks the state for its device even where its configuration has no state.
    """
    if STATE in batch:
        return batch
    any_of = next(value for value in batch.values() if hasattr(value, "device"))
    return {**batch, STATE: any_of.new_zeros(len(any_of), 0)}
