"""When the frames of a video are shown: presentation times from the container, and which frame belongs to which moment.

Neither the order of packets (B-frames), nor the number of frames or the average rate in a header (edit lists, variable
rate) says this. Packets that an edit list hides, as ``ffmpeg -c copy`` leaves in front of a cut, count for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby, repeat
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from robo_core.errors import ImportSourceError
from robo_datasets.store.planar import PlanarFrame
from robo_datasets.video.decoder import opened_video
from robo_datasets.video.planes import planar_frame

PixelsT = TypeVar("PixelsT")

_ROUNDING = 1e-6
# Time stamps are 32-bit floats; so near to the middle neither frame is nearer.
_TIE = 1e-4


@dataclass(frozen=True)
class ShownFrames:
    """Frames in order of display: (n,) presentation times as ticks and in seconds, and hashes of their packets."""

    ticks: np.ndarray
    seconds: np.ndarray
    packets: list[bytes]


def shown_frames(path: Path, start: float | None = None, end: float | None = None) -> ShownFrames:
    """Read, without decoding, when a video's frames are shown.

    Args:
        path: the video.
        start: seconds; frames that are shown earlier are left out. From the first one by default.
        end: seconds; frames that are shown later are left out. To the last one by default.

    Raises:
        ImportSourceError: the file is missing or damaged, or does not say when its frames are shown.
    """
    found: dict[int, bytes] = {}
    with opened_video(path) as container:
        stream = container.streams.video[0]
        unit = float(stream.time_base or 0)
        if not unit:
            raise ImportSourceError(f"{path} does not say when its frames are shown: its clock has no unit")
        if start is not None and start > 0:
            container.seek(max(int(start / unit) - 1, 0), stream=stream)
        try:
            for packet in container.demux(stream):
                tick = packet.pts if packet.pts is not None else packet.dts
                if tick is None or packet.is_discard:
                    continue
                # Decoding time never lies after that of display: nothing shown by ``end`` comes later.
                if end is not None and packet.dts is not None and packet.dts * unit > end:
                    break
                if packet.is_corrupt:
                    raise ImportSourceError(f"{path} is truncated or damaged at {tick * unit:.3f} s")
                if (start is None or tick * unit >= start) and (end is None or tick * unit <= end):
                    found[tick] = sha256(packet).digest()
        except av.FFmpegError as error:
            raise ImportSourceError(f"{path} is truncated or damaged: {error.strerror}") from error
    ticks = sorted(found)
    return ShownFrames(np.array(ticks, np.int64), np.array(ticks, np.float64) * unit, [found[tick] for tick in ticks])


@dataclass(frozen=True)
class Matched:
    """Which frame belongs to each moment, (n,) int, and how well."""

    picks: np.ndarray
    row: int | None
    """The first moment without a frame within the tolerance; None where all have one."""
    distance: float
    """Seconds from that moment (or from the worst one) to the frame that is nearest."""
    repeated: int
    """How many moments have the same frame as the one before."""


def match_times(shown: np.ndarray, wanted: np.ndarray, tolerance: float) -> Matched:
    """The frame nearest in time to each moment.

    Args:
        shown: (m,) rising presentation times in seconds.
        wanted: (n,) moments in seconds.
        tolerance: seconds that the two may lie apart.
    """
    if not len(shown):
        return Matched(np.zeros(len(wanted), np.int64), 0, float("inf"), 0)
    after = np.clip(np.searchsorted(shown, wanted), 0, len(shown) - 1)
    before = np.maximum(after - 1, 0)
    # Half-way between two frames it is the earlier one, which is what the camera still showed.
    picks = np.where(np.abs(shown[before] - wanted) <= np.abs(shown[after] - wanted) + _TIE, before, after)
    distances = np.abs(shown[picks] - wanted)
    far = np.flatnonzero(distances > tolerance + _ROUNDING)
    row = int(far[0]) if len(far) else None
    worst = float(distances[row] if row is not None else distances.max(initial=0.0))
    return Matched(picks, row, worst, int((np.diff(picks) <= 0).sum()))


def frames_shown_at(path: Path, ticks: np.ndarray, kind: str = "rgb", threads: int = 1) -> Iterator[np.ndarray]:
    """Decode the frames with these presentation times.

    Args:
        path: the video.
        ticks: (n,) presentation times in the stream's own units, not falling; a frame may be asked for again.
        kind: "rgb" gives uint8 (H, W, 3), a view of rows that are kept blue first; "grey" uint8 (H, W, 1); "codes" the
            first plane of a format of more than 8 bits as it was encoded, uint16 (H, W, 1).
        threads: decoder threads.

    Raises:
        ImportSourceError: the file is missing or damaged; names the time.
    """
    return _shown_at(path, ticks, pixel_reader(kind), threads)


def colours_shown_at(path: Path, ticks: np.ndarray) -> Iterator[np.ndarray | PlanarFrame]:
    """As ``frames_shown_at``, with the planes that the decoder gives where they are in the colours that JPEG has."""
    rgb = pixel_reader("rgb")
    return _shown_at(path, ticks, lambda frame: planar_frame(frame, rgb) or rgb(frame), threads=1)


def _shown_at(
    path: Path, ticks: np.ndarray, pixels: Callable[[av.VideoFrame], PixelsT], threads: int
) -> Iterator[PixelsT]:
    if not len(ticks):
        return
    with opened_video(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = threads
        unit = float(stream.time_base or 0)
        try:
            # From the key frame in front of it; the first of a file needs no search.
            if ticks[0] * unit > (stream.start_time or 0) * unit + 1.0:
                container.seek(int(ticks[0]), stream=stream)
            frames = container.decode(stream)
            at: int | None = None
            frame: av.VideoFrame | None = None
            for tick, equal in groupby(ticks.tolist()):
                while at is None or at < tick:
                    frame = next(frames, None)
                    if frame is None:
                        break
                    at = _tick(frame)
                if frame is None or at != tick or frame.is_corrupt:
                    raise ImportSourceError(f"{path} is damaged: its frame at {tick * unit:.3f} s cannot be decoded")
                yield from repeat(pixels(frame), len(list(equal)))
        except av.FFmpegError as error:
            raise ImportSourceError(f"{path} is truncated or damaged: {error.strerror}") from error


def _tick(frame: av.VideoFrame) -> int:
    tick = frame.pts if frame.pts is not None else frame.dts
    return -1 << 62 if tick is None else int(tick)


def pixel_reader(kind: str) -> Callable[[av.VideoFrame], np.ndarray]:
    """A function from the decoded frames of one video to their pixels; ``kind`` as in ``frames_shown_at``."""
    if kind == "codes":
        return _codes
    # Kept for all frames: PyAV's own to_ndarray sets up a scaler for each of them.
    scale = VideoReformatter().reformat

    def colours(frame: av.VideoFrame) -> np.ndarray:
        # Blue first, as OpenCV's JPEG encoder takes it: encoding then copies no pixels.
        return _plane(scale(frame, format="bgr24"), 3)[..., ::-1]

    return colours if kind == "rgb" else lambda frame: _plane(scale(frame, format="gray"), 1)


def _plane(frame: av.VideoFrame, channels: int) -> np.ndarray:
    """Pixels (H, W, C) of a frame of bytes; a view of the frame's own memory, which is nobody else's."""
    (plane,) = frame.planes
    height, width, line = frame.height, frame.width, plane.line_size
    pixels = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]
    if line != width * channels:  # rows are filled up to whole words
        pixels = np.ascontiguousarray(pixels.reshape(-1, line)[:height, : width * channels])
    return pixels.reshape(height, width, channels)


def _codes(frame: av.VideoFrame) -> np.ndarray:
    plane = frame.planes[0]
    words = np.frombuffer(memoryview(plane), np.dtype("<u2")).reshape(-1, plane.line_size // 2)
    return words[: frame.height, : frame.width, None].copy()
