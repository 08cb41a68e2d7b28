"""What is lost between a camera and a store: JPEG from the planes of a video against JPEG by way of RGB.

    python benchmarks/video_colours.py

Three scenes are drawn as RGB, encoded as H.264 (crf 10, 4:2:0), decoded, and stored as JPEG of quality 95: from the
decoder's planes, as imports do it, and from its RGB images (4:4:4), as PyAV and OpenCV do it. Mean absolute differences
to what was drawn, in levels of 255, mean JPEG bytes, and milliseconds a frame to make them.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import av
import cv2
import numpy as np

from robo_core.console import print_table
from robo_datasets.store.jpeg import decode_frame, frame_encoder
from robo_datasets.video.presentation_times import colours_shown_at, frames_shown_at, shown_frames

HEIGHT, WIDTH, FRAMES = 240, 320, 30


def scene(name: str, number: int) -> np.ndarray:
    """One drawn image (H, W, 3)."""
    if name == "blocks":
        image = np.full((HEIGHT, WIDTH, 3), (40, 60, 90), np.uint8)
        image[50:125, 25 + number : 100 + number] = 230, 30, 30
        image[140:200, 225 - number : 290 - number] = 20, 220, 40
        image[12:38, 150:152] = 255, 255, 0
        return image
    if name == "waves":
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        waves = 128 + 100 * np.sin((x + number) / 50), 128 + 100 * np.cos(y / 40), 128 + 100 * np.sin((x + y) / 60)
        return np.stack(waves, -1).astype(np.uint8)
    noise = np.random.default_rng(number).integers(0, 255, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8)
    return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def film(path: Path, images: list[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    """Print the table."""
    encode, rows = frame_encoder(95, "4:4:4"), []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("waves", "blocks", "noise"):
            images = [scene(name, number) for number in range(FRAMES)]
            path = Path(folder) / f"{name}.mp4"
            film(path, images)
            ticks = shown_frames(path).ticks
            for way, frames in (("planes", colours_shown_at(path, ticks)), ("rgb", frames_shown_at(path, ticks))):
                decoded = list(frames)
                start = time.process_time()
                data = [encode(frame) for frame in decoded]
                spent = (time.process_time() - start) / FRAMES
                errors = [
                    np.abs(decode_frame(np.frombuffer(one, np.uint8)).astype(float) - image).mean()
                    for one, image in zip(data, images, strict=True)
                ]
                size = float(np.mean([len(one) for one in data]))
                rows.append([name, way, f"{np.mean(errors):.2f}", f"{size:.0f}", f"{1000 * spent:.2f}"])
    print_table("From the camera to the store", ["scene", "made from", "mean difference", "bytes", "ms"], rows)


if __name__ == "__main__":
    main()
