"""Floods image topics with what they should never carry: TOPIC=KIND ... where KIND is one of `FLOODS`.

Ends with its parent. Publishers are best effort, as cameras are.
"""

from __future__ import annotations

import struct
import sys
import time
import zlib
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from robo_rm_bridge.conversions import sensor_qos

WIDTH, HEIGHT = 3840, 2160
RAW_WIDTH, RAW_HEIGHT = 1280, 720
"""Larger ones lose fragments on loopback and never arrive whole."""
HUGE = 14_000


def noise(width: int, height: int) -> np.ndarray:
    return cv2.resize(np.random.default_rng(0).integers(0, 255, (135, 240, 3), np.uint8), (width, height))


def jpeg(width: int, height: int) -> CompressedImage:
    """An ordinary camera's image, only larger."""
    data = cv2.imencode(".jpg", noise(width, height), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return CompressedImage(format="jpeg", data=data.tobytes())


def huge_png() -> CompressedImage:
    """Half a megabyte that claims 14 000 x 14 000 pixels, and keeps its word where it is decoded."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * HUGE)
    body = b"".join(packer.compress(row) for _ in range(HUGE)) + packer.flush()
    header = struct.pack(">IIBBBBB", HUGE, HUGE, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return CompressedImage(format="png", data=data)


def raw(**changes: Any) -> Image:
    """A raw image that is too large, or one that lies about itself."""
    fields: dict[str, Any] = {"width": RAW_WIDTH, "height": RAW_HEIGHT, "step": 3 * RAW_WIDTH, "encoding": "rgb8"}
    image = Image(**(fields | changes))
    image.data = bytes(image.step * image.height) if not changes else bytes(128 * 128 * 3)
    return image


FLOODS = {
    "jpeg4k": (lambda: jpeg(WIDTH, HEIGHT), 30.0),
    "png14k": (huge_png, 2.0),
    "raw": (raw, 10.0),
    "lying_step": (lambda: raw(width=128, height=128, step=2**31), 30.0),
    "lying_encoding": (lambda: raw(width=128, height=128, step=384, encoding="mono8"), 30.0),
}
"""What is published, and how often a second."""


def main() -> None:
    rclpy.init()
    node = Node("image_flood")
    for word in sys.argv[1:]:
        topic, _, kind = word.partition("=")
        make, rate = FLOODS[kind]
        message: Any = make()
        publisher = node.create_publisher(type(message), topic, sensor_qos())

        def publish(message: Any = message, publisher: Any = publisher) -> None:
            now = time.time_ns()
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 1_000_000_000)
            publisher.publish(message)

        node.create_timer(1.0 / rate, publish)
    print("flooding", flush=True)
    rclpy.spin(node)


if __name__ == "__main__":
    main()
