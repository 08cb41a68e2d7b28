"""Frames out of video files, through PyAV: H.264, AV1 and whatever else FFmpeg knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av

from robo_core.errors import ImportSourceError
from robo_datasets.store.unreadable import why_unreadable


@dataclass(frozen=True)
class VideoHeader:
    """What a video file says of itself; ``frames`` is 0 where it does not say."""

    frames: int
    height: int
    width: int
    codec: str
    fps: float
    """Average frames per second; 0 where it does not say."""
    pixel_format: str
    bits: int = 8
    """Bits a sample of the pixel format."""
    seconds: float = 0.0
    """Length; 0 where it does not say."""
    start: float = 0.0
    """When the first frame is shown."""


def video_header(path: Path) -> VideoHeader:
    """Read a video file's header.

    Raises:
        ImportSourceError: the file is missing, truncated, or holds no video.
    """
    with opened_video(path) as container:
        stream = container.streams.video[0]
        context, rate, unit = stream.codec_context, float(stream.average_rate or 0), float(stream.time_base or 0)
        return VideoHeader(
            stream.frames,
            stream.height,
            stream.width,
            context.name,
            rate,
            context.pix_fmt or "",
            sample_bits(context.pix_fmt or ""),
            (stream.duration or 0) * unit,
            (stream.start_time or 0) * unit,
        )


def sample_bits(pixel_format: str) -> int:
    """Bits of the first component of a pixel format; 8 for one that is not known."""
    try:
        return int(av.VideoFormat(pixel_format, 16, 16).components[0].bits)
    except (ValueError, IndexError):
        return 8


@contextmanager
def opened_video(path: Path) -> Iterator[av.container.InputContainer]:
    """A container with at least one video stream.

    Raises:
        ImportSourceError: the file is missing, truncated, or holds no video.
    """
    if not path.is_file():
        raise ImportSourceError(f"{path} is missing")
    try:
        # Other libraries of the same process (LeRobot) let FFmpeg print to stderr; its faults are raised here instead.
        av.logging.set_libav_level(av.logging.PANIC)
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        why = why_unreadable(path, f"is truncated or no video: {error.strerror}")
        raise ImportSourceError(f"{path} {why}") from error
    with container:
        if not container.streams.video or container.streams.video[0].codec_context is None:
            raise ImportSourceError(f"{path} holds no video")
        yield container
