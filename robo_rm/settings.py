"""Settings of the stage-aware model and its training: plain dataclasses, cheap to import."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PlanSettings:
    """How training windows walk through an episode; all 0 gives regular windows."""

    stretch: float = 0.5
    """A window's gap is multiplied by a factor drawn log-uniformly from [1 / (1 + stretch), 1 + stretch]."""
    jitter: float = 0.3
    """Each single gap is then multiplied by a factor from [1 - jitter, 1 + jitter]."""
    rewind: float = 0.3
    """Fraction of windows that turn back."""
    rewind_frames: int = 4
    """Maximum number of frames that a window goes back."""
    pause: float = 0.2
    """Fraction of windows that stand still for some slots, half of them to their end."""
    hover: float = 0.1
    """Fraction of windows that go back and forth at their end."""
    hold: float = 0.15
    """Fraction of windows that reach the episode's last frame and stay there; few others show it."""


@dataclass(frozen=True)
class ImageAugmentation:
    """Changes of appearance of training images, one draw per window and camera; all 0 changes nothing."""

    brightness: float = 0.25
    """Gain from [1 - brightness, 1 + brightness]."""
    contrast: float = 0.25
    """Contrast about the mid grey, from [1 - contrast, 1 + contrast]."""
    colour: float = 0.1
    """Gain of each colour channel, from [1 - colour, 1 + colour]."""
    gamma: float = 0.2
    """Gamma, log-uniform in [1 / (1 + gamma), 1 + gamma]."""
    shift: float = 0.06
    """Shift in both directions, as a fraction of the side."""
    zoom: float = 0.06
    """Scale from [1 - zoom, 1 + zoom]."""
    rotation: float = 3.0
    """Rotation in degrees, both ways."""


@dataclass(frozen=True)
class LossSettings:
    """Weights of the loss terms."""

    stage: float = 1.0
    """Cross-entropy of the stage."""
    within: float = 2.0
    """Squared error of the progress within the true stage."""
    progress: float = 10.0
    """Squared error of the composed progress."""
    unfinished: float = 0.0
    """Weight of frames in unfinished segments, whose target is the start of their stage; frames of finished ones have
    weight 1. At 0 they teach nothing, because progress within them is unknown. Above 0 the progress within a stage is
    multiplied by how often the stage is finished from there: a value rather than a measurement, for a learner whose
    failures resemble progress."""
    lipschitz: float = 0.0
    """Penalty on slopes of the progress above `slope`, over the tokens between two training windows; 0 for none."""
    slope: float = 1.0
    """Slope that costs nothing."""


@dataclass(frozen=True)
class ConvSettings:
    """The convolutional image encoder, trained from scratch with the model."""

    name: str = "conv"
    """Which encoder this is."""
    image_size: int = 96
    """Pixels to which the shorter side of an image is scaled; never enlarged."""
    channels: list[int] = field(default_factory=lambda: [32, 64, 128])
    """Channels of the convolutions; each but the first halves the image."""
    stem: int = 4
    """Stride of the first convolution, an even number."""
    dropout: float = 0.1
    """Dropout of the last features, before they become a token."""
    change: bool = True
    """Also input where the image differs from the episode's first one."""


@dataclass(frozen=True)
class FrozenSettings:
    """A pretrained image encoder that stays as it is; only what reads its features is trained."""

    name: str = "clip"
    """Which family: clip, siglip or dinov2."""
    source: str = "openai/clip-vit-base-patch32"
    """Folder with config.json and model.safetensors, or a name on the Hugging Face hub."""
    text: bool = False
    """Read the instruction with the encoder's text tower (clip and siglip) instead of hashed words."""
    dropout: float = 0.1
    """Dropout of the features, before they become a token."""
    change: bool = True
    """Also input how far the features differ from those of the episode's first frame."""


ENCODERS: dict[str, type] = {
    "conv": ConvSettings,
    "clip": FrozenSettings,
    "siglip": FrozenSettings,
    "dinov2": FrozenSettings,
}
"""Settings of each image encoder, by its name."""


@dataclass(frozen=True)
class StageSettings:
    """The stage-aware model."""

    name: str = "stage"
    """Which reward model this is."""
    history: int = 8
    """Past frames in the input, in addition to the newest and the episode's first."""
    gap_seconds: float = 0.5
    """Seconds between neighbouring frames of the input."""
    width: int = 128
    """Embedding dimension."""
    layers: int = 2
    """Transformer layers."""
    heads: int = 4
    """Attention heads."""
    dropout: float = 0.1
    """Dropout in the transformer."""
    sparse: list[list[int]] | None = None
    """Coarser stages that a second pair of heads learns at the same time, as groups of the store's stages:
    [[0,1],[2,3]]; [[]] is the whole task. Use them with head=sparse."""
    composition: str = "expectation"
    """How stages make progress: expectation over stages, or argmax (the most probable stage alone)."""
    use_state: bool = True
    """Read observation.state if the store has it."""
    state_dropout: float = 0.2
    """Fraction of training windows in which the state is hidden."""
    state_noise: float = 0.05
    """Noise on the state in training, in units of its standard deviation."""
    state_offset: float = 1.0
    """Offset of each joint, drawn once per training window, in units of its standard deviation."""
    image_dropout: float = 0.3
    """Fraction of training windows in which the images are hidden."""
    text: str = "words"
    """How instructions are read: `words` (hashed words, and characters where a script has no spaces), or a folder with
    a sentence encoder of transformers, which knows what words mean."""
    instruction_dropout: float = 0.1
    """Fraction of training windows in which the instruction is hidden."""
    instruction_mismatch: float = 0.1
    """Fraction of training windows with a wrong instruction, another task's or random words; their progress is 0.
    Phrasings of the same task (`robo-rm instructions`) are not wrong."""
    teacher_forcing: float = 0.5
    """Fraction of training windows in which the within-stage head gets the true stage (teacher forcing)."""
    plan: PlanSettings = field(default_factory=PlanSettings)
    """How training windows walk through an episode."""
    augmentation: ImageAugmentation = field(default_factory=ImageAugmentation)
    """Changes of appearance in training."""
    loss: LossSettings = field(default_factory=LossSettings)
    """Weights of the losses."""


@dataclass(frozen=True)
class OptimiserSettings:
    """AdamW with a short warm-up and a cosine to nothing over the steps."""

    batch: int = 16
    """Windows in a step."""
    learning_rate: float = 1e-3
    """Peak rate."""
    weight_decay: float = 0.05
    """On matrices and kernels."""
    warmup: int = 50
    """Steps of warm-up."""
    average: float = 0.99
    """Decay of the running average of the weights, which is what is saved."""
