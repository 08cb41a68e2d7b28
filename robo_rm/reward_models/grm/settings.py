"""Settings of the hop model: plain dataclasses, cheap to import."""

from __future__ import annotations

from dataclasses import dataclass, field

from robo_core.errors import ConfigError
from robo_rm.settings import ImageAugmentation

FUSIONS = ("incremental", "forward", "backward", "mean", "gated")
PROGRESSES = ("auto", "stages", "keyframes", "time")
NEAR_GOAL = ("warn", "refuse", "ignore")


@dataclass(frozen=True)
class HopPlan:
    """Which pairs of moments are trained on."""

    value_bins: int = 25
    """Bins of the hop's value over [-1, 1], drawn evenly."""
    gap_bins: int = 4
    """Bins of the time between the two moments, drawn evenly; each reaches three times as far as the one before."""
    zero: float = 0.05
    """Fraction of hops from a frame to itself."""
    negatives: float = 0.15
    """Fraction of hops that end where a failed episode stood still or gave up."""
    exchange: float = 0.75
    """Fraction of hops whose start and goal images come from another episode of the same task."""
    elsewhere: float = 0.0
    """Fraction of hops whose episode begins at another frame than its first, as if it were followed from midway on.
    At 0.1 the model can read clips that start anywhere or run backwards, but distinguishes a task from its reverse
    less well."""


@dataclass(frozen=True)
class HopLoss:
    """Weights of the loss terms."""

    distribution: float = 1.0
    """Cross-entropy of the hop's distribution."""
    value: float = 10.0
    """Squared error of the expected hop."""
    stage: float = 1.0
    """Cross-entropy of the stage, if there are stage labels; with 0 the stage follows from progress."""


@dataclass(frozen=True)
class HopAdaptation:
    """How a model that training starts from (init=MODEL) is changed."""

    encoder_rate: float = 0.09
    """Learning rate of the encoders taken over, as a fraction of optimiser.learning_rate; 0 freezes them."""
    head_rate: float = 0.25
    """The same for the rest of the network."""


@dataclass(frozen=True)
class HopSettings:
    """The hop model."""

    name: str = "hop"
    """Which reward model this is."""
    hops: int = 48
    """Hops in a training step, instead of optimiser.batch; each is also learned backwards, and both its moments from
    the start and from the goal."""
    gap_seconds: float = 0.5
    """Seconds between the two moments of an incremental hop."""
    width: int = 128
    """Embedding dimension of a camera or of the state."""
    hidden: int = 384
    """Width of the head that compares moments."""
    bins: int = 65
    """Points of the hop's distribution over [-1, 1], an odd number."""
    dropout: float = 0.1
    """Dropout in the head."""
    use_state: bool = True
    """Read observation.state if the store has it."""
    state_dropout: float = 0.2
    """Fraction of training hops in which the state is hidden."""
    state_noise: float = 0.05
    """Noise on the state in training, in units of its standard deviation."""
    state_offset: float = 0.3
    """Offset of each joint, drawn once per training hop, in units of its standard deviation."""
    image_dropout: float = 0.2
    """Fraction of training hops in which the images are hidden."""
    references: int = 4
    """Pairs of start and goal images stored with the model for each task; estimates are averaged over them."""
    progress: str = "auto"
    """What defines progress: stages (each counts its mean fraction of the time), keyframes (all stages count alike),
    time (even over an episode, no labels needed), or auto: stages if there are labels, else time."""
    fusion: str = "gated"
    """How the perspectives are combined: incremental, forward or backward alone, their mean, or gated by how well
    forward and backward agree."""
    alpha: float = 2.0
    """Sharpness of the gate: its weight is exp(-alpha d^2) for a disagreement d."""
    epsilon: float = 0.1
    """Added to the progress by which the disagreement is divided, so that it stays finite at the start."""
    start_near_goal: str = "warn"
    """What to do if episodes end about where they began, so that a goal image cannot distinguish the two: warn, refuse
    or ignore."""
    plan: HopPlan = field(default_factory=HopPlan)
    """Which pairs of moments are trained on."""
    augmentation: ImageAugmentation = field(default_factory=ImageAugmentation)
    """Changes of appearance in training."""
    loss: HopLoss = field(default_factory=HopLoss)
    """Weights of the losses."""
    adaptation: HopAdaptation = field(default_factory=HopAdaptation)
    """How a model given as init=MODEL is changed."""


def check_hop_settings(settings: HopSettings) -> None:
    """Refuse settings that no store can make sense of.

    Raises:
        ConfigError: names the setting.
    """
    plan = settings.plan
    positive = {
        "hops": settings.hops,
        "gap_seconds": settings.gap_seconds,
        "width": settings.width,
        "hidden": settings.hidden,
        "references": settings.references,
        "epsilon": settings.epsilon,
        "plan.value_bins": plan.value_bins,
        "plan.gap_bins": plan.gap_bins,
    }
    shares = {
        "dropout": settings.dropout,
        "state_dropout": settings.state_dropout,
        "image_dropout": settings.image_dropout,
        "plan.zero": plan.zero,
        "plan.negatives": plan.negatives,
        "plan.exchange": plan.exchange,
        "plan.elsewhere": plan.elsewhere,
        "adaptation.encoder_rate": settings.adaptation.encoder_rate,
        "adaptation.head_rate": settings.adaptation.head_rate,
    }
    choices = {"fusion": FUSIONS, "progress": PROGRESSES, "start_near_goal": NEAR_GOAL}
    for name, value in positive.items():
        if not value > 0:
            raise ConfigError(f"reward.{name}={value}: give a number above 0")
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"reward.{name}={value}: give a share from 0 to 1")
    for name, known in choices.items():
        if getattr(settings, name) not in known:
            raise ConfigError(f"reward.{name}={getattr(settings, name)}: choose one of {', '.join(known)}")
    if plan.zero + plan.negatives > 1:
        raise ConfigError(f"reward.plan.zero={plan.zero} and reward.plan.negatives={plan.negatives} exceed 1 together")
    if settings.bins < 3 or settings.bins % 2 == 0:
        raise ConfigError(f"reward.bins={settings.bins}: give an odd number, 3 or more")
    if settings.alpha < 0:
        raise ConfigError(f"reward.alpha={settings.alpha}: give 0 or more")
