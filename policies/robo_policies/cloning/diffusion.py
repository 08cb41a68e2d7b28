"""LeRobot's Diffusion Policy as a learner: its own network, its own files, a loss per sample.

Diffusion Policy (Chi et al., arXiv 2303.04137): the network learns to take noise out of action chunks, and acts by
starting from noise alone. With DDIM (Song et al., arXiv 2010.02502) it may skip most noise levels when it acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from robo_policies.cloning.learner import Learner, common_configuration, within_episode
from robo_policies.cloning.lerobot_versions import check_internals
from robo_policies.cloning.settings import DiffusionSettings
from robo_policies.cloning.windows import ACTION, Span

if TYPE_CHECKING:
    import torch
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig

    from robo_policies.cloning.images import Size


def diffusion_config(
    settings: DiffusionSettings, dims: Mapping[str, int], cameras: Mapping[str, Size], device: str
) -> DiffusionConfig:
    """LeRobot's configuration for ``settings``, vectors of the sizes ``dims`` and pictures of the sizes ``cameras``.

    Every setting that makes the network stands here: between 0.4.4 and 0.6 LeRobot's own defaults of the horizon, the
    normalisation layers, the encoders and their weights changed.
    """
    from lerobot.configs.types import NormalizationMode
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig

    modes = dict.fromkeys(("STATE", "ENV", "ACTION"), NormalizationMode.MIN_MAX)
    return DiffusionConfig(
        **common_configuration(settings, dims, cameras, device),
        normalization_mapping={"VISUAL": NormalizationMode.MEAN_STD, **modes},
        n_obs_steps=settings.observation_steps,
        horizon=settings.horizon,
        drop_n_last_frames=0,
        resize_shape=None,
        crop_ratio=1.0,
        crop_shape=None,
        crop_is_random=True,
        use_group_norm=True,
        use_separate_rgb_encoder_per_camera=False,
        down_dims=tuple(settings.down_dims),
        kernel_size=settings.kernel_size,
        n_groups=8,
        use_film_scale_modulation=True,
        diffusion_step_embed_dim=settings.diffusion_step_embed_dim,
        noise_scheduler_type=settings.noise_scheduler_type,
        num_train_timesteps=settings.num_train_timesteps,
        beta_schedule="squaredcos_cap_v2",
        beta_start=0.0001,
        beta_end=0.02,
        clip_sample=True,
        clip_sample_range=1.0,
        num_inference_steps=settings.num_inference_steps,
        prediction_type=settings.prediction_type,
        spatial_softmax_num_keypoints=settings.keypoints,
        # What lies past the end of an episode was never demonstrated, so it trains nothing.
        do_mask_loss_for_padding=True,
    )


class DiffusionLearner(Learner):
    """LeRobot's diffusion network with a loss per sample.

    Args:
        settings: the shape of the network.
        dims: key -> D for the observation keys and the action.
        cameras: key -> (height, width) of the pictures.
        device: "cpu" or "cuda".
    """

    def __init__(
        self,
        settings: DiffusionSettings,
        dims: Mapping[str, int],
        cameras: Mapping[str, Size] | None = None,
        device: str = "cpu",
    ) -> None:
        config = diffusion_config(settings, dims, cameras or {}, device)
        from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

        self.policy = DiffusionPolicy(config).to(device)
        check_internals(self.policy, "diffusion")
        self.span = Span(settings.chunk_size, settings.past, stacked=True, bounded=True)

    @property
    def network(self) -> torch.nn.Module:
        """What is trained."""
        return self.policy.diffusion

    def losses(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of each sample, (B,) float32.

        The squared error of the noise (or of the actions) at one random noise level a sample, over the actions inside
        the episode. The same rule on every version of LeRobot: see `within_episode`.
        """
        import torch

        diffusion, config = self.policy.diffusion, self.policy.config
        actions = batch[ACTION]
        condition = diffusion._prepare_global_conditioning(_with_pictures(batch, config.image_features))
        noise = torch.randn(actions.shape, device=actions.device)
        levels = torch.randint(0, config.num_train_timesteps, (len(actions),), device=actions.device)
        noisy = diffusion.noise_scheduler.add_noise(actions, noise, levels)
        predicted = diffusion.unet(noisy, levels, global_cond=condition).float()
        target = noise if config.prediction_type == "epsilon" else actions
        return within_episode((predicted - target).square(), batch["action_is_pad"])


def _with_pictures(batch: Mapping[str, torch.Tensor], cameras: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The batch with all cameras in one tensor, (B, n, cameras, 3, H, W), as LeRobot's network takes them."""
    import torch

    pictures = {"observation.images": torch.stack([batch[key] for key in cameras], -4)} if cameras else {}
    return {**batch, **pictures}
