"""Decode videos with PyAV and encode every frame as JPEG with OpenCV, and nothing else: what an import is measured by.

    python benchmarks/plain_decoding.py --workers N VIDEO...

The shortest way through both libraries' own calls: one decoder thread a process, frames as PyAV gives them to OpenCV
(blue first), JPEG as the store has it (quality 95, 4:4:4). The JPEG bytes are dropped.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor

import av
import cv2

JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


def decode_and_encode(path: str) -> int:
    """Every frame of a video as JPEG; returns how many."""
    count = 0
    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for frame in container.decode(video=0):
            cv2.imencode(".jpg", frame.to_ndarray(format="bgr24"), JPEG)[1].tobytes()
            count += 1
    return count


def main() -> None:
    """Work through all videos, and say how many frames they have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("videos", nargs="+")
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.workers) as pool:
        print(sum(pool.map(decode_and_encode, arguments.videos)), "frames")


if __name__ == "__main__":
    main()
