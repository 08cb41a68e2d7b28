"""Images as messages, raw or compressed, without cv_bridge.

A camera whose topic ends in ``/compressed`` sends `sensor_msgs/CompressedImage`, as `image_transport` names it; every
other sends `sensor_msgs/Image`. What is too large, or lies about its size, is refused before it is decoded.
"""

from __future__ import annotations

import array
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from robo_hw.observation.image_header import ImageHeaderError, read_header
from robo_rm_bridge.errors import MessageError
from robo_rm_bridge.wire import read_compressed, read_image

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time
    from sensor_msgs.msg import CompressedImage, Image

_CHANNELS = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
}
_QUALITY = 95
_BYTES_PER_PIXEL = 8
"""16 bits in four channels: no compressed image is larger."""
_OVERHEAD = 1 << 16


def is_compressed(topic: str) -> bool:
    """Whether the messages of a camera's topic are compressed."""
    return topic.endswith("/compressed")


def image_type(topic: str) -> type[CompressedImage | Image]:
    """The message type that comes on a camera's topic."""
    from sensor_msgs.msg import CompressedImage, Image

    return CompressedImage if is_compressed(topic) else Image


def decode(message: bytes, compressed: bool, width: int, height: int) -> tuple[np.ndarray, tuple[int, int]]:
    """A serialized message as (H, W, 3) uint8 RGB and its stamp (seconds, nanoseconds).

    `Image` in rgb8, bgr8, rgba8, bgra8 or mono8; `CompressedImage` in JPEG or PNG, 8 bits per channel.

    Raises:
        MessageError: the size is not the contract's, another encoding, data that do not fit what is declared or cannot
            be decoded, or no OpenCV to decode with.
    """
    return _decompressed(message, width, height) if compressed else _raw(message, width, height)


def message_from_rgb(topic: str, rgb: np.ndarray, frame: str, stamp: Time) -> CompressedImage | Image:
    """(H, W, 3) uint8 RGB as the message that belongs on the topic; compressed ones are JPEG of quality 95."""
    from sensor_msgs.msg import CompressedImage, Image

    height, width, _ = rgb.shape
    message: CompressedImage | Image
    if is_compressed(topic):
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


def _raw(message: bytes, width: int, height: int) -> tuple[np.ndarray, tuple[int, int]]:
    image = read_image(message)
    _require_size(image.width, image.height, width, height)
    channels, order = _CHANNELS.get(image.encoding, (0, ()))
    if channels == 0:
        known = ", ".join(_CHANNELS)
        raise MessageError(f"encoding {image.encoding!r} is not among {known}; set the driver's encoding to rgb8")
    if image.step // width != channels:
        raise MessageError(
            f"step {image.step} is {image.step / width:g} bytes per pixel, but the encoding {image.encoding} has "
            f"{channels}; fix the driver"
        )
    if len(image.data) != height * image.step:
        raise MessageError(
            f"{len(image.data)} bytes of data; {height} rows of {image.step} bytes ({image.encoding}) are "
            f"{height * image.step}; fix the driver"
        )
    rows = np.frombuffer(image.data, np.uint8).reshape(height, image.step)[:, : width * channels]
    pixels = rows.reshape(height, width, channels)
    return np.ascontiguousarray(pixels[..., order] if order != (0, 1, 2) else pixels[..., :3]), image.stamp


def _decompressed(message: bytes, width: int, height: int) -> tuple[np.ndarray, tuple[int, int]]:
    image = read_compressed(message)
    try:
        header = read_header(image.data)
    except ImageHeaderError as error:
        raise MessageError(
            f"a compressed image (format {image.format!r}) cannot be decoded: {error}; JPEG and PNG can"
        ) from None
    _require_size(header.width, header.height, width, height)
    most = _BYTES_PER_PIXEL * width * height + _OVERHEAD
    if len(image.data) > most:
        raise MessageError(f"a compressed image of {len(image.data)} bytes; at this size at most {most} are taken")
    cv2 = _opencv()
    try:
        # The orientation that a camera writes into its JPEG is not what the policy was trained with.
        bgr = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        bgr = None
    if bgr is None:
        raise MessageError(f"a compressed image (format {image.format!r}) cannot be decoded: damaged {header.format}")
    _require_size(bgr.shape[1], bgr.shape[0], width, height)
    return np.ascontiguousarray(bgr[..., ::-1]), image.stamp


def _require_size(width: int, height: int, wanted_width: int, wanted_height: int) -> None:
    if (width, height) != (wanted_width, wanted_height):
        raise MessageError(
            f"{width} x {height} pixels, the contract has {wanted_width} x {wanted_height}; set the driver's size, or "
            "name the topic of a node that scales"
        )


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise MessageError(
            f"compressed images need OpenCV in the robot's Python ({error}): apt install python3-opencv, or name the "
            "camera's raw topic in the contract"
        ) from error
    return cv2
