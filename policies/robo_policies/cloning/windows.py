"""Training windows for policies: the low-dimensional arrays of a demo store in memory, cut by fancy indexing.

A sample is one frame: its observation, and the chunk of actions that starts there. Chunks that run over the end of
their episode are padded, and the padding is marked so that it trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robo_datasets.errors import ModelError, StoreError

if TYPE_CHECKING:
    import torch

    from robo_datasets import DemoStore

STATE = "observation.state"
ENVIRONMENT_STATE = "observation.environment_state"
ACTION = "action"

# A dimension that never moves in the demonstrations must not be divided by its (zero) deviation: the smallest
# difference on the robot would then be an enormous input.
SMALLEST_STD = 1e-4


@dataclass(frozen=True)
class Demonstrations:
    """The low-dimensional frames of a store, episode after episode.

    Attributes:
        arrays: key -> (N, D) float32, all episodes one after the other.
        uuids: the episodes, in that order.
        starts: (E + 1,) int64, episode e holds the frames ``starts[e]`` to ``starts[e + 1] - 1``.
        success: (E,) object, True, False or None (not judged).
        fps: frames per second of the store.
        task: the task text of the first episode.
        content_hash: the store's own hash.
    """

    arrays: Mapping[str, np.ndarray]
    uuids: tuple[str, ...]
    starts: np.ndarray
    success: np.ndarray
    fps: float
    task: str
    content_hash: str

    @property
    def frames(self) -> int:
        """Number of frames N."""
        return int(self.starts[-1])

    @property
    def ends(self) -> np.ndarray:
        """(N,) int64, for each frame the first frame after its episode."""
        return np.repeat(self.starts[1:], np.diff(self.starts))


def load_demonstrations(store: DemoStore, keys: Sequence[str] = (STATE, ENVIRONMENT_STATE)) -> Demonstrations:
    """Read ``keys`` and the actions of every episode of ``store`` into memory.

    Raises:
        StoreError: the store is empty, lacks a key, or holds a value that is not finite.
    """
    if len(store) == 0:
        raise StoreError(f"{store.path} holds no episodes; record or import some first")
    wanted = [*keys, ACTION]
    for key in wanted:
        if key not in store.features:
            held = ", ".join(sorted(store.features))
            raise StoreError(f"{store.path} has no {key!r}, which this policy needs; it holds {held}")
        shape = tuple(store.features[key]["shape"])
        if len(shape) != 1:
            raise StoreError(f"{store.path}: {key!r} has shape {shape} per frame; a vector is needed here")
    parts: dict[str, list[np.ndarray]] = {key: [] for key in wanted}
    lengths, success, task = [], [], ""
    for uuid in store.uuids:
        episode = store.episode(uuid)
        for key in wanted:
            values = np.asarray(episode[key][:], np.float32)
            bad = np.flatnonzero(~np.isfinite(values).all(1))
            if len(bad):
                raise StoreError(
                    f"{store.path}: episode {uuid}, frame {bad[0]}: {key!r} is not finite; "
                    f"`robo-rm doctor store={store.path}` lists all such frames"
                )
            parts[key].append(values)
        lengths.append(len(parts[ACTION][-1]))
        success.append(episode.success)
        task = task or (episode.task or "")
    return Demonstrations(
        arrays={key: np.concatenate(values) for key, values in parts.items()},
        uuids=tuple(store.uuids),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        success=np.array(success, dtype=object),
        fps=float(store.fps),
        task=task,
        content_hash=store.content_hash(),
    )


def normalisation(demonstrations: Demonstrations, weights: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Mean and standard deviation of every key over the frames that are trained on.

    Args:
        demonstrations: the frames.
        weights: (N,) float32 sample weights; frames of weight 0 do not count, all others count once.

    Returns:
        key -> {"mean": (D,), "std": (D,)} float32. A dimension that never moves gets a deviation of 1.
    """
    kept = weights > 0
    result = {}
    for key, values in demonstrations.arrays.items():
        chosen = values[kept].astype(np.float64)
        std = chosen.std(0)
        result[key] = {
            "mean": chosen.mean(0).astype(np.float32),
            "std": np.where(std < SMALLEST_STD, 1.0, std).astype(np.float32),
        }
    return result


class Windows:
    """Draws batches of (observation, action chunk) from demonstrations held in memory, already normalised.

    Each epoch is one permutation of the frames whose weight is above zero, so a batch is a function of (seed, step)
    alone: a resumed run continues with exactly the batches that an uninterrupted one would have seen. Frames of
    weight 0 add nothing to the weighted loss, so leaving them out changes no expectation and wastes no step.

    Args:
        demonstrations: the frames, N of them.
        weights: (N,) float32, the sample weight of each frame, not negative and not all zero.
        chunk_size: actions per sample, H.
        statistics: what :func:`normalisation` gave.
        device: where batches are needed; the arrays live there.

    Raises:
        ModelError: the weights do not fit the frames, are negative or NaN, or are all zero.
    """

    def __init__(
        self,
        demonstrations: Demonstrations,
        weights: np.ndarray,
        chunk_size: int,
        statistics: Mapping[str, Mapping[str, np.ndarray]],
        device: torch.device | str = "cpu",
    ) -> None:
        import torch

        if weights.shape != (demonstrations.frames,):
            raise ModelError(f"{weights.shape} weights for {demonstrations.frames} frames; one a frame is needed")
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise ModelError("weights must be finite and not negative")
        self._eligible = np.flatnonzero(weights > 0)
        if len(self._eligible) == 0:
            raise ModelError("every weight is zero, so there is nothing to train on")
        self._tensors = {
            key: torch.from_numpy((values - statistics[key]["mean"]) / statistics[key]["std"]).to(device)
            for key, values in demonstrations.arrays.items()
        }
        self._ends = torch.from_numpy(demonstrations.ends).to(device)
        # Divided by the mean over the data set, not over the batch: a batch of poor frames must not be scaled up.
        self._weights = torch.from_numpy(weights / weights[self._eligible].mean()).float().to(device)
        self._ahead = torch.arange(chunk_size, device=device)
        self._device = device
        self._epoch: tuple[int, int] | None = None
        self._order = self._eligible

    def __len__(self) -> int:
        """Number of frames with a weight above zero."""
        return len(self._eligible)

    def batch(self, step: int, size: int, seed: int) -> dict[str, torch.Tensor]:
        """The batch of training step ``step``.

        Returns:
            The observation keys (B, D), ``action`` (B, H, A), ``action_is_pad`` (B, H) bool and ``weight`` (B,), whose
            mean over the data set is 1.
        """
        import torch

        return self.gather(torch.from_numpy(self._draw(step * size, size, seed)).to(self._device))

    def gather(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        """The samples that start at ``frames`` (B,) int64; see :meth:`batch`."""
        import torch

        ahead = frames[:, None] + self._ahead
        last = (self._ends[frames] - 1)[:, None]
        batch = {key: values[frames] for key, values in self._tensors.items() if key != ACTION}
        batch[ACTION] = self._tensors[ACTION][torch.minimum(ahead, last)]
        batch["action_is_pad"] = ahead > last
        batch["weight"] = self._weights[frames]
        return batch

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
