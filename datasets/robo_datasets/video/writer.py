"""Frames into mp4 files, through PyAV: H.264 or AV1 at a constant frame rate."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from robo_core.errors import ConfigError, MissingPartError, StoreError

# Encoder, its options at constant quality, and the quality that frames keep within the tolerance that
# docs/importing.md states. Presets are the fastest at which the file is not much larger.
# Without x264's macroblock tree, which gains nothing with key frames this close and makes about one file in 300
# come out differently: the same frames shall give the same bytes.
_ENCODERS: dict[str, tuple[str, dict[str, str], int]] = {
    "h264": ("libx264", {"preset": "veryfast", "x264-params": "mbtree=0"}, 18),
    "av1": ("libsvtav1", {"preset": "10"}, 20),
}
CODECS = tuple(_ENCODERS)
PIXEL_FORMATS = ("yuv420p", "yuv444p")
_MAX_CRF = {"h264": 51, "av1": 63}


def check_video_settings(codec: str, crf: int | None, gop: int, pixel_format: str) -> None:
    """Check settings for ``VideoWriter``.

    Raises:
        ConfigError: names the one that is wrong.
        MissingPartError: the installed PyAV lacks the encoder.
    """
    if codec not in _ENCODERS:
        raise ConfigError(f"codec={codec} is not one of: {', '.join(CODECS)}")
    if crf is not None and not 0 <= crf <= _MAX_CRF[codec]:
        raise ConfigError(f"crf={crf} is outside 0 to {_MAX_CRF[codec]} for {codec}")
    if gop < 1:
        raise ConfigError(f"gop={gop} must be at least 1 frame from one key frame to the next")
    if pixel_format not in PIXEL_FORMATS or (codec == "av1" and pixel_format != "yuv420p"):
        known = "yuv420p" if codec == "av1" else ", ".join(PIXEL_FORMATS)
        raise ConfigError(f"pixel_format={pixel_format} is not one of: {known} ({codec})")
    try:
        av.codec.Codec(_ENCODERS[codec][0], "w")
    except av.codec.codec.UnknownCodecError as error:
        raise MissingPartError(
            f"this PyAV has no {_ENCODERS[codec][0]} encoder; install PyAV from PyPI or choose another codec"
        ) from error


class VideoWriter:
    """Writes one mp4 file: ``with VideoWriter(path, 240, 320, 30) as video: video.add(frame)``.

    The file appears under its name only when the block ends well.
    """

    def __init__(
        self,
        path: str | Path,
        height: int,
        width: int,
        fps: float,
        codec: str = "h264",
        crf: int | None = None,
        gop: int = 2,
        pixel_format: str = "yuv420p",
    ) -> None:
        check_video_settings(codec, crf, gop, pixel_format)
        self.frames = 0
        self._path = Path(path)
        self._part = self._path.with_name(f".{self._path.name}.part")
        self._shape = (height, width, 3)
        encoder, options, standard = _ENCODERS[codec]
        if height % 2 or width % 2:
            # Halved colour planes need even sides.
            if codec == "av1":
                raise ConfigError(f"AV1 needs even sides, the frames are {height}x{width}; choose codec=h264")
            pixel_format = "yuv444p"
        self._container = av.open(str(self._part), "w", format="mp4")
        options = {**options, "crf": str(standard if crf is None else crf)}
        if codec == "av1":
            # SVT-AV1 prints its settings to the terminal unless its own log is turned off.
            os.environ.setdefault("SVT_LOG", "1")
            options["svtav1-params"] = "lp=1"
        rate = Fraction(fps).limit_denominator(1_000_000)
        stream = cast(av.VideoStream, self._container.add_stream(encoder, rate=rate, options=options))
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        context = stream.codec_context
        context.gop_size, context.thread_count = gop, 1
        # B frames save little between key frames this close, and cost a decoder a frame of delay.
        context.max_b_frames = 0
        context.time_base = 1 / rate
        context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU601
        self._stream = stream

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file, or drop it when the block raised."""
        if kind is None and self.frames:
            self._container.mux(self._stream.encode())
        self._container.close()
        if kind is None and self.frames:
            os.replace(self._part, self._path)
        else:
            self._part.unlink(missing_ok=True)

    def add(self, frame: np.ndarray) -> None:
        """Append a uint8 RGB (H, W, 3) frame.

        Raises:
            StoreError: the frame has another shape or type.
        """
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise StoreError(f"the video {self._path} takes {self._shape} uint8, got {frame.shape} {frame.dtype}")
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        image = image.reformat(
            format=self._stream.pix_fmt,
            src_colorspace=Colorspace.ITU601,
            dst_colorspace=Colorspace.ITU601,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
        )
        image.pts, image.time_base = self.frames, self._stream.codec_context.time_base
        self._container.mux(self._stream.encode(image))
        self.frames += 1
