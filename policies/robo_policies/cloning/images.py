"""Pictures for policies: the cameras of a demo store by frame number, decoded once, and shifted at random.

Frames come straight from the memory-mapped JPEG shards, resized while they are decoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from robo_core.console import say
from robo_core.errors import ConfigError, StoreError
from robo_datasets.store.decoded_frames import DecodedFrames, Size

if TYPE_CHECKING:
    from robo_datasets import DemoStore

SHORTER_SIDE = 96
PREFIX = "observation.images."
RGB = ("uint8", "video", "image")
"""Kinds of frames that are colour pictures, if they have three channels."""


def pick_cameras(
    store: DemoStore, wanted: Sequence[str] | None, size: Sequence[int] | None, has_environment_state: bool
) -> dict[str, Size]:
    """The cameras to look at and the (height, width) to bring their pictures to.

    Args:
        store: the demonstrations.
        wanted: names or keys of cameras; None: none where there is an environment state, else all.
        size: (height, width); None: the shorter side becomes 96 pixels, or stays if it is smaller.
        has_environment_state: whether the policy gets ``observation.environment_state``.

    Raises:
        StoreError: the store has no such camera, or neither camera nor environment state.
        ConfigError: a camera is named twice.
    """
    if wanted is None:
        keys = [] if has_environment_state else _colour_cameras(store)
    else:
        keys = [name if name.startswith(PREFIX) else PREFIX + name for name in wanted]
    if len(set(keys)) != len(keys):
        raise ConfigError(f"policy.cameras={list(wanted or ())} names a camera twice")
    for key in keys:
        if key not in store.cameras:
            held = ", ".join(camera.removeprefix(PREFIX) for camera in store.cameras) or "none"
            raise StoreError(
                f"{store.path} has no camera {key.removeprefix(PREFIX)!r}, which policy.cameras asks for; it has {held}"
            )
        shape, kind = tuple(store.features[key]["shape"]), store.features[key]["dtype"]
        if shape[-1] != 3 or str(kind) not in RGB:
            raise StoreError(f"{store.path}: camera {key} has {kind} frames of shape {shape}; RGB pictures are needed")
    if not keys and not has_environment_state:
        raise StoreError(
            f"{store.path} has neither observation.environment_state nor a camera to look at; "
            "a policy needs one of them"
        )
    return {key: _target(tuple(store.features[key]["shape"])[:2], size) for key in keys}


def _colour_cameras(store: DemoStore) -> list[str]:
    """All cameras that give RGB pictures; says which are left out."""
    keys = []
    for key in store.cameras:
        shape, kind = tuple(store.features[key]["shape"]), str(store.features[key]["dtype"])
        if shape[-1] == 3 and kind in RGB:
            keys.append(key)
        else:
            say(f"camera {key.removeprefix(PREFIX)} is left out: {kind} frames of shape {shape} are no RGB pictures")
    return keys


def _target(shape: Sequence[int], size: Sequence[int] | None) -> Size:
    height, width = shape
    if size is not None:
        return int(size[0]), int(size[1])
    scale = min(1.0, SHORTER_SIDE / min(height, width))
    return round(height * scale), round(width * scale)


class Pictures:
    """The frames of some cameras, by their number over all episodes.

    Args:
        store: where they are.
        uuids: the episodes in order.
        starts: (E + 1,) number of the first frame of each.
        cameras: key -> (height, width) to bring them to.
        cache_gb: most memory for decoded frames.
    """

    def __init__(
        self, store: DemoStore, uuids: Sequence[str], starts: np.ndarray, cameras: Mapping[str, Size], cache_gb: float
    ) -> None:
        self.cameras, self._starts = dict(cameras), starts
        self._frames = DecodedFrames([store.episode(uuid) for uuid in uuids], cameras, cache_gb * 1e9)

    def read(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        """Frames by number (n,): key -> (n, height, width, 3) uint8.

        Raises:
            CorruptionError: stored bytes are damaged.
        """
        episodes = np.searchsorted(self._starts, frames, side="right") - 1
        result = {key: np.empty((len(frames), *size, 3), np.uint8) for key, size in self.cameras.items()}
        for number in np.unique(episodes).tolist():
            rows = episodes == number
            for key, values in result.items():
                values[rows] = self._frames.read(number, key, frames[rows] - self._starts[number])
        return result


def shifted(frames: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    """Pictures (n, m, H, W, 3) shifted by up to ``most`` pixels, the border repeated; all m of a sample alike.

    As in DrQ (Yarats et al., arXiv 2004.13649): a small shift of what is seen must not change what is done.
    """
    height, width = frames.shape[-3:-1]
    down, right = random.integers(-most, most + 1, (2, len(frames)))
    rows = (np.arange(height) + down[:, None]).clip(0, height - 1)
    columns = (np.arange(width) + right[:, None]).clip(0, width - 1)
    sample = np.arange(len(frames))[:, None, None]
    moved = np.moveaxis(frames, 1, 3)[sample, rows[:, :, None], columns[:, None, :]]
    return np.moveaxis(moved, 3, 1)
