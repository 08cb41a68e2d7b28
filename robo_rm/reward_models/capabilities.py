"""What only some reward models can do, as protocols; `capability` finds it in a model, calibrated or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from robo_rm.reward_models.calibration import CalibratedModel
from robo_rm.reward_models.protocol import RewardModel


@runtime_checkable
class StoresFeatures(Protocol):
    """A model whose frozen encoder's features are stored, so that each frame is encoded once, whoever asks."""

    def store_features(self, store: Any, episodes: Sequence[Any]) -> int:
        """Encode what a store does not hold yet; returns the number of images encoded."""


@runtime_checkable
class OnlyRecorded(Protocol):
    """A model that holds the progress of episodes instead of computing it: it cannot be asked about other frames."""

    recorded: Mapping[str, npt.NDArray[np.float32]]
    """Progress (T,) of each episode by uuid."""


@runtime_checkable
class TwoHeaded(Protocol):
    """A model that may have a second pair of heads."""

    head: str
    """Which pair it shows."""

    def with_head(self, head: str) -> RewardModel:
        """The same weights, showing another pair.

        Raises:
            ModelError: there is no such head.
        """


@runtime_checkable
class HasPriors(Protocol):
    """A model that knows its stage priors besides its provenance."""

    @property
    def priors(self) -> npt.ArrayLike:
        """(K,)"""


@runtime_checkable
class OnDevice(Protocol):
    """A model that computes on a device of its own."""

    device: str


Capability = TypeVar("Capability")


def capability(model: RewardModel, kind: type[Capability]) -> Capability | None:
    """The model as one that can do what ``kind`` says, or None; a calibrated model can do what the one inside can."""
    plain: object = model.model if isinstance(model, CalibratedModel) else model
    return cast(Capability, model) if isinstance(plain, kind) else None


def device_of(model: RewardModel) -> str | None:
    """Where it computes; None where it does not say."""
    found = capability(model, OnDevice)
    return None if found is None else found.device
