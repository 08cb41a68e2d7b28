"""Between ROS messages and numpy, without cv_bridge."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, JointState

from robo_hw.contract import Topic
from robo_hw.errors import HardwareError

_CHANNELS = {"rgb8": (3, (0, 1, 2)), "bgr8": (3, (2, 1, 0)), "rgba8": (4, (0, 1, 2)), "bgra8": (4, (2, 1, 0))}


class MessageError(HardwareError, ValueError):
    """A message cannot be used; says which field and why."""


def qos(topic: Topic) -> QoSProfile:
    """The quality of service that the contract asks for."""
    reliability = ReliabilityPolicy.RELIABLE if topic.reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
    durability = (
        DurabilityPolicy.TRANSIENT_LOCAL if topic.durability == "transient_local" else DurabilityPolicy.VOLATILE
    )
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=topic.depth, reliability=reliability, durability=durability
    )


def quiet_events() -> Any:
    """For a subscription that expects publishers of other qualities on its topic: it does not report them."""
    try:
        from rclpy.event_handler import SubscriptionEventCallbacks
    except ImportError:  # Humble
        from rclpy.qos_event import SubscriptionEventCallbacks
    return SubscriptionEventCallbacks(use_default_callbacks=False)


def sensor_qos(depth: int = 1) -> QoSProfile:
    """Best effort, only the newest: a late picture is of no use."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)


def latched_qos() -> QoSProfile:
    """Reliable, and the last one is given to those who come later."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def seconds(stamp: Time) -> float | None:
    """A stamp in seconds; None for the zero stamp, which means that the sender has no clock."""
    return stamp.sec + stamp.nanosec * 1e-9 if stamp.sec or stamp.nanosec else None


def time_message(moment: float) -> Time:
    """Seconds as a stamp."""
    return time_message_ns(round(moment * 1e9))


def time_message_ns(nanoseconds: int) -> Time:
    """Nanoseconds as a stamp."""
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def rgb_from_image(message: Image) -> np.ndarray:
    """A picture as (H, W, 3) uint8 RGB; from rgb8, bgr8, rgba8, bgra8 or mono8.

    Raises:
        MessageError: another encoding, or data that do not fit the size.
    """
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


def image_from_rgb(rgb: np.ndarray, frame: str, stamp: Time) -> Image:
    """(H, W, 3) uint8 RGB as a message."""
    height, width, _ = rgb.shape
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.header.frame_id, message.header.stamp = frame, stamp
    # An array of unsigned bytes is taken as it is; anything else rclpy checks byte by byte.
    message.data = array.array("B", np.ascontiguousarray(rgb, dtype=np.uint8).tobytes())
    return message


def joint_state(
    names: tuple[str, ...], positions: Any, velocities: Any | None, stamp: Time, frame: str = ""
) -> JointState:
    """Positions (D,), and velocities (D,) where known, as a message."""
    message = JointState(name=list(names), position=np.asarray(positions, dtype=np.float64).tolist())
    if velocities is not None:
        message.velocity = np.asarray(velocities, dtype=np.float64).tolist()
    message.header.stamp, message.header.frame_id = stamp, frame
    return message
