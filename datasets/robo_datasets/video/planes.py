"""The planes of decoded frames, where JPEG can hold them as they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange

from robo_datasets.store.planar import PlanarFrame, Planes

_LIMITED = {"yuv420p", "yuv422p", "yuv444p"}
_FULL = {"yuvj420p", "yuvj422p", "yuvj444p"}
# JFIF files are in BT.601 colours. A video that names none is read in these, too, as FFmpeg does. The numbers are those
# of ITU-T H.273: unspecified, BT.470 (the same matrix), BT.601.
_BT601 = {2, 5, 6}


def planar_frame(frame: av.VideoFrame, rgb: Callable[[av.VideoFrame], np.ndarray]) -> PlanarFrame | None:
    """The planes of a frame of 8 bits in BT.601 colours; None for any other frame.

    Args:
        frame: as it was decoded.
        rgb: makes its image, where somebody asks for it.
    """
    name = frame.format.name
    if name not in _LIMITED | _FULL or int(frame.colorspace) not in _BT601:
        return None
    limited = name in _LIMITED and int(frame.color_range) != int(ColorRange.JPEG)
    planes: Planes = (_samples(frame.planes[0]), _samples(frame.planes[1]), _samples(frame.planes[2]))
    return PlanarFrame(planes, limited, partial(rgb, frame))


def _samples(plane: VideoPlane) -> np.ndarray:
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
    return rows[: plane.height, : plane.width]
