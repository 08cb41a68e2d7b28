"""Potentials Phi(h): a number for each observation, tracked over the episodes of one or many environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError, ModelError
from robo_rm.reward_models.capabilities import capability
from robo_rm.reward_models.protocol import StreamsMany

Observations = Mapping[str, npt.NDArray[Any]]
"""Observations of n environments by key, each (n, ...)."""

TRUE_PROGRESS = "simulator.progress"


class Potential(Protocol):
    """Phi(h) of N episodes in parallel; h is everything observed since the episode began."""

    @property
    def version(self) -> str:
        """Changes whenever the values would; the replay buffer refuses to mix versions."""

    @property
    def cameras(self) -> Sequence[str]:
        """Keys of the images it reads; nothing has to be rendered for a potential without any."""

    def begin(self, which: npt.NDArray[np.int64]) -> None:
        """Start new episodes in the given environments; their next observations are the first."""

    def score(self, observations: Observations, which: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(n,) potentials of the newest observations of the n environments given."""


class VideoPotential:
    """Progress in [0, 1] after a reward model that streams, batched over environments.

    Each episode's observations must come at the model's rate times ``every``: after each macro-action of ``every``
    steps of an environment at the store's frames per second. Images in between are neither rendered nor encoded. The
    estimate depends on a window of the past, so the critic must observe the potential itself.

    Args:
        model: a reward model (`robo_rm.load_reward_model`).
        environments: N.
        every: environment steps between two scores.
        task: the instruction; the model's own if None.
        pessimism: lambda >= 0; the potential is the estimate minus lambda times the squared uncertainty. For an
            ensemble, whose uncertainty is its members' standard deviation, this is UWO (mean - lambda * variance).
        version: of the potential; by default a name that only this process knows.
        reference_uncertainty: the model's mean uncertainty on demonstrations, to compare with; 0 if not known.

    Attributes:
        uncertainty: (N,) the model's uncertainty at each environment's newest score; of an ensemble, the standard
            deviation of its members.

    Raises:
        ModelError: the model cannot be evaluated every ``every`` frames.
    """

    def __init__(
        self,
        model: Any,
        environments: int,
        every: int = 1,
        task: str | None = None,
        pessimism: float = 0.0,
        version: str | None = None,
        reference_uncertainty: float = 0.0,
    ) -> None:
        if pessimism < 0:
            raise ConfigError(f"pessimism={pessimism}: give 0 or more")
        self.cameras = tuple(model.cameras)
        self.version = version or f"model-{id(model):x}"
        self._state_key, self._pessimism = model.state_key, pessimism
        self.uncertainty = np.zeros(environments)
        self.reference_uncertainty = reference_uncertainty
        self._streams = _streams(model, environments, task, every)

    def begin(self, which: npt.NDArray[np.int64]) -> None:
        """Start new episodes in the given environments."""
        self._streams.reset(which)

    def score(self, observations: Observations, which: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(n,) progress minus the pessimism term.

        Raises:
            ModelError: an image or the state is missing or of another shape than the model was trained on.
        """
        missing = [key for key in (*self.cameras, self._state_key) if key and key not in observations]
        if missing:
            raise ModelError(
                f"the reward model reads {missing[0]}; the environment has {', '.join(sorted(observations))}"
            )
        images = {key: observations[key] for key in self.cameras}
        state = observations[self._state_key] if self._state_key else None
        progress, _, uncertainty = self._streams.step(images, state, which)
        value = np.asarray(progress, dtype=np.float64)
        self.uncertainty[which] = np.asarray(uncertainty, dtype=np.float64)
        if self._pessimism:
            value = value - self._pessimism * np.square(np.asarray(uncertainty, dtype=np.float64))
        return value


class TrueProgress:
    """The simulator's own progress: the upper bound of what a learned potential can be."""

    version = "simulator"
    cameras: tuple[str, ...] = ()

    def begin(self, which: npt.NDArray[np.int64]) -> None:
        """Stateless."""

    def score(self, observations: Observations, which: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(n,) the progress that the environment reports.

        Raises:
            ConfigError: the environment does not report its progress.
        """
        if TRUE_PROGRESS not in observations:
            raise ConfigError("this environment does not report its true progress; use a reward model as the potential")
        return np.asarray(observations[TRUE_PROGRESS], dtype=np.float64).reshape(len(which))


class NoPotential:
    """0 everywhere: the potential of sparse rewards."""

    version = "none"
    cameras: tuple[str, ...] = ()

    def begin(self, which: npt.NDArray[np.int64]) -> None:
        """Stateless."""

    def score(self, observations: Observations, which: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(n,) zeros."""
        return np.zeros(len(which))


class _SingleStreams:
    """The ``streams`` of a model that follows one episode at a time."""

    def __init__(self, model: Any, count: int, task: str | None) -> None:
        self._streams = [model.stream(task) for _ in range(count)]

    def reset(self, which: npt.NDArray[np.int64]) -> None:
        for index in which.tolist():
            self._streams[index].reset()

    def step(self, images: Observations, state: Any, which: npt.NDArray[np.int64]) -> tuple[Any, Any, Any]:
        made = [
            self._streams[index].step(
                {key: value[row] for key, value in images.items()}, None if state is None else state[row]
            )
            for row, index in enumerate(which.tolist())
        ]
        return np.array([e.progress for e in made]), None, np.array([e.uncertainty for e in made])


def _streams(model: Any, count: int, task: str | None, every: int) -> Any:
    if (able := capability(model, StreamsMany)) is not None:
        return able.streams(count, task, every)
    if every != 1:
        raise ModelError(
            f"this reward model needs every frame and was asked for every {every}th; score each step "
            "(action_repeat=1), or use a model that has streams(count, task, every)"
        )
    return _SingleStreams(model, count, task)
