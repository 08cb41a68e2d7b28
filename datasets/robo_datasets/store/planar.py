"""Frames of a video as its decoder gives them: a plane of brightness and two of colour, mostly of half the size.

JPEG holds the same three planes. Encoding them as they are costs about half of going through RGB, and loses less: no
colour is blown up, rounded twice and thinned out again. Whoever needs RGB asks with ``np.asarray``.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import simplejpeg

from robo_core.errors import StoreError

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]

# Samples of a plane of colour for each of brightness, (down, across), by the name that JPEG's settings have for it.
SUBSAMPLINGS = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}

_LEVELS = np.arange(256)
# Video keeps brightness in 16 to 235 and colour in 16 to 240 (ITU-R BT.601), JPEG both in 0 to 255 (JFIF 1.02).
_FULL_Y = np.rint((_LEVELS - 16) * (255 / 219)).clip(0, 255).astype(np.uint8)
_FULL_C = np.rint((_LEVELS - 128) * (255 / 224) + 128).clip(0, 255).astype(np.uint8)


class PlanarFrame:
    """One frame in BT.601 colours; stands for a uint8 RGB image (H, W, 3) wherever arrays are taken.

    Args:
        planes: brightness (H, W) and the two colour differences, uint8; views may be given.
        limited: whether the planes keep the limited range of video.
        rgb: makes the image (H, W, 3), where somebody asks for it.
    """

    __slots__ = ("_limited", "_planes", "_rgb", "shape", "subsampling")

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, planes: Planes, limited: bool, rgb: Callable[[], np.ndarray]) -> None:
        self._planes, self._limited, self._rgb = planes, limited, rgb
        self.shape = (*planes[0].shape, 3)
        self.subsampling = subsampling_of(planes)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """The image as RGB, (H, W, 3) uint8."""
        image = self._rgb()
        return image if dtype is None else image.astype(dtype, copy=False)

    def turned(self, turns: int) -> PlanarFrame | np.ndarray:
        """The frame after quarter turns counterclockwise: of planes, where JPEG knows their subsampling lying, too."""
        if self.subsampling == "4:2:2":
            return np.rot90(np.asarray(self), turns)
        y, u, v = (np.ascontiguousarray(np.rot90(plane, turns)) for plane in self._planes)
        return PlanarFrame((y, u, v), self._limited, lambda: np.ascontiguousarray(np.rot90(self._rgb(), turns)))

    def fits(self, subsampling: str) -> bool:
        """Whether a JPEG of at most this subsampling can hold the planes as they are."""
        return all(
            have >= most for have, most in zip(SUBSAMPLINGS[self.subsampling], SUBSAMPLINGS[subsampling], strict=True)
        )

    def jpeg(self, quality: int) -> bytes:
        """The planes as a JPEG of this quality, 1 to 100."""
        y, u, v = self._planes
        if self._limited:
            y, u, v = cv2.LUT(y, _FULL_Y), cv2.LUT(u, _FULL_C), cv2.LUT(v, _FULL_C)
        planes = (np.ascontiguousarray(plane) for plane in (y, u, v))
        return bytes(simplejpeg.encode_jpeg_yuv_planes(*planes, quality))


def subsampling_of(planes: Planes) -> str:
    """The name of the planes' subsampling.

    Raises:
        StoreError: JPEG has none with these shapes.
    """
    (height, width), colour = planes[0].shape, planes[1].shape
    for name, (down, across) in SUBSAMPLINGS.items():
        if colour == planes[2].shape == (-(-height // down), -(-width // across)):
            return name
    raise StoreError(f"planes of {[plane.shape for plane in planes]} have no subsampling that JPEG knows")
