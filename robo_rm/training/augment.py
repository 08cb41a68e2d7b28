"""Changes of appearance for training images, drawn once per window and camera.

All frames of a window share the draw, as they would share a camera's exposure, white balance and mounting.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from robo_rm.settings import ImageAugmentation


def augment_window(
    images: npt.NDArray[np.uint8],
    rng: np.random.Generator,
    settings: ImageAugmentation,
    out: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.uint8]:
    """Frames (S, H, W, 3) uint8 of one window and camera, changed by one draw; written to ``out`` if given."""
    result = np.empty_like(images) if out is None else out
    table = _colour_table(rng, settings)
    matrix = _affine(rng, settings, images.shape[1], images.shape[2])
    for source, target in zip(images, result, strict=True):
        frame = source
        if matrix is not None:
            size = (images.shape[2], images.shape[1])
            frame = cv2.warpAffine(source, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if table is not None:
            frame = cv2.LUT(frame, table)
        target[...] = frame
    return result


def _colour_table(rng: np.random.Generator, settings: ImageAugmentation) -> npt.NDArray[np.uint8] | None:
    """(1, 256, 3) look-up table, or None where nothing changes."""
    gain = rng.uniform(1 - settings.brightness, 1 + settings.brightness)
    contrast = rng.uniform(1 - settings.contrast, 1 + settings.contrast)
    channels = rng.uniform(1 - settings.colour, 1 + settings.colour, 3)
    power = (1 + settings.gamma) ** rng.uniform(-1, 1)
    if not (settings.brightness or settings.contrast or settings.colour or settings.gamma):
        return None
    level = (np.arange(256) / 255.0) ** power
    curve = (level[:, None] * gain * channels[None, :] - 0.5) * contrast + 0.5
    return np.clip(np.rint(curve * 255), 0, 255).astype(np.uint8)[None]


def _affine(
    rng: np.random.Generator, settings: ImageAugmentation, height: int, width: int
) -> npt.NDArray[np.float64] | None:
    """(2, 3) matrix about the image's centre, or None where nothing moves."""
    zoom = rng.uniform(1 - settings.zoom, 1 + settings.zoom)
    angle = rng.uniform(-settings.rotation, settings.rotation)
    shift = rng.uniform(-settings.shift, settings.shift, 2) * (width, height)
    if not (settings.shift or settings.zoom or settings.rotation):
        return None
    matrix = np.asarray(cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, zoom), np.float64)
    matrix[:, 2] += shift
    return matrix
