"""Frames to JPEG bytes and back, through OpenCV's libjpeg-turbo; no zarr, so that readers stay light."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from robo_core.errors import CorruptionError, StoreError
from robo_datasets.store.planar import PlanarFrame

DEFAULT_QUALITY = 95
DEFAULT_SUBSAMPLING = "4:4:4"

SUBSAMPLINGS = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}

# libjpeg scales while it decodes: a half, a quarter or an eighth of each side, at a fraction of the cost.
_REDUCED = {
    2: (cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    4: (cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    8: (cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
}

# OpenCV 4.10 learnt to decode straight to RGB; older versions decode to BGR and swap afterwards.
_RGB_FLAG: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)


def frame_encoder(quality: int, subsampling: str) -> Callable[[np.ndarray | PlanarFrame], bytes]:
    """A function from one RGB (H, W, 3) or grey (H, W, 1) uint8 frame, in any layout, to JPEG bytes.

    Frames of a video keep their planes, where these are subsampled at least as much as is asked for.

    Raises:
        StoreError: quality outside 1 to 100 or an unknown subsampling.
    """
    if not 1 <= quality <= 100:
        raise StoreError(f"JPEG quality {quality} is outside 1 to 100")
    if subsampling not in SUBSAMPLINGS:
        raise StoreError(f"JPEG subsampling {subsampling!r} is not one of {', '.join(SUBSAMPLINGS)}")
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        int(quality),
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        SUBSAMPLINGS[subsampling],
    ]

    def encode(frame: np.ndarray | PlanarFrame) -> bytes:
        if isinstance(frame, PlanarFrame):
            if frame.fits(subsampling):
                return frame.jpeg(quality)
            frame = np.asarray(frame)
        if frame.shape[2] == 3:
            # OpenCV wants blue first. Frames that are a view of such rows are taken as they stand in memory.
            blue_first = frame[..., ::-1]
            if not blue_first.flags.c_contiguous:
                blue_first = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR)
            frame = blue_first
        done, data = cv2.imencode(".jpg", np.ascontiguousarray(frame), options)
        if not done:
            raise StoreError(f"OpenCV could not encode a frame of shape {frame.shape} as JPEG")
        return data.tobytes()

    return encode


def decode_frame(data: np.ndarray, channels: int = 3, reduction: int = 1) -> np.ndarray:
    """Decode JPEG bytes to RGB (H, W, 3) or grey (H, W) uint8; sides are divided by ``reduction`` (1, 2, 4, 8).

    Args:
        data: (n,) uint8, the JPEG stream.

    Raises:
        CorruptionError: OpenCV cannot decode the bytes.
    """
    if channels == 1:
        flags = cv2.IMREAD_GRAYSCALE if reduction == 1 else _REDUCED[reduction][1]
    elif reduction > 1:
        flags = _REDUCED[reduction][0]
    else:
        flags = cv2.IMREAD_COLOR if _RGB_FLAG is None else _RGB_FLAG
    try:
        frame = cv2.imdecode(data, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise CorruptionError(f"a JPEG frame cannot be decoded: {error.err}") from error
    if frame is None:
        raise CorruptionError("a JPEG frame cannot be decoded")
    if channels == 3 and (reduction > 1 or _RGB_FLAG is None):
        frame = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    return frame


def reduction_for(height: int, width: int, size: tuple[int, int]) -> int:
    """The largest JPEG reduction whose result is still at least ``size`` (h, w) of a (height, width) frame."""
    for reduction in (8, 4, 2):
        if -(-height // reduction) >= size[0] and -(-width // reduction) >= size[1]:
            return reduction
    return 1


def resize(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an (H, W[, C]) frame to ``size`` (h, w): area average when shrinking, bilinear when growing.

    Frames of 16 bits are depth: they take the nearest level, for a mean of two surfaces is neither.
    """
    height, width = frame.shape[:2]
    if (height, width) == tuple(size):
        return frame
    shrinking = size[0] <= height and size[1] <= width
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    method = cv2.INTER_NEAREST if frame.dtype == np.uint16 else method
    return cv2.resize(np.ascontiguousarray(frame), (size[1], size[0]), interpolation=method)
