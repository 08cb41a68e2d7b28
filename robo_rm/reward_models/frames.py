"""Bringing images and states into the form a model takes: the same few lines for training, scoring and streaming."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from robo_core.errors import ModelError
from robo_rm.reward_models.protocol import Observations

Size = tuple[int, int]


def input_size(height: int, width: int, shorter: int) -> Size:
    """The (height, width) an encoder takes for images of a size: shorter side as asked, multiples of 8, never
    larger."""
    scale = min(1.0, shorter / min(height, width))
    return _multiple_of_8(height * scale), _multiple_of_8(width * scale)


def _multiple_of_8(pixels: float) -> int:
    return max(8, 8 * round(pixels / 8))


def resize(frames: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
    """Frames (n, H, W, 3) uint8 brought to (n, h, w, 3), each pixel the mean of what it covers."""
    if frames.shape[1:3] == tuple(size):
        return frames
    resized = np.empty((len(frames), *size, 3), dtype=np.uint8)
    for source, target in zip(frames, resized, strict=True):
        cv2.resize(source, (size[1], size[0]), dst=target, interpolation=cv2.INTER_AREA)
    return resized


def with_change(rows: npt.NDArray[Any], start: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Images or features and, behind them along the last axis, how far each differs from the episode's first one.

    Args:
        rows: images (n, H, W, 3) uint8 or features (n, F).
        start: the same of the first frame, (n, ...) or (1, ...).

    Returns:
        (n, H, W, 6) or (n, 2 F), of the type given.
    """
    joined = np.empty((*rows.shape[:-1], 2 * rows.shape[-1]), dtype=rows.dtype)
    size = rows.shape[-1]
    joined[..., :size] = rows
    if rows.dtype != np.uint8:
        joined[..., size:] = np.abs(rows - start)
        return joined
    for row, image in enumerate(rows):
        joined[row, ..., size:] = cv2.absdiff(image, start[row if len(start) > 1 else 0])
    return joined


def checked_images(frames: Any, key: str) -> npt.NDArray[np.uint8]:
    """Frames as an array (n, H, W, 3) uint8.

    Raises:
        ModelError: another shape or type; names the key.
    """
    array = np.asarray(frames)
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise ModelError(f"{key}: expected uint8 RGB images (H, W, 3), got {array.dtype} of shape {array.shape[1:]}")
    return array


def checked_state(state: Any, size: int, key: str) -> npt.NDArray[np.float32]:
    """States as an array (n, D) float32.

    Raises:
        ModelError: another length, or a value that is not finite; names the key.
    """
    array = np.asarray(state, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != size:
        raise ModelError(f"{key}: the model was trained on {size} values, got shape {array.shape[1:]}")
    if not np.isfinite(array).all():
        raise ModelError(f"{key}: a value of the state is not a finite number")
    return array


def checked_step(
    cameras: Iterable[str],
    state_key: str | None,
    state_size: int,
    frames: Mapping[str, Any],
    state: Any,
    batched: bool = False,
) -> tuple[dict[str, npt.NDArray[np.uint8]], npt.NDArray[np.float32] | None]:
    """What a stream is given at a step, as rows: images (n, H, W, 3) by key and states (n, D), or None where none is
    read.

    Args:
        cameras: keys of the images that the model reads.
        state_key: key of the state, or None.
        state_size: its length.
        frames: images (H, W, 3) by key, of these cameras at least.
        state: (D,), where the model reads one.
        batched: whether both come as rows already, (n, H, W, 3) and (n, D); else n is 1.

    Raises:
        ModelError: a camera or the state is missing or has another shape than in training.
    """
    keys = list(cameras)
    missing = [key for key in keys if key not in frames]
    if missing:
        raise ModelError(f"the model reads {missing[0]}, which the step lacks; it has {sorted(frames)}")
    images = {key: checked_images(frames[key] if batched else np.asarray(frames[key])[None], key) for key in keys}
    if state_key is None:
        return images, None
    if state is None:
        raise ModelError(f"the model reads {state_key}; give step(frames, state=...)")
    return images, checked_state(state if batched else np.asarray(state)[None], state_size, state_key)


class ModelInputs(NamedTuple):
    """What a network takes of n frames, before it is compared with the first frame of the episode.

    ``inputs`` by camera: images (n, h, w, 3) uint8 at the encoder's size, or features (n, F) of a frozen encoder;
    ``state`` (n, D_s), or None where the model reads none.
    """

    inputs: Mapping[str, npt.NDArray[Any]]
    state: npt.NDArray[np.float32] | None

    def take(self, rows: Any) -> ModelInputs:
        """Those of the given rows, copied."""
        state = None if self.state is None else self.state[rows].copy()
        return ModelInputs({key: value[rows].copy() for key, value in self.inputs.items()}, state)


class EpisodeView:
    """A stored episode or a mapping of arrays, read in slices.

    Args:
        observations: the episode.
        cameras: keys of the images that the model reads.
        state_key: key of the state, or None.
        state_size: its length.

    Raises:
        ModelError: a camera or the state that the model reads is missing, or lengths differ.
    """

    def __init__(
        self, observations: Observations, cameras: Iterable[str], state_key: str | None, state_size: int
    ) -> None:
        self._cameras, self._state_key, self._state_size = list(cameras), state_key, state_size
        keys = [*cameras, *([state_key] if state_key else [])]
        missing = [key for key in keys if key not in observations]
        if missing:
            raise ModelError(f"the model reads {missing[0]}, which the episode lacks; it has {sorted(observations)}")
        lengths = {key: len(observations[key]) for key in keys}
        if len(set(lengths.values())) != 1:
            raise ModelError(f"arrays of different lengths: {lengths}")
        self.length = next(iter(lengths.values()))
        self.task: str | None = getattr(observations, "task", None)
        self.episode = observations

    def spans(self, size: int) -> Iterator[tuple[int, int]]:
        """[start, stop) of all frames, at most ``size`` at a time."""
        for start in range(0, self.length, size):
            yield start, min(start + size, self.length)

    def images(self, start: int, stop: int) -> dict[str, npt.NDArray[np.uint8]]:
        """Frames [start, stop) of each camera, (n, H, W, 3)."""
        return {key: checked_images(self.episode[key][start:stop], key) for key in self._cameras}

    def state(self, start: int, stop: int) -> npt.NDArray[np.float32] | None:
        """States [start, stop), (n, D); None where the model reads none.

        Raises:
            ModelError: another length than in training, or a value that is not finite.
        """
        if self._state_key is None:
            return None
        return checked_state(self.episode[self._state_key][start:stop], self._state_size, self._state_key)
