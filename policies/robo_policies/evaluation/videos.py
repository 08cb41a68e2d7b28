"""Writing pictures as an mp4 that browsers play."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np


def write_video(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """Write ``frames``, each (H, W, 3) uint8 RGB, as H.264 to ``path``; odd sizes lose their last row or column.

    Raises:
        ValueError: there are no frames.
    """
    import av

    if not frames:
        raise ValueError(f"{path}: no frames to write")
    height, width = (size - size % 2 for size in frames[0].shape[:2])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.mp4")
    with av.open(str(partial), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "20", "preset": "veryfast"}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    partial.replace(path)
