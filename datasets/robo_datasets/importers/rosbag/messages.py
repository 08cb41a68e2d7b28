"""ROS messages to arrays: images, joints, trajectories, and numbers by their place in the message."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import numpy.typing as npt

from robo_core.errors import ImportSourceError
from robo_datasets.importers.rosbag.depth import decode_compressed_depth, is_compressed_depth
from robo_datasets.store.depth import millimetres

if TYPE_CHECKING:  # messages of the bag's own types have the same fields
    from rosbags.typesys.stores.ros2_humble import (
        sensor_msgs__msg__CompressedImage as CompressedImage,
    )
    from rosbags.typesys.stores.ros2_humble import (
        sensor_msgs__msg__Image as Image,
    )
    from rosbags.typesys.stores.ros2_humble import (
        sensor_msgs__msg__JointState as JointState,
    )
    from rosbags.typesys.stores.ros2_humble import (
        trajectory_msgs__msg__JointTrajectory as Trajectory,
    )

ALIGNMENTS = ("hold", "nearest")
DTYPES = ("float32", "float64")

_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_JOINTS, _TRAJECTORY = "sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory"
# Encoding to channels, type of a channel, and what brings it to RGB.
_ENCODINGS: dict[str, tuple[int, str, int | None]] = {
    "rgb8": (3, "uint8", None),
    "bgr8": (3, "uint8", cv2.COLOR_BGR2RGB),
    "8UC3": (3, "uint8", None),
    "rgba8": (4, "uint8", cv2.COLOR_RGBA2RGB),
    "bgra8": (4, "uint8", cv2.COLOR_BGRA2RGB),
    "mono8": (1, "uint8", None),
    "8UC1": (1, "uint8", None),
    "mono16": (1, "uint16", None),
    "16UC1": (1, "uint16", None),
    "32FC1": (1, "float32", None),  # metres, by ROS's convention (REP 118)
    "yuv422": (2, "uint8", cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, "uint8", cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, "uint8", cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, "uint8", cv2.COLOR_YUV2RGB_YUY2),
    "bayer_rggb8": (1, "uint8", cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": (1, "uint8", cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": (1, "uint8", cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": (1, "uint8", cv2.COLOR_BayerGRBG2RGB),
}


_DEPTH = ("16UC1", "32FC1")


@dataclass(frozen=True)
class TopicMapping:
    """How the messages of a topic become a feature."""

    topic: str
    feature: str
    align: str = "hold"
    """hold: the last message at or before the frame; nearest: the one nearest to it."""
    max_age: float = 0.2
    """Seconds that the message's stamp may lie away from the frame."""
    fields: tuple[str, ...] = ()
    """Where in the message the numbers stand, for instance pose.position.x; by default what its type suggests."""
    names: tuple[str, ...] = ()
    """Joints in order, for messages that name them; all, in the order of the first message, by default."""
    point: str = "first"
    """Which point of a trajectory: first or last."""
    dtype: str = "float32"
    type: str = ""
    """Which messages, where a topic is recorded in several types, for instance std_msgs/msg/Float64MultiArray."""
    channel: int | None = None
    """Which channel of a topic that has several (MCAP); all by default."""

    def check(self, where: str) -> None:
        """Check the values.

        Raises:
            ImportSourceError: names ``where``, the topic and the key.
        """
        about = f"{where}, topic {self.topic}"
        if not self.topic.startswith("/") or not self.feature:
            raise ImportSourceError(f"{about}: a topic begins with / and needs a feature")
        if self.align not in ALIGNMENTS:
            raise ImportSourceError(f"{about}: align={self.align} is not one of: {', '.join(ALIGNMENTS)}")
        if not (math.isfinite(self.max_age) and self.max_age > 0):
            raise ImportSourceError(f"{about}: max_age={self.max_age} must be seconds above 0")
        if self.point not in ("first", "last"):
            raise ImportSourceError(f"{about}: point={self.point} is not one of: first, last")
        if self.dtype not in DTYPES:
            raise ImportSourceError(f"{about}: dtype={self.dtype} is not one of: {', '.join(DTYPES)}")


def header_stamp(raw: bytes) -> int:
    """Nanoseconds of the header that a CDR message begins with; 0 where it was not stamped.

    Raises:
        ImportSourceError: the message is too short.
    """
    if len(raw) < 12:
        raise ImportSourceError(f"a message of {len(raw)} bytes ends within its header")
    seconds, rest = struct.unpack(("<" if raw[1] & 1 else ">") + "iI", raw[4:12])
    return int(seconds) * 1_000_000_000 + int(rest)


def joints_of(message: object, kind: str, mapping: TopicMapping) -> tuple[str, ...] | None:
    """The joints whose values a message holds, in its order; None for messages that do not name joints.

    Raises:
        ImportSourceError: a joint is named twice, or the numbers of names and values differ.
    """
    if mapping.fields or kind not in (_JOINTS, _TRAJECTORY):
        return None
    if kind == _TRAJECTORY:
        return tuple(cast("Trajectory", message).joint_names)
    joints = cast("JointState", message)
    names = tuple(joints.name)
    if not len(joints.position) and (len(joints.velocity) or len(joints.effort) or not names):
        return ()  # another publisher's speeds or torques
    if len(names) != len(joints.position):
        raise ImportSourceError(f"a message names {len(names)} joints and has {len(joints.position)} positions")
    twice = sorted({name for name in names if names.count(name) > 1} & set(mapping.names or names))
    if twice:
        raise ImportSourceError(f"a message names the joints {twice} twice")
    return names


def is_depth(message: object, kind: str) -> bool:
    """Whether a message is a depth image; it is decoded to millimetres, uint16."""
    if kind == _COMPRESSED:
        encoded = cast("CompressedImage", message).format
        return is_compressed_depth(encoded) or encoded.startswith("16UC1")
    return kind == _IMAGE and cast("Image", message).encoding in _DEPTH


def decode(message: object, kind: str, mapping: TopicMapping) -> np.ndarray:
    """A message as an array: images (H, W, C), everything else (D,).

    Raises:
        ImportSourceError: the message does not fit its own description or the mapping.
    """
    if kind == _IMAGE:
        return _image(cast("Image", message))
    if kind == _COMPRESSED:
        return _compressed(cast("CompressedImage", message))
    if mapping.fields:
        values = np.concatenate([_numbers(message, field) for field in mapping.fields])
    elif kind == _JOINTS:
        joints = cast("JointState", message)
        values = _by_name(joints.name, joints.position, mapping)
    elif kind == _TRAJECTORY:
        trajectory = cast("Trajectory", message)
        if not len(trajectory.points):
            raise ImportSourceError("the trajectory has no points")
        point = trajectory.points[0 if mapping.point == "first" else -1]
        values = _by_name(trajectory.joint_names, point.positions, mapping)
    elif hasattr(message, "data"):
        values = _numbers(message, "data")
    else:
        raise ImportSourceError(f"messages of type {kind} need fields: [...] in the mapping")
    return np.asarray(values, np.float64).astype(mapping.dtype)


def _image(message: Image) -> np.ndarray:
    known = _ENCODINGS.get(message.encoding)
    if known is None:
        raise ImportSourceError(f"images in {message.encoding!r} are not read; known are {', '.join(_ENCODINGS)}")
    channels, dtype, conversion = known
    width = message.width * channels * np.dtype(dtype).itemsize
    data = np.asarray(message.data, np.uint8)
    if not width or message.step < width or len(data) != message.step * message.height:
        raise ImportSourceError(
            f"an image {message.height}x{message.width} in {message.encoding} with {message.step} bytes a row has "
            f"{len(data)} bytes"
        )
    rows = np.ascontiguousarray(data.reshape(message.height, message.step)[:, :width])
    kind = np.dtype(dtype).newbyteorder(">" if message.is_bigendian else "<")
    pixels = rows.view(kind).astype(dtype, copy=False).reshape(message.height, message.width, channels)
    if message.encoding == "32FC1":
        return _metres(pixels)
    if conversion is None:
        return pixels
    try:
        return cv2.cvtColor(pixels, conversion)
    except cv2.error as error:
        size = f"{message.height}x{message.width}"
        raise ImportSourceError(f"an image {size} in {message.encoding} cannot be converted: {error.err}") from error


def _metres(depth: np.ndarray) -> np.ndarray:
    try:
        return millimetres(depth)
    except ValueError as error:
        raise ImportSourceError(str(error)) from error


def _compressed(message: CompressedImage) -> np.ndarray:
    data = np.asarray(message.data, np.uint8)
    if is_compressed_depth(message.format):
        depth = decode_compressed_depth(data, message.format)
        return depth if depth.dtype == np.uint16 else _metres(depth)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    except cv2.error as error:
        raise ImportSourceError(f"a compressed image cannot be decoded: {error.err}") from error
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise ImportSourceError(f"a compressed image ({message.format!r}, {len(data)} bytes) cannot be decoded")
    if image.ndim == 2:
        return image[:, :, None]
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _by_name(names: Sequence[str], values: npt.NDArray[np.float64], mapping: TopicMapping) -> np.ndarray:
    found = dict(zip(names, np.asarray(values, np.float64), strict=False))
    if len(names) != len(values):
        raise ImportSourceError(f"a message names {len(names)} joints and has {len(values)} positions")
    wanted = mapping.names or tuple(names)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ImportSourceError(f"a message lacks the joints {missing}; it has {list(names)}")
    return np.array([found[name] for name in wanted])


def _numbers(message: object, field: str) -> np.ndarray:
    value = message
    for part in field.split("."):
        if part.startswith("_") or not hasattr(value, part):
            raise ImportSourceError(f"a message has no field {field}")
        value = getattr(value, part)
    try:
        return np.atleast_1d(np.asarray(value, np.float64)).ravel()
    except (TypeError, ValueError) as error:
        raise ImportSourceError(f"the field {field} holds no numbers") from error
