"""Between ROS messages and numpy; images are in `images`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState

from robo_hw.contract.parts import Topic

if TYPE_CHECKING:
    from rclpy.event_handler import SubscriptionEventCallbacks


def qos(topic: Topic) -> QoSProfile:
    """The quality of service that the contract asks for."""
    reliability = ReliabilityPolicy.RELIABLE if topic.reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
    durability = (
        DurabilityPolicy.TRANSIENT_LOCAL if topic.durability == "transient_local" else DurabilityPolicy.VOLATILE
    )
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=topic.depth, reliability=reliability, durability=durability
    )


def quiet_events() -> SubscriptionEventCallbacks:
    """For a subscription that expects publishers of other qualities on its topic: it does not report them."""
    try:
        from rclpy.event_handler import SubscriptionEventCallbacks
    except ImportError:  # Humble
        from rclpy.qos_event import SubscriptionEventCallbacks
    return SubscriptionEventCallbacks(use_default_callbacks=False)


def sensor_qos(depth: int = 1) -> QoSProfile:
    """Best effort, only the newest: a late image is of no use."""
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


def joint_state(
    names: tuple[str, ...], positions: npt.ArrayLike, velocities: npt.ArrayLike | None, stamp: Time, frame: str = ""
) -> JointState:
    """Positions (D,), and velocities (D,) where known, as a message."""
    message = JointState(name=list(names), position=np.asarray(positions, dtype=np.float64).tolist())
    if velocities is not None:
        message.velocity = np.asarray(velocities, dtype=np.float64).tolist()
    message.header.stamp, message.header.frame_id = stamp, frame
    return message
