"""Videos that are stored lying and shown upright: phones and action cameras note the turn in the container.

Decoders give the images as they are stored; players, and people who mark frames in them, see them turned.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import av
import numpy as np

from robo_core.errors import ImportSourceError
from robo_datasets.store.planar import PlanarFrame
from robo_datasets.video.decoder import opened_video

_UPRIGHT = (1 << 16, 0, 0, 0, 1 << 16)
# Where the matrix of a track header begins behind its name, by version.
_MATRIX = {0: 40, 1: 52}


def quarter_turns(path: Path) -> int:
    """Quarter turns counterclockwise, 0 to 3, that bring a video's images into the position they are shown in.

    Raises:
        ImportSourceError: the file is missing or damaged.
    """
    if path.suffix.lower() in (".mp4", ".mov", ".m4v") and not _says_turned(path):
        return 0  # most files: without decoding anything
    try:
        with opened_video(path) as container:
            first = next(container.decode(video=0), None)
    except av.FFmpegError as error:
        raise ImportSourceError(f"{path} is truncated or damaged: {error.strerror}") from error
    return 0 if first is None else round(first.rotation / 90) % 4


def turned(frame: np.ndarray | PlanarFrame, turns: int) -> np.ndarray | PlanarFrame:
    """An image (H, W, C) as it is shown."""
    if not turns:
        return frame
    return frame.turned(turns) if isinstance(frame, PlanarFrame) else np.ascontiguousarray(np.rot90(frame, turns))


def _says_turned(path: Path) -> bool:
    """Whether any track header of an MP4 file has another matrix than one that leaves images as they are."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            at = data.find(b"tkhd")
            while at >= 0:
                start = at + 4 + _MATRIX.get(data[at + 4] if at + 4 < len(data) else -1, len(data))
                matrix = data[start : start + 20]
                if len(matrix) == 20 and struct.unpack(">5i", matrix) != _UPRIGHT:
                    return True
                at = data.find(b"tkhd", at + 4)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False
    return False
