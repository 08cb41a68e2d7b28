"""The settings of policies, their training and their execution: typed, checked, and light to import."""

from __future__ import annotations

from dataclasses import dataclass, field

from robo_core.errors import ConfigError

WEIGHT_MODES = ("none", "rabc", "success_only")
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class PolicySettings:
    """What all policies have: how many actions they predict, and which cameras they use."""

    name: str = ""
    """Which policy."""
    chunk_size: int = 20
    """Actions predicted from one observation; the first is to be executed now."""
    execution_horizon: int = 5
    """Actions of a chunk that are executed before the next observation is used; at most chunk_size."""
    cameras: list[str] | None = None
    """Cameras to use, such as [front,wrist]; [] for none. By default none if the store has
    observation.environment_state, which is more informative; else all of them."""
    image_size: list[int] | None = None
    """[height, width] to which images are scaled. By default the shorter side becomes 96 pixels, or stays if
    smaller."""
    shift: int = 4
    """Maximum random shift of training images in pixels, with the border repeated; 0 for none."""

    @property
    def past(self) -> int:
        """Observations before the present one that the policy takes."""
        return 0

    def validate(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: a setting is out of range.
        """
        self._at_least_one("chunk_size", "execution_horizon")
        if self.execution_horizon > self.chunk_size:
            raise ConfigError(
                f"policy.execution_horizon={self.execution_horizon} is more than policy.chunk_size={self.chunk_size}"
            )
        if self.image_size is not None and (len(self.image_size) != 2 or min(self.image_size) < 32):
            raise ConfigError(f"policy.image_size={self.image_size}: give [height,width], each 32 pixels at least")
        if self.shift < 0:
            raise ConfigError(f"policy.shift={self.shift} must not be negative")

    def _at_least_one(self, *keys: str) -> None:
        for key in keys:
            if getattr(self, key) < 1:
                raise ConfigError(f"policy.{key}={getattr(self, key)} must be at least 1")


@dataclass(frozen=True)
class ActSettings(PolicySettings):
    """LeRobot's Action Chunking Transformer; the defaults train in minutes on one core."""

    name: str = "act"
    """Which policy; act is LeRobot's Action Chunking Transformer."""
    dim_model: int = 192
    """Width of the transformers; a multiple of n_heads."""
    n_heads: int = 4
    """Attention heads."""
    dim_feedforward: int = 768
    """Width of the feed-forward layers."""
    n_encoder_layers: int = 3
    """Layers over the observation tokens."""
    n_decoder_layers: int = 1
    """Layers over the action tokens."""
    use_vae: bool = False
    """Encode the true actions into a latent while training, which distinguishes several ways of doing a thing."""
    n_vae_encoder_layers: int = 2
    """Layers of that encoder."""
    latent_dim: int = 16
    """Size of the latent."""
    kl_weight: float = 10.0
    """Weight of the latent's divergence from a normal distribution."""
    dropout: float = 0.0
    """Fraction of activations dropped in training."""
    vision_backbone: str = "resnet18"
    """torchvision's ResNet for images, trained from scratch; one for all cameras."""

    def validate(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: a setting is out of range.
        """
        super().validate()
        self._at_least_one(
            "dim_model", "n_heads", "dim_feedforward", "n_encoder_layers", "n_decoder_layers", "n_vae_encoder_layers",
            "latent_dim",
        )  # fmt: skip
        if self.dim_model % (2 * self.n_heads):
            raise ConfigError(
                f"policy.dim_model={self.dim_model} must be a multiple of twice policy.n_heads={self.n_heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"policy.dropout={self.dropout} must be in [0, 1)")
        if self.kl_weight < 0:
            raise ConfigError(f"policy.kl_weight={self.kl_weight} must not be negative")
        check_backbone(self.vision_backbone)


@dataclass(frozen=True)
class DiffusionSettings(PolicySettings):
    """LeRobot's Diffusion Policy, a small U-Net; the defaults train in minutes on one core."""

    name: str = "diffusion"
    """Which policy; diffusion is LeRobot's Diffusion Policy."""
    observation_steps: int = 1
    """Observations that the policy takes, the present one included."""
    down_dims: list[int] = field(default_factory=lambda: [96, 192])
    """Width of the U-Net at each of its lengths; multiples of 8. LeRobot's own default is 512, 1024, 2048."""
    kernel_size: int = 3
    """Kernel of its convolutions; odd."""
    diffusion_step_embed_dim: int = 64
    """Size of the embedding of the noise level; even, at least 4."""
    noise_scheduler_type: str = "DDIM"
    """DDIM, which can skip noise levels when it acts, or DDPM."""
    num_train_timesteps: int = 100
    """Noise levels in training."""
    num_inference_steps: int = 10
    """Denoising steps when it acts; DDPM needs nearly as many as there are noise levels."""
    prediction_type: str = "epsilon"
    """What the network predicts: epsilon (the noise), or sample (the actions)."""
    vision_backbone: str = "resnet18"
    """torchvision's ResNet for images, trained from scratch; one for all cameras."""
    keypoints: int = 32
    """Key points that the network reads from each image."""

    @property
    def past(self) -> int:
        """Observations before the present one that the policy takes."""
        return self.observation_steps - 1

    @property
    def horizon(self) -> int:
        """Actions that the U-Net works on: those of the chunk, and one for each past observation."""
        return self.chunk_size + self.past

    def validate(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: a setting is out of range.
        """
        super().validate()
        self._at_least_one("observation_steps", "kernel_size", "num_inference_steps", "num_train_timesteps")
        self._at_least_one("keypoints")
        if not self.down_dims or any(width < 8 or width % 8 for width in self.down_dims):
            raise ConfigError(f"policy.down_dims={self.down_dims}: give multiples of 8, such as [96,192]")
        step = 2 ** len(self.down_dims)
        if self.horizon % step:
            fitting = max(step, step * round(self.horizon / step)) - self.past
            raise ConfigError(
                f"policy.chunk_size={self.chunk_size} and policy.observation_steps={self.observation_steps} make "
                f"{self.horizon} actions, which must be a multiple of {step} for {len(self.down_dims)} "
                f"policy.down_dims; try policy.chunk_size={fitting}"
            )
        if self.kernel_size % 2 == 0:
            raise ConfigError(f"policy.kernel_size={self.kernel_size} must be odd")
        if self.diffusion_step_embed_dim < 4 or self.diffusion_step_embed_dim % 2:
            raise ConfigError(
                f"policy.diffusion_step_embed_dim={self.diffusion_step_embed_dim} must be even, at least 4"
            )
        if self.num_inference_steps > self.num_train_timesteps:
            raise ConfigError(
                f"policy.num_inference_steps={self.num_inference_steps} is more than "
                f"policy.num_train_timesteps={self.num_train_timesteps}"
            )
        _one_of("policy.noise_scheduler_type", self.noise_scheduler_type, ("DDIM", "DDPM"))
        _one_of("policy.prediction_type", self.prediction_type, ("epsilon", "sample"))
        check_backbone(self.vision_backbone)


POLICIES: dict[str, type[PolicySettings]] = {"act": ActSettings, "diffusion": DiffusionSettings}


def check_backbone(name: str) -> None:
    """Raise ConfigError unless ``name`` is a ResNet that torchvision has."""
    _one_of("policy.vision_backbone", name, ("resnet18", "resnet34", "resnet50"))


def _one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{key}={value!r} is not known; use {', '.join(choices)}")


@dataclass(frozen=True)
class WeightSettings:
    """Where the weight of each training sample comes from."""

    mode: str = "none"
    """none: every frame counts the same; rabc: the weights in the store; success_only: successful episodes only."""
    name: str = "weights"
    """Name of the store's derived weights to read with mode=rabc; `robo-rm score` writes "weights"."""
    rescore: bool = False
    """With mode=rabc: recompute the weights if outcomes, stages, episodes or the model have changed since, instead of
    refusing them."""

    def validate(self) -> None:
        """Check the mode.

        Raises:
            ConfigError: it does not exist.
        """
        if self.mode not in WEIGHT_MODES:
            raise ConfigError(f"weights.mode={self.mode!r} does not exist; choose one of {', '.join(WEIGHT_MODES)}")


@dataclass(frozen=True)
class CloningSettings:
    """How to train."""

    batch_size: int = 64
    """Samples per step."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW; it rises over the first 3 % and falls along a cosine."""
    weight_decay: float = 1e-4
    """AdamW's weight decay."""
    gradient_clip: float = 1.0
    """Maximum norm of the gradient; larger ones are clipped."""
    ema_decay: float = 0.998
    """Decay per step of the moving average of the network's weights, which is saved; 0 saves the last weights."""
    precision: str = "auto"
    """fp32, bf16, or auto: bf16 where the processor computes in it, else fp32."""
    cache_gb: float = 2.0
    """Memory for decoded images, in GB; if they do not fit, they are decoded each time."""
    checkpoint_seconds: float = 30.0
    """Seconds between checkpoints, from which an interrupted run resumes."""

    def validate(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: a setting is out of range.
        """
        for key in ("batch_size", "learning_rate", "gradient_clip", "checkpoint_seconds"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"training.{key}={getattr(self, key)} must be above 0")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"training.ema_decay={self.ema_decay} must be in [0, 1)")
        if self.cache_gb < 0:
            raise ConfigError(f"training.cache_gb={self.cache_gb} must not be negative")
        if self.weight_decay < 0:
            raise ConfigError(f"training.weight_decay={self.weight_decay} must not be negative")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"training.precision={self.precision!r} is not known; use {', '.join(PRECISIONS)}")


@dataclass(frozen=True)
class Execution:
    """How chunks are executed."""

    horizon: int | None = None
    """Actions to execute from each chunk; null for what the policy was saved with."""
    ensemble: float | None = None
    """ACT's temporal ensembling with this coefficient (0.01 in the paper) instead of a horizon."""

    def validate(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: a setting is out of range.
        """
        if self.horizon is not None and self.horizon < 1:
            raise ConfigError(f"execution.horizon={self.horizon} must be at least 1")
        if self.ensemble is not None and self.ensemble < 0:
            raise ConfigError(f"execution.ensemble={self.ensemble} must not be negative")
