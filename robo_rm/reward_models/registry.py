"""The kinds of reward models: found by name through the entry-point group ``robo_rm.reward_models``.

A kind says how its models are trained, loaded and set up; `robo-rm train-reward reward=NAME` and `load_reward_model`
go through here, so a kind of another distribution is used like a built-in one (docs/custom_reward_model.md).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robo_core.errors import ConfigError, ModelError
from robo_rm.settings import ConvSettings, OptimiserSettings
from robo_rm.training.budget import Budget

if TYPE_CHECKING:
    from robo_rm.reward_models.protocol import RewardModel

ENTRY_POINT_GROUP = "robo_rm.reward_models"
DEFAULT_KIND = "stage"


@dataclass(frozen=True)
class FitRequest:
    """What to train, on what, and where the model goes.

    Raises:
        ConfigError: ``folder`` is a file.
    """

    store: Any
    """`robo_datasets.DemoStore`."""
    reward: Any
    """Settings of the kind, an instance of `RewardKind.settings`."""
    folder: Path
    """Where the model, and its checkpoint while it trains, are written."""
    encoder: Any = field(default_factory=ConvSettings)
    """Settings of the image encoder."""
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    """Batch, learning rate and the like."""
    budget: Budget = field(default_factory=lambda: Budget(None, None, 7.0))
    """How long to train."""
    holdout: float = 8
    """Episodes held out, by episode: a number, or a share below 1."""
    seed: int = 0
    """Of the split, the weights and every random draw."""
    stage_groups: list[list[int]] | None = None
    """Coarser stages to train on, see `robo_rm.labels.grouping`; None: the store's own."""
    validation: int = 0
    """Episodes cut from the training split that decide when to stop, by `robo_rm.training.stopping`; 0: train on."""
    patience: int = 3
    """Looks at them without a better figure after which training ends."""
    split_seed: int | None = None
    """Of the split alone, where it is another: members of an ensemble share a split."""
    cameras: list[str] | None = None
    """Cameras to look at; all of the store's if None."""
    device: str = "auto"
    """auto, cpu or cuda."""
    cache_gb: float = 2.0
    """Memory for decoded training images."""
    overwrite: bool = False
    """Train again where ``folder`` holds a model of other settings."""
    repeats: str = "error"
    """What to do where a stage comes again in most demonstrations, see `robo_rm.labels.repeats`: error or fall_back."""
    init: Path | None = None
    """Folder of a model of the same kind to start from, for kinds that can."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The command's settings, kept in the folder's config.yaml."""

    def __post_init__(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"out={self.folder} is a file; give a folder")


@dataclass
class FitResult:
    """A trained model, written to the folder, and how its training went."""

    model: RewardModel
    metrics: dict[str, Any]
    """Flat figures: those on the held-out episodes, ``steps``, ``train_seconds`` and what else the kind tells."""
    curve: list[list[float]] = field(default_factory=list)
    """For every few steps: step, seconds, and the losses; empty where nothing was trained."""
    losses: tuple[str, ...] = ("total",)
    """Names of the losses in ``curve``."""
    held_out: list[list[float]] = field(default_factory=list)
    """Rows of step and squared error of progress on held-out episodes while training."""
    already: bool = False
    """Whether the folder held the finished model already."""


@dataclass(frozen=True)
class RewardKind:
    """A kind of reward model."""

    name: str
    """As in ``reward=NAME``; also stands in the header of a saved folder."""
    settings: type
    """Frozen dataclass whose fields all have defaults, with a sentence under each: what ``reward.KEY=`` sets."""
    fit: Callable[[FitRequest], FitResult]
    """Validates everything, trains on the store, writes the folder (`saving.save_model_folder`)."""
    load: Callable[[Path, Mapping[str, Any], Mapping[str, Any], str], RewardModel]
    """Reads a saved folder: (folder, what config.yaml says of the model, provenance, device auto|cpu|cuda)."""


def reward_kinds() -> list[str]:
    """Names of all installed kinds, the default first; imports none of them."""
    names = {point.name for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}
    return sorted(names, key=lambda name: (name != DEFAULT_KIND, name))


def reward_kind(name: str) -> RewardKind:
    """The kind of a name.

    Raises:
        ConfigError: there is no such kind; names the nearest ones first. ModelError: its package is broken.
    """
    points = {point.name: point for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}
    if name not in points:
        near = difflib.get_close_matches(name, points, n=len(points), cutoff=0.5)
        known = [*near, *(other for other in reward_kinds() if other not in near)]
        raise ConfigError(f"there is no reward model of the kind '{name}'; known: {', '.join(known)}")
    try:
        kind = points[name].load()
    except (ImportError, AttributeError) as error:
        raise ModelError(f"the reward model kind {name} ({points[name].value}) cannot be loaded: {error}") from error
    if not isinstance(kind, RewardKind) or not is_dataclass(kind.settings) or kind.name != name:
        raise ModelError(
            f"{points[name].value} must be a RewardKind named '{name}' whose settings are a dataclass, not {kind!r}"
        )
    return kind


class RewardSettings(Mapping[str, type]):
    """The settings dataclass of each installed kind by its name; a kind is imported when it is looked up."""

    def __getitem__(self, name: str) -> type:
        """The settings of a kind.

        Raises:
            KeyError: there is no such kind. ModelError: its package is broken.
        """
        if name not in reward_kinds():
            raise KeyError(name)
        return reward_kind(name).settings

    def __contains__(self, name: object) -> bool:
        """Whether there is such a kind; imports none."""
        return name in reward_kinds()

    def __iter__(self) -> Iterator[str]:
        """Names, the default first."""
        return iter(reward_kinds())

    def __len__(self) -> int:
        """How many kinds are installed."""
        return len(reward_kinds())


def kind_of_settings(settings: Any) -> RewardKind:
    """The kind whose settings these are; most say its name themselves.

    Raises:
        ConfigError: no installed kind has settings of this type.
    """
    said = str(getattr(settings, "name", ""))
    for name in sorted(reward_kinds(), key=lambda name: name != said):
        kind = reward_kind(name)
        if type(settings) is kind.settings:
            return kind
    raise ConfigError(f"no installed kind of reward model has settings of the type {type(settings).__name__}")
