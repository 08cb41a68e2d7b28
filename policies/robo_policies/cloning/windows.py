"""Training windows for policies: the low-dimensional arrays of a demo store in memory, cut by fancy indexing.

A sample is one frame: its observation, and the chunk of actions that starts there. Chunks that run over the end of
their episode are padded, and the padding is marked so that it trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from robo_core.errors import ModelError, StoreError
from robo_datasets.store.windows import Columns, inside, read_columns
from robo_policies.cloning.images import shifted
from robo_rm.training.constant import RESOLUTION, constant, describe_constant
from robo_rm.training.summary import check_finite

if TYPE_CHECKING:
    import torch

    from robo_datasets import DemoStore, Episode
    from robo_policies.cloning.images import Pictures

STATE = "observation.state"
ENVIRONMENT_STATE = "observation.environment_state"
ACTION = "action"


@dataclass(frozen=True)
class Demonstrations(Columns):
    """The low-dimensional frames of a store, episode after episode.

    Attributes:
        success: (E,) object, True, False or None (unknown).
        fps: frames per second of the store.
        task: the task text of the first episode.
        content_hash: the store's own hash.
        tasks: (E,) the task text of each.
        lost: places whose motion float32 cannot hold, in words.
    """

    success: np.ndarray
    fps: float
    task: str
    content_hash: str
    tasks: tuple[str, ...] = ()
    lost: str = ""


def load_demonstrations(store: DemoStore) -> Demonstrations:
    """Read actions and, where the store has them, state and environment state of every episode of ``store``.

    Raises:
        StoreError: the store is empty, lacks actions, or holds a value that is not finite.
    """
    if len(store) == 0:
        raise StoreError(f"{store.path} holds no episodes; record or import some first")
    wanted = [*(key for key in (STATE, ENVIRONMENT_STATE) if key in store.features), ACTION]
    for key in wanted:
        if key not in store.features:
            held = ", ".join(sorted(store.features))
            raise StoreError(f"{store.path} has no {key!r}, which this policy needs; it holds {held}")
        shape = tuple(store.features[key]["shape"])
        if len(shape) != 1:
            raise StoreError(f"{store.path}: {key!r} has shape {shape} per frame; a vector is needed here")
    bounds: dict[str, list[np.ndarray]] = {key: [] for key in wanted}

    def check(episode: Episode, key: str, exact: np.ndarray, values: np.ndarray) -> None:
        check_finite(values, episode.uuid, key, store.path)
        if len(exact):
            bounds[key].append(np.stack([exact.min(0), exact.max(0)]).astype(np.float64))

    episodes = [store.episode(uuid) for uuid in store.uuids]
    tasks = tuple(episode.task or "" for episode in episodes)
    return Demonstrations(
        **vars(read_columns(episodes, wanted, check)),
        success=np.array([episode.success for episode in episodes], dtype=object),
        fps=float(store.fps),
        task=next((task for task in tasks if task), ""),
        content_hash=store.content_hash(),
        tasks=tasks,
        lost=describe_constant({key: _lost(values) for key, values in bounds.items() if values}),
    )


def _lost(bounds: list[np.ndarray]) -> np.ndarray:
    """(D,) which dimensions move in the store's own precision and not in float32; from the bounds of each episode."""
    low, high = np.min([one[0] for one in bounds], axis=0), np.max([one[1] for one in bounds], axis=0)
    return np.asarray(constant(low, high) & (high > low))


def normalisation(
    demonstrations: Demonstrations, weights: np.ndarray, pictures: Pictures | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """Mean, standard deviation, least and greatest value of every key over the frames that are trained on.

    Args:
        demonstrations: the frames.
        weights: (N,) float32 sample weights; frames of weight 0 do not count, all others count once.
        pictures: cameras, whose colours are measured on 200 of those frames.

    Returns:
        key -> {"mean", "std", "min", "max"}, each (D,) float32; (3, 1, 1) of values in [0, 1] for a camera. A dimension
        that never moves (`constant_dimensions`) gets a deviation of 1, and bounds below and above its value. The bounds
        are those of all frames of an episode that has a frame with a weight: the chunks of that frame reach into them.
    """
    kept, reached = weights > 0, _reached(demonstrations, weights)
    still = constant_dimensions(demonstrations, weights)
    result = {}
    for key, values in demonstrations.arrays.items():
        chosen, around = values[kept].astype(np.float64), values[reached].astype(np.float64)
        mean, std = chosen.mean(0), chosen.std(0)
        low, high = around.min(0), around.max(0)
        # What moves only in frames of weight 0, which chunks reach into, has the deviation that it has there.
        alike = constant(chosen.min(0), chosen.max(0))
        std = np.where(still[key], 1.0, np.where(alike, around.std(0), std))
        # At an offset of 1e8, 1 is less than a step of float32.
        beside = np.maximum(1.0, RESOLUTION * np.abs(mean))
        result[key] = _float32(
            mean=mean,
            std=std,
            min=np.where(still[key], mean - beside, low),
            max=np.where(still[key], mean + beside, high),
        )
    if pictures is not None:
        frames = np.flatnonzero(kept)
        sample = frames[np.linspace(0, len(frames) - 1, min(200, len(frames))).astype(np.int64)]
        for key, values in pictures.read(np.unique(sample)).items():
            scaled = values.reshape(-1, 3) / 255.0
            bounds = {"min": np.zeros(3), "max": np.ones(3)}
            std = np.maximum(scaled.std(0), 0.01)
            result[key] = {
                name: value.reshape(3, 1, 1) for name, value in _float32(mean=scaled.mean(0), std=std, **bounds).items()
            }
    return result


def constant_dimensions(demonstrations: Demonstrations, weights: np.ndarray) -> dict[str, np.ndarray]:
    """key -> (D,) bool, the dimensions that never change in the episodes that have a frame with a weight above 0."""
    reached = _reached(demonstrations, weights)
    return {
        key: constant(values[reached].min(0), values[reached].max(0)) for key, values in demonstrations.arrays.items()
    }


def for_inference(
    statistics: Mapping[str, Mapping[str, np.ndarray]], still: Mapping[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """The statistics that go with a policy: a constant action comes out as exactly its value, whatever is predicted.

    Args:
        statistics: of :func:`normalisation`, which the network is trained by.
        still: of :func:`constant_dimensions`.
    """
    result = {key: dict(values) for key, values in statistics.items()}
    action = result[ACTION]
    value = action["mean"]
    for name, values in action.items():
        replaced = np.zeros_like(values) if name == "std" else value
        action[name] = np.where(still[ACTION], replaced, values)
    return result


def _reached(demonstrations: Demonstrations, weights: np.ndarray) -> np.ndarray:
    """(N,) bool, the frames of every episode that has a frame with a weight above 0."""
    used = np.logical_or.reduceat(weights > 0, demonstrations.starts[:-1])
    return np.repeat(used, np.diff(demonstrations.starts))


def _float32(**values: np.ndarray) -> dict[str, np.ndarray]:
    return {name: value.astype(np.float32) for name, value in values.items()}


def affine(statistics: Mapping[str, np.ndarray], bounded: bool) -> tuple[np.ndarray, np.ndarray]:
    """What to subtract, and what to divide by: mean and deviation, or (``bounded``) what brings values into [-1, 1]."""
    if bounded:
        # In double precision: the middle of two large numbers is not one of float32.
        low, high = (statistics[name].astype(np.float64) for name in ("min", "max"))
        return (low + high) / 2, (high - low) / 2
    return statistics["mean"], statistics["std"]


@dataclass(frozen=True)
class Span:
    """Which frames a sample takes, counted from its own.

    Attributes:
        chunk_size: actions from the sample's own frame on.
        past: observations before the sample's own; the chunk starts as many actions earlier.
        stacked: whether observations have a dimension for time, (B, past + 1, D) instead of (B, D).
        bounded: whether vectors are brought into [-1, 1] by their bounds, or to mean 0 and deviation 1.
    """

    chunk_size: int
    past: int = 0
    stacked: bool = False
    bounded: bool = False


class Drawn(NamedTuple):
    """Samples of a batch: their frames (B,), and their pictures (B, n, H, W, 3) uint8 by key."""

    frames: np.ndarray
    pictures: Mapping[str, np.ndarray]


class Windows:
    """Draws batches of (observation, action chunk) from demonstrations held in memory, already normalised.

    Each epoch is one permutation of the frames whose weight is above zero, so a batch is a function of (seed, step)
    alone: a resumed run continues with exactly the batches that an uninterrupted one would have seen. Frames of
    weight 0 add nothing to the weighted loss, so leaving them out changes no expectation and wastes no step.

    Args:
        demonstrations: the frames, N of them.
        weights: (N,) float32, the sample weight of each frame, not negative and not all zero.
        span: what a sample takes.
        statistics: what :func:`normalisation` gave.
        device: where batches are needed; the arrays live there.
        pictures: the cameras to look at.
        shift: most pixels that pictures are shifted by at random.

    Raises:
        ModelError: the weights do not fit the frames, are negative or NaN, or are all zero.
    """

    def __init__(
        self,
        demonstrations: Demonstrations,
        weights: np.ndarray,
        span: Span,
        statistics: Mapping[str, Mapping[str, np.ndarray]],
        device: torch.device | str = "cpu",
        pictures: Pictures | None = None,
        shift: int = 0,
    ) -> None:
        import torch

        if weights.shape != (demonstrations.frames,):
            raise ModelError(f"{weights.shape} weights for {demonstrations.frames} frames; one a frame is needed")
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise ModelError("weights must be finite and not negative")
        self._eligible = np.flatnonzero(weights > 0)
        if len(self._eligible) == 0:
            raise ModelError("every weight is zero, so there is nothing to train on")
        self._tensors = {}
        for key, values in demonstrations.arrays.items():
            offset, scale = affine(statistics[key], span.bounded)
            self._tensors[key] = torch.from_numpy(((values - offset) / scale).astype(np.float32)).to(device)
        self._ends, self._firsts = demonstrations.ends, demonstrations.firsts
        # Divided by the mean over the data set, not over the batch: a batch of poor frames must not be scaled up.
        self._weights = torch.from_numpy(weights / weights[self._eligible].mean()).float().to(device)
        self._span, self._device = span, device
        self._actions = np.arange(-span.past, span.chunk_size)
        self._pictures, self._shift = pictures, shift
        self._colours = {
            key: [torch.from_numpy(statistics[key][name]).to(device) for name in ("mean", "std")]
            for key in (pictures.cameras if pictures else ())
        }
        self._epoch: tuple[int, int] | None = None
        self._order = self._eligible

    def __len__(self) -> int:
        """Number of frames with a weight above zero."""
        return len(self._eligible)

    def draw(self, number: int, size: int, seed: int) -> Drawn:
        """The samples of batch ``number`` with their pictures, as they are read; `join` makes tensors of them."""
        frames = self._draw(number * size, size, seed)
        return Drawn(frames, self._read(frames, (seed, number)))

    def batch(self, number: int, size: int, seed: int) -> dict[str, torch.Tensor]:
        """Batch ``number``; see :meth:`join`."""
        return self.join(self.draw(number, size, seed))

    def gather(self, frames: np.ndarray) -> dict[str, torch.Tensor]:
        """The samples of ``frames`` (B,) int64, pictures as they are; see :meth:`join`."""
        return self.join(Drawn(frames, self._read(frames, None)))

    def _read(self, frames: np.ndarray, draw: tuple[int, int] | None) -> dict[str, np.ndarray]:
        """The pictures of samples, (B, n, H, W, 3) uint8, shifted as ``draw`` (seed, step) says."""
        if self._pictures is None:
            return {}
        seen, _ = self._inside(frames, self._actions[: self._span.past + 1])
        read = self._pictures.read(seen.ravel())
        result = {key: values.reshape(*seen.shape, *values.shape[1:]) for key, values in read.items()}
        if draw is not None and self._shift:
            random = np.random.default_rng([*draw, self._shift])
            result = {key: shifted(values, self._shift, random) for key, values in result.items()}
        return result

    def join(self, drawn: Drawn) -> dict[str, torch.Tensor]:
        """Samples as tensors on the device, normalised.

        Returns:
            The observation keys, (B, D), or (B, n, D) where observations are stacked; pictures are (B, 3, H, W) or
            (B, n, 3, H, W). Further ``action`` (B, H, A) from the first observation's frame on, ``action_is_pad``
            (B, H) bool and ``weight`` (B,), whose mean over the data set is 1.
        """
        import torch

        frames, pictures = drawn
        at = torch.from_numpy(frames).to(self._device)
        rows, padding = (torch.from_numpy(part).to(self._device) for part in self._inside(frames, self._actions))
        seen = rows[:, : self._span.past + 1] if self._span.stacked else at
        batch = {key: values[seen] for key, values in self._tensors.items() if key != ACTION}
        batch[ACTION] = self._tensors[ACTION][rows]
        batch["action_is_pad"] = padding
        batch["weight"] = self._weights[at]
        for key, values in pictures.items():
            mean, std = self._colours[key]
            picture = torch.from_numpy(values if self._span.stacked else values[:, -1]).to(self._device)
            batch[key] = (picture.movedim(-1, -3).float() / 255 - mean) / std
        return batch

    def _inside(self, frames: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Frames (B, n) at offsets from ``frames`` (B,), held to their episodes, and which are padding."""
        return inside(frames[:, None] + offsets, self._firsts[frames][:, None], self._ends[frames][:, None] - 1)

    def _draw(self, first: int, count: int, seed: int) -> np.ndarray:
        """Samples ``first`` to ``first + count`` of the endless row of permutations that ``seed`` names."""
        drawn = []
        while count > 0:
            epoch, offset = divmod(first, len(self._eligible))
            order = self._permutation(epoch, seed)[offset : offset + count]
            drawn.append(order)
            first, count = first + len(order), count - len(order)
        return np.concatenate(drawn)

    def _permutation(self, epoch: int, seed: int) -> np.ndarray:
        if self._epoch != (epoch, seed):
            self._epoch = (epoch, seed)
            self._order = np.random.default_rng([seed, epoch]).permutation(self._eligible)
        return self._order
