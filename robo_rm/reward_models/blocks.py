"""Putting frames through a network so that nothing else decides the numbers: blocks of one size, exact arithmetic.

Frames go through in blocks filled up where they run short, so that the arithmetic for a frame does not depend on how
many frames come after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

FRAMES_PER_BLOCK = 32

Network = TypeVar("Network", bound=torch.nn.Module)


def fill(rows: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """Repeat the first row behind the others until there are ``count``."""
    if len(rows) == count:
        return rows
    return np.concatenate([rows, np.repeat(rows[:1], count - len(rows), axis=0)])


def to_pixels(frames: torch.Tensor, kind: torch.dtype = torch.float32) -> torch.Tensor:
    """Frames (F, H, W, C) uint8 to (F, C, H, W) in [-1, 1), channels last in memory as convolutions like it."""
    return frames.permute(0, 3, 1, 2).to(kind).sub_(128).div_(128)


def channels_last(network: Network) -> Network:
    """The network with its kernels laid out for images whose channels are last in memory; twice as fast on a CPU."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


@contextmanager
def exact_arithmetic(device: str) -> Iterator[None]:
    """Full float32 and fixed kernels on a GPU, so that a stream and a whole episode give the same numbers."""
    if device == "cpu":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
