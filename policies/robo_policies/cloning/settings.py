"""The settings of policies, their training and their execution: typed, checked, and light to import."""

from __future__ import annotations

from dataclasses import dataclass

from robo_datasets.errors import ConfigError

WEIGHT_MODES = ("none", "rabc", "success_only")
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class ActSettings:
    """The shape of the network; the defaults train in minutes on one core."""

    name: str = "act"
    """Which policy; act is LeRobot's Action Chunking Transformer."""
    chunk_size: int = 20
    """Actions predicted from one observation."""
    execution_horizon: int = 5
    """Actions of a chunk that are carried out before the next observation is used; at most chunk_size."""
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
    """Encode the true actions into a latent while training, so that several ways of doing a thing can be told apart."""
    n_vae_encoder_layers: int = 2
    """Layers of that encoder."""
    latent_dim: int = 16
    """Size of the latent."""
    kl_weight: float = 10.0
    """Weight of the latent's divergence from a normal distribution."""
    dropout: float = 0.0
    """Share of activations dropped while training."""

    def validate(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: a setting is out of range.
        """
        for key in (
            "chunk_size", "execution_horizon", "dim_model", "n_heads", "dim_feedforward", "n_encoder_layers",
            "n_decoder_layers", "n_vae_encoder_layers", "latent_dim",
        ):  # fmt: skip
            if getattr(self, key) < 1:
                raise ConfigError(f"policy.{key}={getattr(self, key)} must be at least 1")
        if self.execution_horizon > self.chunk_size:
            raise ConfigError(
                f"policy.execution_horizon={self.execution_horizon} is more than policy.chunk_size={self.chunk_size}"
            )
        if self.dim_model % (2 * self.n_heads):
            raise ConfigError(
                f"policy.dim_model={self.dim_model} must be a multiple of twice policy.n_heads={self.n_heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"policy.dropout={self.dropout} must be in [0, 1)")
        if self.kl_weight < 0:
            raise ConfigError(f"policy.kl_weight={self.kl_weight} must not be negative")


@dataclass(frozen=True)
class WeightSettings:
    """Where the weight of each training sample comes from."""

    mode: str = "none"
    """none: every frame counts the same; rabc: the weights in the store; success_only: successful episodes only."""
    name: str = "weights"
    """Which derived data of the store to read with mode=rabc; `robo-rm score` writes "weights"."""

    def validate(self) -> None:
        """Check the mode.

        Raises:
            ConfigError: it does not exist.
        """
        if self.mode not in WEIGHT_MODES:
            raise ConfigError(f"weights.mode={self.mode!r} does not exist; choose one of {', '.join(WEIGHT_MODES)}")


@dataclass(frozen=True)
class Budget:
    """How long to train: a number of steps, or a time."""

    steps: int
    """Training steps."""
    minutes: float | None = None
    """Where given, train for this long instead; the result then depends on the machine's speed."""

    def validate(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: steps or minutes is not above zero.
        """
        if self.steps < 1:
            raise ConfigError(f"steps={self.steps} must be at least 1")
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigError(f"minutes={self.minutes} must be above 0")

    @property
    def total(self) -> float:
        """Steps, or seconds where minutes is given."""
        return self.steps if self.minutes is None else 60 * self.minutes


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
    """Largest norm of the gradient; longer ones are shortened to it."""
    ema_decay: float = 0.998
    """Decay per step of the moving average of the weights, which is what gets saved; 0 saves the last weights."""
    precision: str = "auto"
    """fp32, bf16, or auto: bf16 where the processor computes in it, else fp32."""
    checkpoint_seconds: float = 30.0
    """How often the state of training is written, so that an interrupted run can go on."""

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
        if self.weight_decay < 0:
            raise ConfigError(f"training.weight_decay={self.weight_decay} must not be negative")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"training.precision={self.precision!r} is not known; use {', '.join(PRECISIONS)}")


@dataclass(frozen=True)
class Execution:
    """How chunks are carried out."""

    horizon: int | None = None
    """Actions of a chunk before asking again; None for what the policy was saved with."""
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
