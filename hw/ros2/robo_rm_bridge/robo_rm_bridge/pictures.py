"""Pictures as messages, raw or compressed, without cv_bridge.

A camera whose topic ends in ``/compressed`` sends `sensor_msgs/CompressedImage`, as `image_transport` names it; every
other sends `sensor_msgs/Image`.
"""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image

from robo_rm_bridge.conversions import MessageError

_CHANNELS = {"rgb8": (3, (0, 1, 2)), "bgr8": (3, (2, 1, 0)), "rgba8": (4, (0, 1, 2)), "bgra8": (4, (2, 1, 0))}
_QUALITY = 95
_MOST_BYTES = 32 << 20
"""A compressed picture is not larger; decoding more would only starve the control loop."""


def picture_type(topic: str) -> Any:
    """The message type that comes on a camera's topic."""
    return CompressedImage if topic.endswith("/compressed") else Image


def rgb_from_message(message: Any) -> np.ndarray:
    """A picture as (H, W, 3) uint8 RGB.

    `Image` in rgb8, bgr8, rgba8, bgra8 or mono8; `CompressedImage` in JPEG or PNG, 8 bits a channel.

    Raises:
        MessageError: another encoding, data that do not fit the size or cannot be decoded, or no OpenCV to decode with.
    """
    return _decompressed(message) if isinstance(message, CompressedImage) else _raw(message)


def message_from_rgb(topic: str, rgb: np.ndarray, frame: str, stamp: Time) -> Any:
    """(H, W, 3) uint8 RGB as the message that belongs on the topic; compressed ones are JPEG of quality 95."""
    height, width, _ = rgb.shape
    message: Any
    if picture_type(topic) is CompressedImage:
        cv2 = _opencv()
        _, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        message = CompressedImage(format="rgb8; jpeg compressed bgr8")
    else:
        data = np.ascontiguousarray(rgb, dtype=np.uint8)
        message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.header.frame_id, message.header.stamp = frame, stamp
    # An array of unsigned bytes is taken as it is; anything else rclpy checks byte by byte.
    message.data = array.array("B", data.tobytes())
    return message


def _raw(message: Image) -> np.ndarray:
    data = np.frombuffer(message.data, dtype=np.uint8)
    height, width, step = message.height, message.width, message.step
    channels, order = (1, (0, 0, 0)) if message.encoding == "mono8" else _CHANNELS.get(message.encoding, (0, ()))
    if channels == 0:
        known = ", ".join([*_CHANNELS, "mono8"])
        raise MessageError(f"encoding {message.encoding!r} is not among {known}; set the driver's encoding to rgb8")
    if height < 1 or width < 1 or step < width * channels or data.size != height * step:
        raise MessageError(f"{data.size} bytes do not make {height} rows of {step} bytes, {width} pixels each")
    rows = data.reshape(height, step)[:, : width * channels].reshape(height, width, channels)
    return np.ascontiguousarray(rows[..., order] if order != (0, 1, 2) else rows[..., :3])


def _decompressed(message: CompressedImage) -> np.ndarray:
    data = np.frombuffer(message.data, dtype=np.uint8)
    if not 0 < data.size <= _MOST_BYTES:
        raise MessageError(f"a compressed picture of {data.size} bytes; 1 to {_MOST_BYTES} are taken")
    cv2 = _opencv()
    try:
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:  # a header that claims too many pixels
        bgr = None
    if bgr is None:
        raise MessageError(f"a compressed picture (format {message.format!r}) cannot be decoded; JPEG and PNG can")
    return np.ascontiguousarray(bgr[..., ::-1])


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MessageError(
            f"compressed pictures need OpenCV in the robot's Python ({error}): apt install python3-opencv, or name the "
            "camera's raw topic in the contract"
        ) from error
    return cv2
