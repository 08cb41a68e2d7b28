"""Many episodes followed at once, such as those of a vector environment, looked at every so many frames.

A model looks back at frames that lie ``gap`` apart. Where only every k-th frame is looked at and k divides the gap,
what it looks back at is there, so the estimates are those of a stream that is given every frame, at a k-th of the
rendering and encoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from robo_core.errors import ModelError
from robo_rm.reward_models.frames import ModelInputs, checked_step

Said = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Progress (n,), stage probabilities (n, K) and uncertainty (n,)."""


@runtime_checkable
class ManyStreams(Protocol):
    """Many episodes followed at once; `Streams` is the one of models that look back."""

    def reset(self, which: npt.ArrayLike | None = None) -> None:
        """Begin new episodes: at the indices or the mask given, or all."""

    def step(
        self,
        frames: Mapping[str, npt.NDArray[np.uint8]],
        state: npt.ArrayLike | None = None,
        which: npt.ArrayLike | None = None,
    ) -> Said:
        """Progress (n,), stage probabilities (n, K) and uncertainty (n,) of the newest frames."""


@runtime_checkable
class StreamsMany(Protocol):
    """A model that follows many episodes at once."""

    def streams(self, count: int, task: str | None = None, every: int = 1) -> ManyStreams:
        """Follow ``count`` episodes at once, looking at every so many frames of the store's rate."""


class _Described(Protocol):
    @property
    def state_size(self) -> int: ...


class Followed(Protocol):
    """A model whose episodes can be followed."""

    stages: list[str]
    cameras: list[str]
    state_key: str | None

    @property
    def description(self) -> _Described:
        """With ``state_size``, the length of a state."""

    def look(
        self, images: Mapping[str, npt.NDArray[np.uint8]], state: npt.NDArray[np.float32] | None = None
    ) -> ModelInputs:
        """What the network takes of n frames (n, H, W, 3) by key and their states (n, D)."""


Model = TypeVar("Model", bound=Followed)


class Streams(Generic[Model]):
    """N episodes of one model, step by step; each image is encoded once. Models fill in `_say`.

    Args:
        model: whose episodes these are.
        count: N.
        gap: frames at the store's rate between those that the model looks back at.
        every: frames at the store's rate between two steps; must divide the gap.

    Raises:
        ModelError: ``every`` does not divide the gap, or counts below 1.
    """

    def __init__(self, model: Model, count: int, gap: int, every: int) -> None:
        if count < 1 or every < 1:
            raise ModelError(f"streams of {count} episodes, every {every} frames: both must be 1 at least")
        if gap % every:
            fitting = [k for k in range(1, gap + 1) if gap % k == 0]
            raise ModelError(
                f"the model looks back in steps of {gap} frames, which {every} does not divide; "
                f"score every {', '.join(map(str, fitting))} frames, or train with another reward.gap_seconds"
            )
        self._model = model
        self._count = np.zeros(count, dtype=np.int64)
        self._start: ModelInputs | None = None

    def reset(self, which: npt.ArrayLike | None = None) -> None:
        """Begin new episodes: at the indices or the mask given, or all."""
        self._count[slice(None) if which is None else np.asarray(which)] = 0

    def step(
        self,
        frames: Mapping[str, npt.NDArray[np.uint8]],
        state: npt.ArrayLike | None = None,
        which: npt.ArrayLike | None = None,
    ) -> Said:
        """Progress (n,), stage probabilities (n, K) and uncertainty (n,) of the newest frames.

        Args:
            frames: images (n, H, W, 3) uint8 by key.
            state: (n, D), where the model reads one.
            which: the n episodes that step, indices; all N in their order if None.

        Raises:
            ModelError: a camera or the state is missing or has another shape than in training.
        """
        model = self._model
        rows = np.arange(len(self._count)) if which is None else np.asarray(which, dtype=np.int64)
        if not len(rows):
            nothing = np.zeros(0, dtype=np.float32)
            return nothing, np.zeros((0, len(model.stages)), dtype=np.float32), nothing
        size = model.description.state_size
        images, joint = checked_step(model.cameras, model.state_key, size, frames, state, batched=True)
        wrong = {key: len(value) for key, value in images.items() if len(value) != len(rows)}
        if wrong:
            raise ModelError(f"{len(rows)} episodes step, but there are {wrong} images")
        looks = model.look(images, joint)
        said = self._say(looks, self._starts(looks, rows), rows)
        self._count[rows] += 1
        return said

    def _say(self, looks: ModelInputs, starts: ModelInputs, rows: npt.NDArray[np.int64]) -> Said:
        """What the model says of n looks, those at the first frames of their episodes beside them."""
        raise NotImplementedError

    def _starts(self, looks: ModelInputs, rows: npt.NDArray[np.int64]) -> ModelInputs:
        """Looks at the first frames of the episodes that step, after noting those that begin."""
        if self._start is None:
            self._start = looks.take(np.zeros(len(self._count), dtype=np.int64))
        fresh = self._count[rows] == 0
        for key, kept in self._start.inputs.items():
            kept[rows[fresh]] = looks.inputs[key][fresh]
        if self._start.state is not None and looks.state is not None:
            self._start.state[rows[fresh]] = looks.state[fresh]
        return self._start.take(rows)
